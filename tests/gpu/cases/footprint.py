"""What vgpu costs a machine beside time: processor time while a program does nothing, memory of the library and of the worker."""

import os
import time
from ctypes import c_uint

from harness import Figure, Skip, figure, vgpu
from harness.driver import Driver

IDLE_S = 3.0


def _used():
    driver = Driver()
    function = driver.function()
    place = driver.allocate(1 << 20)
    for _ in range(100):
        driver.launch(function, 1, 1, place, place, place, c_uint(1))
    driver.synchronize()
    return driver


@figure(unit="% of a CPU", most=0.1)
def idle_worker():
    if vgpu.replies() is None:
        return None
    driver = _used()
    time.sleep(0.5)
    workers = vgpu.workers()
    before = vgpu.cpu_seconds(workers)
    time.sleep(IDLE_S)
    used = 100 * (vgpu.cpu_seconds(workers) - before) / IDLE_S
    driver.synchronize()
    return Figure(used, f"{len(workers)} workers")


@figure(unit="MiB", most=16)
def memory_in_the_program():
    """By how much the program grows from before cuInit to after some work. Native: the driver's share."""
    before = vgpu.memory_mib(os.getpid())
    driver = _used()
    grown = vgpu.memory_mib(os.getpid()) - before
    driver.synchronize()
    return grown


@figure(unit="MiB", most=None)
def memory_of_the_worker():
    """All that the worker alone holds, the driver's part included: compare with native's memory_in_the_program."""
    driver = _used()
    workers = vgpu.workers()
    if not workers:
        return None
    try:
        each = [vgpu.memory_mib(worker) for worker in workers]
    except PermissionError as error:
        raise Skip("a worker's memory is shown to root alone") from error
    driver.synchronize()
    return Figure(max(each), f"{len(each)} workers, {sum(each):.1f} MiB in all")
