"""Numba's CUDA target: kernels compiled from Python, shared memory, atomics, streams."""

from harness import Skip, case, need

np = need("numpy")
need("numba")
cuda = need("numba.cuda")
if not cuda.is_available():
    raise Skip("numba sees no GPU")
float32 = need("numba").float32


@cuda.jit
def add_kernel(x, y, out):
    at = cuda.grid(1)
    if at < out.size:
        out[at] = x[at] + y[at]


@cuda.jit
def sum_kernel(x, out):
    shared = cuda.shared.array(128, float32)
    at = cuda.threadIdx.x
    shared[at] = x[cuda.grid(1)]
    cuda.syncthreads()
    step = 64
    while step > 0:
        if at < step:
            shared[at] += shared[at + step]
        cuda.syncthreads()
        step //= 2
    if at == 0:
        out[cuda.blockIdx.x] = shared[0]


@cuda.jit
def count_kernel(x, out):
    cuda.atomic.add(out, x[cuda.grid(1)] % 16, 1)


def numbers(count):
    return np.random.RandomState(5).standard_normal(count).astype(np.float32)


@case(limit_s=150)
def vector_add():
    x = cuda.to_device(numbers(10_000))
    out = cuda.device_array_like(x)
    add_kernel[80, 128](x, x, out)
    return out


@case(limit_s=150)
def arrays_of_the_host():
    x, out = numbers(1000), np.zeros(1000, np.float32)
    add_kernel[8, 128](x, x, out)
    return out


@case(limit_s=150)
def shared_memory():
    out = cuda.device_array(100, np.float32)
    sum_kernel[100, 128](cuda.to_device(numbers(12_800)), out)
    return out


@case(limit_s=150)
def atomics():
    out = cuda.to_device(np.zeros(16, np.int32))
    count_kernel[100, 128](cuda.to_device(np.arange(12_800, dtype=np.int32)), out)
    return out


@case(limit_s=150)
def streams_and_pinned_memory():
    stream = cuda.stream()
    host = cuda.pinned_array(10_000, np.float32)
    host[:] = numbers(10_000)
    x = cuda.to_device(host, stream=stream)
    out = cuda.device_array_like(x, stream=stream)
    add_kernel[80, 128, stream](x, x, out)
    back = out.copy_to_host(stream=stream)
    stream.synchronize()
    return back


@case(limit_s=150)
def reduction():
    total = cuda.reduce(lambda a, b: a + b)
    return int(total(np.arange(10_000, dtype=np.int64)))


@case(limit_s=150)
def memory():
    free, total = cuda.current_context().get_memory_info()
    return [0 < free <= total, cuda.get_current_device().compute_capability]


@case(limit_s=150)
def managed_arrays():
    x, out = cuda.managed_array(10_000, np.float32), cuda.managed_array(10_000, np.float32)
    x[:] = numbers(10_000)
    add_kernel[80, 128](x, x, out)
    cuda.synchronize()
    x[:] = out
    add_kernel[80, 128](x, out, out)
    cuda.synchronize()
    return out.copy()
