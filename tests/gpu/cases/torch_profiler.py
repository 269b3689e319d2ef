"""PyTorch's profiler: what it sees of the program, and by CUPTI of the GPU."""

from harness import Skip, case, need

torch = need("torch")
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")
profiler = torch.profiler


def profiled(activities):
    x = torch.randn(256, 256).cuda()
    torch.cuda.synchronize()
    with profiler.profile(activities=activities) as seen:
        for _ in range(3):
            (x @ x).relu().sum()
        torch.cuda.synchronize()
    return seen


@case(fresh=True)
def operations_of_the_program():
    seen = profiled([profiler.ProfilerActivity.CPU])
    return {event.key: event.count for event in sorted(seen.key_averages(), key=lambda e: e.key) if event.key.startswith("aten::")}


@case(fresh=True)
def kernels_of_the_gpu():
    seen = profiled([profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA])
    device = torch.autograd.DeviceType.CUDA
    names = sorted({event.name for event in seen.events() if event.device_type == device})
    return names


@case(fresh=True)
def ranges():
    with torch.cuda.nvtx.range("outer"):
        torch.cuda.nvtx.mark("mark")
        return torch.ones(100, device="cuda").sum()
