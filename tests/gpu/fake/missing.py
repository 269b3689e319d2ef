"""A file whose framework is not here."""

from harness import case, need

need("no_such_framework")


@case()
def one():
    return 1


@case()
def other():
    return 2
