"""Replies that TensorFlow waits for."""

from harness import Figure, Skip, figure, need, vgpu

tf = need("tensorflow")
if not tf.config.list_physical_devices("GPU"):
    raise Skip("TensorFlow sees no GPU")

# libvgpu names each call that waits.
NAMED = {"VGPU_LOG": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}


def counted(work, times):
    """The replies of one of `times` runs."""
    with vgpu.counted() as waits:
        for _ in range(times):
            work()
    if waits.count is None:
        return None
    return Figure(waits.count / times, waits.calls)
