"""What vgpu costs a machine beside time: processor time while a program does nothing, memory of the library and of the worker."""

import os
import time
from ctypes import c_uint

from harness import Figure, Skip, figure, vgpu
from harness.driver import ADD, Driver

IDLE_S = 3.0
# That nobody had before: what a driver has compiled once it finds again, natively and in a worker, and never loads the compiler.
NEW = ADD + f".visible .global .align 4 .u32 made_at_{time.time_ns()};\n".encode()


def _used():
    driver = Driver()
    function = driver.function(NEW)
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
    before = vgpu.cpu_seconds_by_thread(workers)
    time.sleep(IDLE_S)
    after = vgpu.cpu_seconds_by_thread(workers)
    driver.synchronize()
    # The worker's own thread has its program's name; others are NVIDIA's driver's.
    used = {name: 100 * (seconds - before.get(name, 0)) / IDLE_S for name, seconds in after.items()}
    threads = ", ".join(f"{name} {percent:.3f} %" for name, percent in sorted(used.items()) if percent > 0)
    return Figure(sum(used.values()), f"{len(workers)} workers; {threads or 'no thread'}")


def _grown():
    """By how much this process grows from before cuInit to after some work, in MiB."""
    before = vgpu.memory_mib(os.getpid())
    driver = _used()
    after = vgpu.memory_mib(os.getpid())
    where = vgpu.largest_mib(os.getpid())
    driver.synchronize()
    return Figure(sum(after) - sum(before), where)


@figure(unit="MiB", most=16)
def memory_in_the_program():
    """Native: what the driver takes there."""
    return _grown()


@figure(unit="MiB", added=32)
def memory_of_the_worker():
    """Without what it shares with the program. Native: what the driver takes in the program, which it takes in the worker here."""
    if vgpu.replies() is None:
        return _grown()
    driver = _used()
    try:
        (private, shared), worker = max((vgpu.memory_mib(worker), worker) for worker in vgpu.workers())
        where = vgpu.largest_mib(worker)
    except PermissionError as error:
        raise Skip("a worker's memory is shown to root alone") from error
    driver.synchronize()
    return Figure(private, f"{where}; beside it {shared:.1f} MiB of what it shares")
