"""What PyTorch says when something goes wrong on the GPU, and around fork. Each in a process of its own.

Nothing here looks for a GPU before a case does: a child of fork must be able to start by itself.
"""

import os
import subprocess
import sys

from harness import case, need

torch = need("torch")


def told(work):
    """The error's kind and first line; the lines after it are torch's advice."""
    try:
        value = work()
    except Exception as error:
        return [type(error).__name__, str(error).split("\n")[0]]
    return ["no error", repr(value)]


@case(fresh=True)
def index_out_of_range_is_a_device_assert():
    x = torch.zeros(10, device="cuda")
    at = torch.tensor([100], device="cuda")

    def work():
        y = x[at]
        torch.cuda.synchronize()
        return y

    return [told(work), told(lambda: torch.zeros(10, device="cuda") + 1), told(torch.cuda.synchronize)]


@case(fresh=True)
def wrong_class_is_a_device_assert():
    def work():
        loss = torch.nn.functional.cross_entropy(torch.zeros(4, 10, device="cuda"), torch.full((4,), 50, device="cuda"))
        return loss.item()

    return told(work)


@case(fresh=True)
def a_wild_store_is_an_illegal_address():
    kernel = torch.cuda._compile_kernel('extern "C" __global__ void wild(float *p) { p[1ull << 40] = 1; }', "wild")
    x = torch.zeros(10, device="cuda")

    def work():
        kernel((1, 1, 1), (1, 1, 1), (x,))
        torch.cuda.synchronize()

    return [told(work), told(torch.cuda.synchronize)]


@case(fresh=True)
def a_device_that_is_not_there():
    return [told(lambda: torch.zeros(1, device="cuda:99")), told(lambda: torch.cuda.set_device(99)), torch.cuda.device_count()]


@case(fresh=True)
def fork_after_the_start_is_refused():
    torch.zeros(1, device="cuda")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, repr(told(lambda: torch.zeros(1, device="cuda").sum().item())).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        text = said.read().decode()
    _, status = os.waitpid(child, 0)
    return [text, status, torch.ones(100, device="cuda").sum()]


@case(fresh=True)
def fork_before_the_start_works_in_both():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, repr(torch.arange(100, device="cuda").sum().item()).encode())
        os._exit(0)
    os.close(writer)
    own = torch.ones(100, device="cuda").sum()
    with open(reader, "rb") as said:
        text = said.read().decode()
    os.waitpid(child, 0)
    return [text, own]


@case(fresh=True)
def no_visible_device():
    code = "import torch; print(torch.cuda.is_available(), torch.cuda.device_count())"
    env = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60).stdout


@case(fresh=True)
def launches_that_wait_name_their_line():
    code = (
        "import torch\n"
        "x = torch.zeros(10, device='cuda')\n"
        "try:\n    y = x[torch.tensor([100], device='cuda')]\n"
        "except Exception as e:\n    print(type(e).__name__, str(e).splitlines()[0])\n"
        "else:\n    print('no error')\n"
    )
    env = dict(os.environ, CUDA_LAUNCH_BLOCKING="1")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60).stdout


@case(fresh=True)
def properties():
    said = torch.cuda.get_device_properties(0)
    names = [
        "name", "major", "minor", "total_memory", "multi_processor_count", "warp_size", "L2_cache_size",
        "max_threads_per_multi_processor", "regs_per_multiprocessor", "shared_memory_per_block",
        "shared_memory_per_block_optin", "shared_memory_per_multiprocessor", "is_integrated", "gcnArchName",
    ]
    # How much memory is granted is vgpu's to say.
    return {name: str(getattr(said, name, None)) for name in names if name != "total_memory"}


@case(fresh=True)
def reset_and_started_again():
    torch.ones(10, device="cuda")
    code = int(torch.cuda.cudart().cudaProfilerStart()), int(torch.cuda.cudart().cudaProfilerStop())
    return [list(code), torch.cuda.get_device_capability(), torch.cuda.is_bf16_supported(), torch.cuda.get_arch_list()]
