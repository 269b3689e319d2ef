"""A case's outputs as text that the other side's can be compared with: a digest of all bytes, and a sample of the values.

A leaf is a tensor or array of any framework here, bytes, or a plain value. Lists, tuples and dictionaries hold leaves.
"""

import hashlib
import sys

SAMPLE_MAX = 4096


def describe(value):
    """The leaves in order, each {"name", "type", "digest", "sample", "norm"}; the last two are None for what has no numbers.

    The sample is spread evenly over the values, the norm is that of all of them.
    """
    return [_leaf(name, leaf) for name, leaf in _leaves(value, "")]


def _leaves(value, name):
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for at, item in enumerate(value):
            yield from _leaves(item, f"{name}[{at}]")
    else:
        yield name or "result", value


def _leaf(name, value):
    kind, data, sample, norm = _bytes_of(value)
    digest = hashlib.sha256(data).hexdigest()
    return {"name": name, "type": kind, "digest": digest, "sample": sample, "norm": norm}


def _bytes_of(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        return f"bytes {len(data)}", data, None, None
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return f"value {str(value)[:160]!r}", repr(value).encode(), None, None
    if isinstance(value, (int, float)):
        return type(value).__name__, repr(value).encode(), [float(value)], abs(float(value))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch(torch, value)
    if hasattr(value, "get") and type(value).__module__.split(".")[0] == "cupy":
        value = value.get()
    if hasattr(value, "copy_to_host"):
        value = value.copy_to_host()
    return _numpy(value)


def _step(count):
    return max(1, -(-count // SAMPLE_MAX))


def _torch(torch, tensor):
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg()
    kind = f"{tensor.dtype} {list(tensor.shape)}"
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    flat = tensor.contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    wide = flat.to(torch.float64)
    norm = float(torch.linalg.vector_norm(wide)) if flat.numel() else 0.0
    return kind, data, wide[:: _step(flat.numel())].tolist(), norm


def _numpy(value):
    import numpy

    array = numpy.ascontiguousarray(value)
    kind = f"{array.dtype} {list(numpy.shape(value))}"
    flat = array.reshape(-1)
    data = flat.tobytes()
    if flat.dtype.kind == "c":
        flat = numpy.stack([flat.real, flat.imag], axis=-1).reshape(-1)
    wide = flat.astype(numpy.float64)
    norm = float(numpy.sqrt(numpy.dot(wide, wide)))
    return kind, data, wide[:: _step(wide.size)].tolist(), norm
