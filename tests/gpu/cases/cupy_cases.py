"""CuPy: its own kernels by NVRTC, cuBLAS, cuFFT, cuSOLVER, cuSPARSE, cuRAND, CUB, raw kernels, pools, graphs."""

from harness import Skip, Timed, case, need, speed

np = need("numpy")
cp = need("cupy")
try:
    cp.cuda.runtime.getDeviceCount()
except Exception as error:
    raise Skip(f"cupy sees no GPU: {error}") from error

RAW = r"""
extern "C" __global__ void saxpy(float a, const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
template <typename T> __global__ void twice(T* x) { x[threadIdx.x] *= 2; }
__constant__ float table[4];
extern "C" __global__ void weighed(float* x) { x[threadIdx.x] *= table[threadIdx.x & 3]; }
"""


def rand(*shape, dtype=np.float32):
    """The same numbers on both sides: drawn on the CPU."""
    return cp.asarray(np.random.RandomState(5).standard_normal(shape).astype(dtype))


@case()
def elementwise_and_reductions():
    x = rand(300, 400)
    return [cp.sin(x) * 2, x.sum(), x.mean(0), x.max(1), cp.sqrt(cp.abs(x)), cp.where(x > 0, x, 0), x.astype(cp.float16)]


@case()
def cublas():
    return [rand(200, 300) @ rand(300, 100), cp.dot(rand(1000), rand(1000)), rand(64, 64, dtype=np.float64) @ rand(64, 64, dtype=np.float64)]


@case(tolerance=1e-5)
def cufft():
    x = rand(64, 1000)
    return [cp.fft.rfft(x), cp.fft.fft2(rand(32, 48)), cp.fft.ifft(cp.fft.fft(x)).real]


@case(tolerance=1e-4)
def cusolver():
    a = rand(64, 64)
    positive = a @ a.T + 64 * cp.eye(64, dtype=cp.float32)
    return [cp.linalg.solve(a, rand(64, 2)), cp.linalg.cholesky(positive), cp.linalg.eigvalsh(positive), cp.linalg.svd(a)[1], cp.abs(cp.linalg.qr(a)[1])]


@case(tolerance=1e-5)
def cusparse():
    sparse = need("cupyx.scipy.sparse")
    dense = cp.where(rand(200, 200) > 1.5, rand(200, 200), 0)
    a = sparse.csr_matrix(dense)
    return [a @ rand(200, 30), a.T.tocsr() @ rand(200), (a + a).toarray(), a.data]


@case()
def curand():
    own = cp.random.RandomState(3)
    return [own.standard_normal(1000), own.randint(0, 100, 1000), own.permutation(100), cp.random.Generator(cp.random.XORWOW(3)).random(100)]


@case()
def sorting():
    x = rand(100_000)
    return [cp.sort(x), cp.argsort(x), cp.unique((x * 10).astype(cp.int32)), cp.cumsum(x > 0)]


@case()
def raw_kernel():
    x, y = rand(1000), rand(1000) * 3
    cp.RawKernel(RAW.split("template")[0], "saxpy")((8,), (128,), (cp.float32(2.5), x, y, cp.int32(1000)))
    return y


@case()
def raw_module_with_templates_and_constants():
    module = cp.RawModule(code=RAW, options=("-std=c++14",), name_expressions=["twice<float>", "twice<int>"])
    x, y, z = rand(32), cp.arange(32, dtype=cp.int32), rand(32)
    module.get_function("twice<float>")((1,), (32,), (x,))
    module.get_function("twice<int>")((1,), (32,), (y,))
    table = cp.ndarray(4, cp.float32, module.get_global("table"))
    table[:] = cp.asarray([1, 2, 3, 4], dtype=cp.float32)
    module.get_function("weighed")((1,), (32,), (z,))
    return [x, y, z]


@case()
def own_elementwise_and_reduction_kernels():
    square = cp.ElementwiseKernel("float32 x, float32 y", "float32 z", "z = (x - y) * (x - y)", "square")
    norm = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "norm")
    fused = cp.fuse()(lambda x, y: cp.sin(x) * y + 1)
    return [square(rand(100), rand(100) * 2), norm(rand(1000)), fused(rand(100), rand(100))]


