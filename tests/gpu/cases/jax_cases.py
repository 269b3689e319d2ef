"""JAX: XLA's compiled programs, its libraries, its command buffers (CUDA graphs)."""

from harness import Skip, Timed, case, need, speed

np = need("numpy")
jax = need("jax")
jnp = need("jax.numpy")
try:
    if jax.devices()[0].platform != "gpu":
        raise Skip("jax has no GPU here")
except RuntimeError as error:
    raise Skip(f"jax cannot start: {error}") from error


def rand(*shape, dtype=np.float32):
    """The same numbers on both sides: drawn on the CPU."""
    return jnp.asarray(np.random.RandomState(5).standard_normal(shape).astype(dtype))


@case()
def jitted_pointwise():
    return jax.jit(lambda x: jnp.sin(x) * 2 + jax.nn.gelu(x))(rand(100, 333))


@case(tolerance=1e-5)
def matmuls():
    bf16 = rand(256, 256).astype(jnp.bfloat16)
    return [jnp.matmul(rand(200, 300), rand(300, 100), precision="highest"), (bf16 @ bf16).astype(jnp.float32)]


@case(tolerance=1e-4)
def gradient_of_an_mlp():
    parameters = [rand(32, 64) / 8, rand(64, 10) / 8]
    x, y = rand(16, 32), jnp.arange(16) % 10

    def loss(p):
        out = jnp.maximum(x @ p[0], 0) @ p[1]
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1).mean()

    step = jax.jit(lambda p: [a - 0.1 * g for a, g in zip(p, jax.grad(loss)(p))])
    for _ in range(10):
        parameters = step(parameters)
    return [*parameters, loss(parameters)]


@case(tolerance=1e-5)
def loops_on_the_device():
    def body(state):
        return state[0] + 1, jnp.sin(state[1]) + 0.5

    counted = jax.jit(lambda x: jax.lax.while_loop(lambda s: s[0] < 100, body, (0, x)))(rand(64))
    scanned = jax.jit(lambda x: jax.lax.scan(lambda c, _: (c * 0.9 + 1, c.sum()), x, None, length=50))(rand(64))
    chosen = jax.jit(lambda x: jax.lax.cond(x.sum() > 1e9, lambda v: v * 2, lambda v: v * 3, x))(rand(64))
    return [list(counted), list(scanned), chosen]


@case(tolerance=1e-4)
def linear_algebra():
    a = rand(48, 48)
    positive = a @ a.T + 48 * jnp.eye(48)
    return [jnp.linalg.solve(positive, rand(48)), jnp.linalg.cholesky(positive), jnp.linalg.eigh(positive)[0], jnp.linalg.svd(a, compute_uv=False)]


@case(tolerance=1e-5)
def fft():
    return [jnp.fft.rfft(rand(64, 1000)), jnp.fft.fft2(rand(32, 48))]


@case()
def random_numbers():
    key = jax.random.key(3)
    one, other = jax.random.split(key)
    return [jax.random.normal(one, (1000,)), jax.random.permutation(other, 100), jax.random.randint(one, (100,), 0, 50)]


@case()
def sorting():
    x = rand(50_000)
    return [jnp.sort(x), jnp.argsort(x), jax.lax.top_k(x, 20)[0], jnp.cumsum(x > 0)]


@case(tolerance=1e-3)
def convolution():
    return jax.lax.conv(rand(4, 8, 28, 28), rand(16, 8, 3, 3), (1, 1), "SAME")


@case(tolerance=1e-4)
def attention():
    q = rand(2, 64, 4, 32)
    return jax.nn.dot_product_attention(q, q, q)


@case()
def copies_both_ways():
    x = np.arange(1 << 22, dtype=np.float32)
    y = jax.device_put(x)
    assert (np.asarray(y + 1) == x + 1).all()
    return y.sum()


@case()
def callbacks_to_the_host():
    return jax.pure_callback(lambda x: np.asarray(x) * 2 + 1, jax.ShapeDtypeStruct((10,), np.float32), rand(10))


@case()
def memory_statistics():
    x = jnp.ones(1 << 20)
    x.block_until_ready()
    said = jax.devices()[0].memory_stats() or {}
    return [x.sum(), said.get("bytes_in_use", 0) >= 4 << 20]


@case()
def devices():
    return [str(device.device_kind) for device in jax.devices()]


@case(fresh=True)
def more_than_there_is():
    try:
        jnp.zeros((1 << 40,), jnp.uint8).block_until_ready()
    except Exception as error:
        return [type(error).__name__, "RESOURCE_EXHAUSTED" in str(error)]
    return "no error"


@speed(target=0.98)
def mlp_train():
    parameters = [rand(256, 256) / 16 for _ in range(4)]
    x = rand(64, 256)

    def loss(p):
        out = x
        for w in p:
            out = jnp.tanh(out @ w)
        return (out**2).mean()

    step = jax.jit(lambda p: [a - 0.1 * g for a, g in zip(p, jax.grad(loss)(p))])
    kept = [parameters]

    def run():
        for _ in range(50):
            kept[0] = step(kept[0])
        jax.block_until_ready(kept[0])

    return Timed(run, operations=50)
