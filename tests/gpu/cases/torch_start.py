"""PyTorch from its import to the first kernel. Nothing here looks for a GPU before a case does: that would be the start."""

from harness import Timed, figure, need, replies_of, speed

torch = need("torch")


def first_kernel():
    """The context, a module of torch's, memory, a launch."""
    return torch.ones(1, device="cuda").add_(1)


@speed(added_s=0.1, fresh=True)
def import_to_first_kernel():
    def run():
        first_kernel()
        torch.cuda.synchronize()

    return Timed(run, warmups=0)


@figure(unit="replies", most=5, env={"VGPU_LOG": "2"})
def replies_up_to_the_first_kernel():
    return replies_of(first_kernel)
