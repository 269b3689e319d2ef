"""NCCL with one rank, by torch.distributed."""

from harness import Skip, case, need

torch = need("torch")
distributed = need("torch.distributed")
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")
if not distributed.is_nccl_available():
    raise Skip("this torch has no NCCL")


def started():
    """The group of this process alone."""
    torch.cuda.set_device(0)
    store = distributed.HashStore()
    distributed.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=torch.device("cuda", 0))


@case(fresh=True, limit_s=150)
def collectives():
    started()
    x = torch.arange(1000, device="cuda", dtype=torch.float32)
    summed, gathered, part = x.clone(), [torch.empty_like(x)], torch.empty_like(x)
    distributed.all_reduce(summed)
    distributed.all_gather(gathered, x * 2)
    distributed.reduce_scatter(part, [x * 3])
    distributed.broadcast(x, 0)
    distributed.barrier()
    torch.cuda.synchronize()
    distributed.destroy_process_group()
    return [summed, gathered[0], part, x]


@case(fresh=True, limit_s=150)
def data_parallel_training():
    started()
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(32, 8).cuda(), device_ids=[0])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(16, 32).cuda()
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    torch.cuda.synchronize()
    made = [p.detach().clone() for p in model.parameters()]
    distributed.destroy_process_group()
    return made
