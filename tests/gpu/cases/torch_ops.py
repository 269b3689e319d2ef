"""PyTorch's operations, eager: its own kernels, cuBLAS, cuBLASLt, cuDNN, cuFFT, cuSOLVER, cuSPARSE, cuRAND, CUB."""

from harness import Skip, case, need

torch = need("torch")
F = torch.nn.functional
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")


def rand(*shape, dtype=torch.float32):
    """The same numbers on both sides: drawn on the CPU."""
    return torch.randn(*shape).to("cuda", dtype)


@case()
def elementwise():
    x = rand(1000, 33)
    return [x.relu(), x.exp(), x.sin() * 2 + 1, x.abs().sqrt(), torch.sigmoid(x), torch.where(x > 0, x, -x), x.half() * 3]


@case()
def reductions():
    x = rand(257, 1031)
    return [x.sum(), x.mean(0), x.var(1), x.max(), x.argmax(1), x.prod(1), x.norm(), x.amin(0), (x > 0).any(1), x.logsumexp(1)]


@case()
def indexing():
    x = rand(500, 64)
    at = torch.randint(0, 500, (1000,)).cuda()
    return [x[at], x.gather(0, at[:64].repeat(10, 1)), x.masked_fill(x > 0, 1.5), x[x > 1], x.index_select(1, at[:30] % 64), x.take(at)]


@case()
def scatter_and_index_put():
    x = torch.zeros(100, 8, device="cuda")
    at = torch.randperm(100).cuda()
    x.index_copy_(0, at, rand(100, 8))
    x.scatter_(0, at.unsqueeze(1).expand(100, 8), rand(100, 8))
    x[at[:10]] = 7
    return x


@case(tolerance=1e-5)
def scatter_add_by_atomics():
    x = torch.zeros(100, device="cuda")
    return x.scatter_add_(0, torch.randint(0, 100, (100_000,)).cuda(), rand(100_000))


@case()
def matmul_f32():
    return [rand(256, 300) @ rand(300, 200), rand(1, 512) @ rand(512, 512), torch.mv(rand(300, 300), rand(300))]


@case()
def matmul_f64():
    return rand(200, 200, dtype=torch.float64) @ rand(200, 200, dtype=torch.float64)


@case()
def matmul_bf16():
    return rand(1024, 1024, dtype=torch.bfloat16) @ rand(1024, 1024, dtype=torch.bfloat16)


@case()
def matmul_f16_batched():
    return torch.bmm(rand(16, 128, 96, dtype=torch.float16), rand(16, 96, 64, dtype=torch.float16))


@case()
def matmul_int8():
    a = torch.randint(-100, 100, (64, 128), dtype=torch.int8).cuda()
    b = torch.randint(-100, 100, (128, 64), dtype=torch.int8).cuda()
    return torch._int_mm(a, b)


@case()
def matmul_fp8():
    a = rand(64, 128).to(torch.float8_e4m3fn)
    b = rand(64, 128).to(torch.float8_e4m3fn).t()
    one = torch.ones((), device="cuda")
    return torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


@case()
def linear_with_bias_and_gelu():
    layer = torch.nn.Linear(512, 1024).to("cuda", torch.bfloat16)
    return F.gelu(layer(rand(64, 512, dtype=torch.bfloat16)))


@case()
def einsum_and_complex():
    x = torch.complex(rand(20, 30), rand(20, 30))
    return [torch.einsum("bij,bjk->bik", rand(4, 20, 30), rand(4, 30, 10)), x @ x.mH, x.abs(), x.angle()]


@case()
def softmax_and_norms():
    x = rand(64, 1000)
    norm = torch.nn.LayerNorm(1000).cuda()
    groups = torch.nn.GroupNorm(4, 32).cuda()
    return [x.softmax(1), x.log_softmax(1), norm(x), groups(rand(8, 32, 10, 10)), F.rms_norm(x, (1000,))]


@case()
def batchnorm_in_training():
    norm = torch.nn.BatchNorm2d(16).cuda()
    return [norm(rand(8, 16, 14, 14)), norm.running_mean, norm.running_var]


