"""PyTorch's memory: pinned, pageable, its statistics, its allocators, sharing between processes."""

import gc

from harness import Skip, case, need

torch = need("torch")
if not torch.cuda.is_available():
    raise Skip("torch sees no GPU")

SEGMENTS = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
POOLS = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync", "PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"}


def there_and_back(x, non_blocking=False):
    y = x.to("cuda", non_blocking=non_blocking)
    z = (y + 1).to("cpu", non_blocking=non_blocking)
    torch.cuda.synchronize()
    assert torch.equal(z, x + 1)
    return y


@case()
def pageable_copies_of_many_sizes():
    return [there_and_back(torch.randn(count)).sum() for count in (1, 7, 1023, 16_384, 262_145, 1 << 23)]


@case()
def pinned_copies_of_many_sizes():
    sums = []
    for count in (1, 7, 1023, 16_384, 262_145, 1 << 23):
        x = torch.randn(count).pin_memory()
        assert x.is_pinned()
        sums.append(there_and_back(x, non_blocking=True).sum())
    return sums


@case()
def strided_and_converted_copies():
    x = torch.randn(512, 512)
    y = torch.zeros(512, 512, device="cuda")
    y[:, ::2].copy_(x[:, ::2])
    y[::3].copy_(x[::3].half())
    back = torch.empty(256, 512, dtype=torch.float64, pin_memory=True)
    back.copy_(y[::2], non_blocking=True)
    torch.cuda.synchronize()
    return [y, back]


@case()
def a_pinned_buffer_used_again_before_the_copy_ended():
    # The caching allocator must not give pinned memory again while a copy of it waits.
    out = torch.zeros(20, 1 << 20, device="cuda")
    for at in range(20):
        x = torch.full((1 << 20,), float(at)).pin_memory()
        out[at].copy_(x, non_blocking=True)
        del x
    return out.sum(1)


@case()
def registered_memory():
    x = torch.randn(1 << 20)
    runtime = torch.cuda.cudart()
    code = int(runtime.cudaHostRegister(x.data_ptr(), x.numel() * 4, 0))
    y = x.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    pinned = x.is_pinned()
    return [code, pinned, y.sum(), int(runtime.cudaHostUnregister(x.data_ptr()))]


def statistics():
    """What the allocator says of itself after the same calls."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    blocks = [torch.empty(1 << at, device="cuda") for at in range(8, 25)]
    during = torch.cuda.memory_allocated() - before
    del blocks[::2]
    left = torch.cuda.memory_allocated() - before
    peak = torch.cuda.max_memory_allocated() - before
    del blocks
    gc.collect()
    torch.cuda.empty_cache()
    return [during, left, peak, torch.cuda.memory_allocated() - before]


@case(fresh=True)
def statistics_of_the_allocator():
    said = statistics()
    torch.empty(1 << 20, device="cuda")
    stats = torch.cuda.memory_stats()
    kept = {key: stats[key] for key in sorted(stats) if key.startswith(("allocated_bytes.all", "reserved_bytes.all", "num_"))}
    return [said, kept, len(torch.cuda.memory_summary()) > 1000, len(torch.cuda.memory_snapshot())]


@case(alone=True)
def free_memory_sinks_and_comes_back():
    torch.ones(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    x = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    sunk = free - torch.cuda.mem_get_info()[0]
    del x
    torch.cuda.empty_cache()
    back = torch.cuda.mem_get_info()[0]
    # Others may use the GPU meanwhile, and what is given back comes in large pieces.
    return [0.75 * 2**30 < sunk < 1.25 * 2**30, abs(free - back) < 2**28, free <= total]


@case(env=SEGMENTS)
def expandable_segments():
    said = statistics()
    x = torch.ones(1 << 26, device="cuda")
    y = torch.ones(1 << 27, device="cuda")
    return [said, x.sum() + y.sum()]


@case(env=POOLS)
def asynchronous_allocator():
    blocks = [torch.full((1 << at,), 2.0, device="cuda") for at in range(8, 24)]
    total = sum(block.sum() for block in blocks)
    del blocks
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return total


@case(fresh=True)
def more_than_there_is():
    said = []
    for _ in range(3):
        try:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError as error:
            said.append([type(error).__name__, str(error).split(".")[0]])
    return [said, torch.ones(1000, device="cuda").sum()]


@case(alone=True)
def filled_up_to_the_end():
    blocks = []
    free = torch.cuda.mem_get_info()[0]
    try:
        while True:
            blocks.append(torch.empty(4 << 30, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        pass
    # All of it, but for what the driver keeps for itself.
    enough = len(blocks) >= free // (4 << 30) - 1
    for block in blocks:
        block[-1] = 7
    ends = all(int(block[-1]) == 7 for block in blocks)
    blocks.clear()
    torch.cuda.empty_cache()
    return [enough, ends, torch.ones(1000, device="cuda").sum()]


@case(fresh=True)
def fraction_of_the_memory():
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        torch.empty(4 << 30, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        return type(error).__name__
    return "no error"


def _shared_child(queue, done):
    tensor = queue.get()
    tensor.add_(1)
    torch.cuda.synchronize()
    done.put(float(tensor.sum()))
    del tensor


@case(fresh=True, limit_s=150)
def shared_between_processes():
    context = torch.multiprocessing.get_context("spawn")
    queue, done = context.Queue(), context.Queue()
    child = context.Process(target=_shared_child, args=(queue, done))
    child.start()
    x = torch.ones(1 << 20, device="cuda")
    queue.put(x)
    said = done.get(timeout=90)
    child.join(30)
    return [said, x.sum(), child.exitcode]
