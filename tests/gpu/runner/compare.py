"""Whether two sides' outputs are the same: every bit, or near enough where the case says so."""

import math


class Differs(Exception):
    """What is different."""


def same(native, vgpu, tolerance):
    """Compares two lists of described leaves. Returns "bitwise" or the largest relative error.

    An error is the Euclidean norm of the difference over that of the native values, of a sample spread over each output;
    the norms of the whole outputs may differ by as much.
    """
    names = ([leaf["name"] for leaf in native], [leaf["name"] for leaf in vgpu])
    if names[0] != names[1]:
        raise Differs(f"outputs {names[1][:8]}, native {names[0][:8]}")
    if not native:
        raise Differs("the case has no outputs")
    largest = 0.0
    bitwise = True
    for theirs, ours in zip(native, vgpu):
        if theirs["digest"] == ours["digest"] and theirs["type"] == ours["type"]:
            continue
        bitwise = False
        error = _error(theirs, ours)
        # Without a tolerance one other bit is too much; what is no number is never near.
        if not tolerance or not error <= tolerance:
            raise Differs(_told(theirs, ours, error, tolerance))
        largest = max(largest, error)
    return "bitwise" if bitwise else f"{largest:.1e}"


def _error(native, vgpu):
    a, b = native["sample"], vgpu["sample"]
    if native["type"] != vgpu["type"] or a is None or b is None or len(a) != len(b):
        return math.inf
    squares = total = 0.0
    for x, y in zip(a, b):
        if _is_same(x, y):
            difference = 0.0
        elif math.isfinite(x) and math.isfinite(y):
            difference = x - y
        else:
            return math.inf
        squares += difference * difference
        total += x * x if math.isfinite(x) else 0.0
    of_sample = _part(math.sqrt(squares), math.sqrt(total))
    x, y = native["norm"], vgpu["norm"]
    return of_sample if _is_same(x, y) else max(of_sample, _part(abs(x - y), abs(x)))


def _is_same(x, y):
    """Equal, or no number on both sides."""
    return x == y or (x != x and y != y)


def _part(difference, whole):
    if difference == 0.0:
        return 0.0
    return difference / whole if whole else math.inf


def _told(native, vgpu, error, tolerance):
    if native["type"] != vgpu["type"]:
        return f"{native['name']}: {vgpu['type']}, native {native['type']}"
    if native["sample"] is None or vgpu["sample"] is None:
        return f"{native['name']}: other bytes ({native['type']})"
    pairs = zip(native["sample"], vgpu["sample"])
    first = next((pair for pair in pairs if not _is_same(*pair)), None)
    shown = f"{first[1]:.9g}, native {first[0]:.9g}" if first else "outside the sample"
    return f"{native['name']} ({native['type']}): error {error:.2e}, allowed {tolerance:g}; {shown}"
