"""PyTorch on two devices in one process: copies between them, DataParallel, NCCL's collectives."""

from harness import Skip, case, need

torch = need("torch")
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")
if torch.cuda.device_count() < 2:
    raise Skip("one device (two: --devices 2)")


@case()
def peers():
    return [torch.cuda.can_device_access_peer(*pair) for pair in ((0, 1), (1, 0))]


@case()
def copies():
    x = torch.arange(1 << 20, device="cuda:0", dtype=torch.float32)
    return [(x.to("cuda:1") * 2).to("cuda:0"), x.to("cuda:1").cpu()]


@case(fresh=True, limit_s=150)
def collectives():
    from torch.cuda import nccl

    def each(value):
        return [torch.full((1 << 16,), value + device, device=f"cuda:{device}") for device in (0, 1)]

    summed, sent = each(1.0), each(5.0)
    nccl.all_reduce(summed)
    nccl.broadcast(sent, 1)
    for device in (0, 1):
        torch.cuda.synchronize(device)
    return summed + sent


@case(fresh=True, limit_s=150, tolerance=1e-6)
def data_parallel():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)).cuda(0)
    both = torch.nn.DataParallel(model, device_ids=[0, 1])
    made = both(torch.randn(32, 64).cuda(0))
    made.sum().backward()
    return [made.detach()] + [p.grad.detach().clone() for p in model.parameters()]
