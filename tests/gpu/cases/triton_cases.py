"""Triton's own kernels: its compiler, its launcher, tensor maps, autotuning."""

from harness import Skip, Timed, case, need, speed

torch = need("torch")
triton = need("triton")
tl = need("triton.language")
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)


@triton.jit
def softmax_kernel(out, x, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    values = tl.load(x + row * columns + at, mask=at < columns, other=-float("inf"))
    values = tl.exp(values - tl.max(values, axis=0))
    tl.store(out + row * columns + at, values / tl.sum(values, axis=0), mask=at < columns)


@triton.jit
def matmul_kernel(a, b, c, K, N, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        total += tl.dot(tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + n[None, :]))
    tl.store(c + m[:, None] * N + n[None, :], total.to(tl.float16))


@triton.jit
def count_kernel(out, BLOCK: tl.constexpr):
    tl.atomic_add(out + (tl.arange(0, BLOCK) % 7), 1)


@triton.jit
def print_kernel():
    tl.device_print("program", tl.program_id(0))


@triton.autotune(configs=[triton.Config({"BLOCK": size}) for size in (128, 256, 512)], key=["n"])
@triton.jit
def tuned_kernel(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) * 3, mask=at < n)


def added(x, y):
    out = torch.empty_like(x)
    add_kernel[(triton.cdiv(x.numel(), 1024),)](x, y, out, x.numel(), BLOCK=1024)
    return out


@case(limit_s=150)
def vector_add():
    return added(torch.randn(100_000).cuda(), torch.randn(100_000).cuda())


@case(limit_s=150)
def softmax():
    x = torch.randn(200, 777).cuda()
    out = torch.empty_like(x)
    softmax_kernel[(200,)](out, x, 777, BLOCK=1024)
    return out


@case(limit_s=150)
def matmul():
    a, b = (torch.randn(256, 256).cuda().half() for _ in range(2))
    c = torch.empty(256, 256, device="cuda", dtype=torch.float16)
    matmul_kernel[(4, 4)](a, b, c, 256, 256, BM=64, BN=64, BK=32, num_stages=3)
    return c


@case(limit_s=150)
def atomics():
    out = torch.zeros(7, device="cuda", dtype=torch.int32)
    count_kernel[(100,)](out, BLOCK=128)
    return out


@case(limit_s=200)
def autotuned():
    x = torch.randn(50_000).cuda()
    out = torch.empty_like(x)
    tuned_kernel[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, out, x.numel())
    return out


@case(limit_s=150)
def timed_by_do_bench():
    x = torch.randn(100_000).cuda()
    return triton.testing.do_bench(lambda: added(x, x), warmup=5, rep=20) > 0


@case(fresh=True, limit_s=150)
def printed_by_a_kernel():
    import os
    import tempfile

    with tempfile.TemporaryFile() as said:
        kept = os.dup(1)
        os.dup2(said.fileno(), 1)
        print_kernel[(2,)]()
        torch.cuda.synchronize()
        os.dup2(kept, 1)
        said.seek(0)
        return len([line for line in said.read().splitlines() if b"program" in line])


@speed(target=1.00)
def small_kernels():
    x = torch.randn(1000).cuda()
    out = torch.empty_like(x)

    def run():
        for _ in range(500):
            add_kernel[(1,)](x, x, out, 1000, BLOCK=1024)
        torch.cuda.synchronize()

    return Timed(run, operations=500)