@case()
def streams_and_events():
    stream, start, end = cp.cuda.Stream(non_blocking=True), cp.cuda.Event(), cp.cuda.Event()
    with stream:
        start.record()
        x = rand(500, 500) @ rand(500, 500)
        end.record()
    end.synchronize()
    return [x, cp.cuda.get_elapsed_time(start, end) >= 0, stream.done]


@case()
def host_functions():
    said = []
    stream = cp.cuda.Stream()
    with stream:
        x = cp.arange(1000).sum()
        stream.launch_host_func(lambda word: said.append(word), "called")
    stream.synchronize()
    return [said, x]


@case()
def pinned_memory_and_pools():
    pinned = cp.cuda.alloc_pinned_memory(4 << 20)
    host = np.frombuffer(pinned, np.float32, 1 << 20)
    host[:] = np.arange(1 << 20, dtype=np.float32)
    x = cp.empty(1 << 20, cp.float32)
    x.set(host, stream=cp.cuda.Stream.null)
    pool = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(pool.malloc):
        y = cp.ones(1 << 20, cp.float32)
        used = pool.used_bytes()
    return [x, y.sum(), used]


@case(fresh=True)
def asynchronous_pool():
    with cp.cuda.using_allocator(cp.cuda.MemoryAsyncPool().malloc):
        x = cp.arange(1 << 20, dtype=cp.float32)
        y = x * 2
        del x
        return y


@case(fresh=True)
def managed_memory():
    pool = cp.cuda.MemoryPool(cp.cuda.malloc_managed)
    with cp.cuda.using_allocator(pool.malloc):
        x = cp.arange(1 << 20, dtype=cp.float32)
        x *= 2
        cp.cuda.Device().synchronize()
        return x


@case()
def textures():
    source = r"""extern "C" __global__ void fetch(float* out, unsigned long long texture, int w) {
        int x = threadIdx.x, y = blockIdx.x;
        out[y * w + x] = tex2D<float>(texture, x + 0.5f, y + 0.5f);
    }"""
    texture = cp.cuda.texture
    runtime = cp.cuda.runtime
    channel = texture.ChannelFormatDescriptor(32, 0, 0, 0, runtime.cudaChannelFormatKindFloat)
    array = texture.CUDAarray(channel, 32, 16)
    data = np.arange(32 * 16, dtype=np.float32).reshape(16, 32)
    array.copy_from(data)
    kind = texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=array)
    how = texture.TextureDescriptor((runtime.cudaAddressModeClamp,) * 2, runtime.cudaFilterModePoint, runtime.cudaReadModeElementType)
    bound = texture.TextureObject(kind, how)
    out = cp.zeros((16, 32), cp.float32)
    cp.RawKernel(source, "fetch")((16,), (32,), (out, bound, cp.int32(32)))
    return out


@case()
def graph():
    stream = cp.cuda.Stream(non_blocking=True)
    x = cp.ones(1000, cp.float32)
    kernel = cp.ElementwiseKernel("float32 x", "float32 y", "y = x * 2 + 1", "step")
    out = cp.empty_like(x)
    kernel(x, out)
    cp.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        kernel(x, out)
        kernel(out, x)
        made = stream.end_capture()
    for _ in range(3):
        made.launch(stream)
    stream.synchronize()
    return [x, out]


@case()
def memory_between_torch_and_cupy():
    torch = need("torch")
    x = torch.arange(1000, device="cuda", dtype=torch.float32)
    y = cp.from_dlpack(x)
    y *= 2
    cp.cuda.Device().synchronize()
    return [x, torch.from_dlpack(y + 1)]


@case(fresh=True)
def more_than_there_is():
    try:
        cp.empty(1 << 50, cp.uint8)
    except cp.cuda.memory.OutOfMemoryError as error:
        return type(error).__name__
    return "no error"


@speed(target=1.00)
def small_kernels():
    x = cp.ones(1000, cp.float32)

    def run():
        for _ in range(500):
            cp.add(x, 1, out=x)
        cp.cuda.Device().synchronize()

    return Timed(run, operations=500)