@case()
def convolutions():
    x = rand(4, 16, 32, 32)
    return [
        F.conv2d(x, rand(32, 16, 3, 3), padding=1),
        F.conv2d(x.half(), rand(32, 16, 3, 3, dtype=torch.float16), stride=2),
        F.conv2d(x, rand(16, 1, 3, 3), groups=16),
        F.conv1d(rand(4, 16, 100), rand(8, 16, 5)),
        F.conv3d(rand(2, 4, 8, 8, 8), rand(8, 4, 3, 3, 3)),
    ]


# Natively, too, its last bits are others in each run.
@case(tolerance=1e-6)
def transposed_convolution():
    return F.conv_transpose2d(rand(4, 16, 32, 32), rand(16, 8, 3, 3), stride=2)


@case(tolerance=1e-3)
def convolution_backward():
    x, w = rand(8, 16, 28, 28).requires_grad_(), rand(32, 16, 3, 3).requires_grad_()
    F.conv2d(x, w, padding=1).square().mean().backward()
    return [x.grad, w.grad]


@case(tolerance=1e-3)
def convolution_by_benchmark():
    torch.backends.cudnn.benchmark = True
    try:
        return F.conv2d(rand(8, 64, 28, 28), rand(64, 64, 3, 3), padding=1)
    finally:
        torch.backends.cudnn.benchmark = False


@case()
def pooling_and_sampling():
    x = rand(4, 8, 30, 30)
    grid = torch.rand(4, 20, 20, 2).cuda() * 2 - 1
    return [
        F.max_pool2d(x, 3),
        F.avg_pool2d(x, 2),
        F.adaptive_avg_pool2d(x, 7),
        F.interpolate(x, scale_factor=2, mode="bilinear"),
        F.grid_sample(x, grid, align_corners=False),
        F.pad(x, (1, 2, 3, 4), mode="reflect"),
    ]


@case()
def recurrent():
    lstm = torch.nn.LSTM(32, 64, num_layers=2, batch_first=True).cuda()
    gru = torch.nn.GRU(32, 64).cuda()
    x = rand(8, 20, 32)
    out, (h, c) = lstm(x)
    return [out, h, c, gru(x)[0]]


@case()
def attention_math():
    return _attention(torch.nn.attention.SDPBackend.MATH)


@case()
def attention_flash():
    return _attention(torch.nn.attention.SDPBackend.FLASH_ATTENTION)


@case()
def attention_efficient():
    return _attention(torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION)


@case()
def attention_cudnn():
    return _attention(torch.nn.attention.SDPBackend.CUDNN_ATTENTION)


def _attention(backend):
    q, k, v = (rand(2, 8, 128, 64, dtype=torch.float16) for _ in range(3))
    with torch.nn.attention.sdpa_kernel(backend):
        return [F.scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True)]


@case()
def encoder_layer():
    layer = torch.nn.TransformerEncoderLayer(64, 4, batch_first=True).cuda().eval()
    return layer(rand(4, 16, 64))


@case()
def embeddings():
    table = torch.nn.Embedding(1000, 64).cuda()
    bag = torch.nn.EmbeddingBag(1000, 64, mode="sum").cuda()
    at = torch.randint(0, 1000, (32, 20)).cuda()
    return [table(at), bag(at)]


@case(tolerance=1e-5)
def losses():
    x, y = rand(64, 100), torch.randint(0, 100, (64,)).cuda()
    log = rand(50, 16, 20).log_softmax(2)
    targets = torch.randint(1, 20, (16, 30)).cuda()
    ctc = F.ctc_loss(log, targets, torch.full((16,), 50), torch.full((16,), 25), reduction="sum")
    return [F.cross_entropy(x, y), F.mse_loss(x, x + 1), F.kl_div(x.log_softmax(1), x.softmax(1), reduction="sum"), ctc]


@case(tolerance=1e-5)
def fft():
    x = rand(64, 1000)
    return [torch.fft.rfft(x), torch.fft.fft2(rand(4, 32, 48)), torch.fft.ifft(torch.fft.fft(x)).real, torch.fft.fftn(rand(8, 9, 10))]


