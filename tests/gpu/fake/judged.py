"""Cases that need no GPU: with them the runner itself is tried (test_runner.py). VGPU_SUITE_SIDE says which side this is."""

import atexit
import os
import signal
import time

from harness import Figure, Skip, Timed, case, figure, speed

VGPU = os.environ["VGPU_SUITE_SIDE"] == "vgpu"
OTHER = {"VGPU_FAKE": "1"}


@case()
def same():
    return {"bytes": b"abc", "numbers": [1, 2.5, float("nan")], "text": "x", "none": None}


@case()
def other_text():
    return "vgpu" if VGPU else "native"


@case(tolerance=1e-3)
def near():
    return [1.0, 2.0001 if VGPU else 2.0]


@case(tolerance=1e-6)
def not_near_enough():
    return 2.0001 if VGPU else 2.0


@case()
def nothing():
    return []


@case()
def raises_through_vgpu():
    if VGPU:
        raise ValueError("only here")
    return 1


@case()
def raises_on_both():
    raise ValueError("everywhere")


@case()
def dies_through_vgpu():
    if VGPU:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 1


@case(limit_s=2)
def hangs_through_vgpu():
    if VGPU:
        time.sleep(60)
    return 1


@case()
def after_the_others():
    return 1


@case()
def cannot_be_tried():
    raise Skip("no such thing here")


@case()
def skips_through_vgpu_alone():
    if VGPU:
        raise Skip("only here")
    return 1


@case(fresh=True)
def of_its_own():
    return os.getpid() != os.getppid()


@case(env=OTHER)
def with_an_environment():
    return os.environ["VGPU_FAKE"]


@case(fresh=True)
def ends_badly_through_vgpu():
    if VGPU:
        atexit.register(lambda: os._exit(3))
    return 1


@case(fresh=True)
def ends_badly_on_both():
    atexit.register(lambda: os._exit(3))
    return 1


@speed(target=0.05)
def half_as_fast():
    return Timed(lambda: time.sleep(0.02 if VGPU else 0.01), outputs=lambda: 5)


@speed(target=100)
def not_fast_enough():
    return Timed(lambda: time.sleep(0.01))


@speed(added_s=5, fresh=True)
def once_in_a_process():
    return Timed(lambda: time.sleep(0.05), warmups=0)


@speed(target=0.05)
def fast_but_wrong():
    return Timed(lambda: time.sleep(0.001), outputs=lambda: VGPU)


@figure(unit="things", most=3)
def few():
    return Figure(2, "one and one") if VGPU else None


@figure(unit="things", most=1)
def too_many():
    return Figure(2, "one and one")


@figure(unit="things", most=1, must=True)
def far_too_many():
    return 2
