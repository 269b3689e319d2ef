"""A file that cannot be imported through vgpu."""

import os

from harness import case

if os.environ["VGPU_SUITE_SIDE"] == "vgpu":
    raise OSError("no library")


@case()
def one():
    return 1


@case()
def other():
    return 2