@case(tolerance=1e-4)
def solvers():
    a = rand(64, 64)
    positive = a @ a.mT + 64 * torch.eye(64, device="cuda")
    return [
        torch.linalg.solve(a, rand(64, 3)),
        torch.linalg.cholesky(positive),
        torch.linalg.eigvalsh(positive),
        torch.linalg.svdvals(a),
        torch.linalg.qr(a).R.abs(),
        torch.linalg.inv(positive),
        torch.linalg.lstsq(rand(100, 20), rand(100, 2)).solution,
        torch.linalg.det(a / 8),
        torch.linalg.solve(rand(10, 32, 32), rand(10, 32, 1)),
    ]


@case(tolerance=1e-5)
def sparse():
    dense = rand(300, 300) * (torch.rand(300, 300).cuda() > 0.9)
    csr, coo, x = dense.to_sparse_csr(), dense.to_sparse(), rand(300, 40)
    return [csr @ x, torch.sparse.mm(coo, x), coo.coalesce().values(), (coo + coo).to_dense(), csr.matmul(x[:, 0])]


@case()
def sorting():
    x = rand(100_000)
    return [x.sort().values, x.argsort(stable=True), x.topk(100).values, x.kthvalue(500).values, x.median(), rand(100, 50).sort(1).values]


@case()
def scans_and_sets():
    x = torch.randint(0, 50, (10_000,)).cuda()
    values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    return [values, inverse, counts, x.cumsum(0), x.cummax(0).values, torch.bincount(x), x.nonzero(), torch.searchsorted(values, x)]


@case()
def histogram():
    return torch.histc(rand(100_000), bins=64, min=-3, max=3)


@case()
def random_numbers():
    own = torch.Generator("cuda").manual_seed(7)
    drawn = [
        torch.randn(1000, device="cuda"),
        torch.rand(1000, device="cuda", generator=own),
        torch.randint(0, 1000, (1000,), device="cuda"),
        torch.randperm(1000, device="cuda"),
        torch.empty(1000, device="cuda").exponential_(),
        torch.bernoulli(torch.full((1000,), 0.3, device="cuda")),
        torch.multinomial(torch.ones(100, device="cuda"), 50),
        F.dropout(torch.ones(1000, device="cuda")),
    ]
    state = torch.cuda.get_rng_state()
    first = torch.randn(10, device="cuda")
    torch.cuda.set_rng_state(state)
    return [*drawn, first, torch.randn(10, device="cuda"), state]


@case()
def integers_and_bits():
    x = torch.randint(-(2**31), 2**31 - 1, (1000,), dtype=torch.int64).cuda()
    return [x // 7, x % 7, x & 0xFF, x << 3, x ^ (x >> 5), x.to(torch.int32), x.to(torch.uint8), x.float()]


@case()
def many_tensors_in_one_launch():
    # More than 4 KB of kernel parameters, and lists that travel as parameters.
    parts = [rand(7, 13) for _ in range(300)]
    summed = torch._foreach_add(parts, 1.0)
    return [torch.cat(parts), torch.stack(parts).sum(0), torch.cat(summed), torch.stack(torch._foreach_norm(parts))]


@case()
def shapes():
    x = rand(6, 10, 14)
    return [x.permute(2, 0, 1).contiguous(), x.flip(1), x.roll(3, 2), x.unfold(2, 4, 2), x[:, ::2, 1:], x.tril(), torch.cdist(x[0], x[1])]


@case()
def a_large_tensor():
    x = torch.arange(1 << 28, device="cuda", dtype=torch.int32)
    x.mul_(3)
    return [x.sum(), x[123_456_789], x[-1]]


@case()
def printing():
    return repr(rand(3, 4)) + repr(torch.arange(2000, device="cuda"))


@case()
def own_kernel_by_nvrtc():
    # What torch compiles by NVRTC: jiterator.
    f = torch.cuda.jiterator._create_jit_fn("template <typename T> T f(T x, T y) { return x * y + x; }")
    return f(rand(1000), rand(1000))
