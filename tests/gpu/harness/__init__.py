"""What a file of cases uses: three decorators, and what stands beside them.

    @case()      a function whose outputs must be the same native and through vgpu (or near: tolerance)
    @speed()     a function that returns a Timed: how long it takes, native and through vgpu in turn
    @figure()    a function that returns a number which may be so large at most

The arguments of a decorator are literals, or names that the file gives them: the runner reads them without importing the file (runner/catalogue.py), so
that a file whose framework is missing can still be listed and its cases counted as skipped. Their meaning stands there.
"""

import importlib

from . import vgpu

__all__ = ["CASES", "Figure", "Skip", "Timed", "case", "figure", "need", "replies_of", "speed", "vgpu"]

CASES = {}


class Skip(Exception):
    """The case, or the whole file when it is raised at import, cannot be tried here; the text is the reason."""


class Figure(float):
    """A number with a word on what it is made of."""

    def __new__(cls, value, detail=""):
        self = super().__new__(cls, value)
        self.detail = detail
        return self


def replies_of(work, times=1):
    """The replies that one of `times` runs waits for, with VGPU_LOG=2 of which calls; None on the native side."""
    with vgpu.counted() as waits:
        for _ in range(times):
            work()
    return None if waits.count is None else Figure(waits.count / times, waits.calls)



class Timed:
    """What is timed: run() does `operations` of them to their end, the GPU's work included."""

    def __init__(self, run, operations=1, warmups=3, outputs=None):
        self.run = run
        self.operations = operations
        self.warmups = warmups
        self.outputs = outputs


def _register(**_options):
    def put(function):
        CASES[function.__name__] = function
        return function

    return put


case = speed = figure = _register


def need(module):
    """Imports a module, or says that it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Skip(f"{module} cannot be imported: {error}") from error
