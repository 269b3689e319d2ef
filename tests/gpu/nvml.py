#!/usr/bin/env python3
"""NVML as a Python program sees it, by ctypes alone; beside NVIDIA's own library where there is one.

    cargo xtask gpu --device cuda -- python3 tests/gpu/nvml.py [--real /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1]
    cargo xtask gpu --device soft -- python3 tests/gpu/nvml.py

Prints one line a field: what vgpu's libnvidia-ml.so.1 says, what NVIDIA's says, and whether they have to be the same. What cannot be
compared here is said: NOT TRIED. Ends with 1 if a field is wrong.
"""

import ctypes
import json
import os
import subprocess
import sys
from ctypes import byref, c_char_p, c_int, c_longlong, c_uint, c_ulonglong, c_void_p

SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE = 0, 1, 2, 3, 7
REAL = ["/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "/usr/lib64/libnvidia-ml.so.1", "/usr/local/nvidia/lib64/libnvidia-ml.so.1"]
# Facts of the hardware: of one card both libraries say the same.
SAME = ["name", "brand", "architecture", "capability", "cores", "bus_width", "ecc", "max_clock_1", "max_clock_2", "driver", "compute_mode"]


class Memory(ctypes.Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


class Process(ctypes.Structure):
    _fields_ = [("pid", c_uint), ("used", c_ulonglong), ("gpu_instance", c_uint), ("compute_instance", c_uint)]


class Pci(ctypes.Structure):
    _fields_ = [("legacy", ctypes.c_char * 16), ("domain", c_uint), ("bus", c_uint), ("device", c_uint),
                ("device_id", c_uint), ("subsystem", c_uint), ("bus_id", ctypes.c_char * 32)]


class Value(ctypes.Structure):
    _fields_ = [("field", c_uint), ("scope", c_uint), ("timestamp", c_longlong), ("latency", c_longlong),
                ("kind", c_uint), ("result", c_uint), ("value", c_ulonglong)]


def dump(path):
    """All that one library says, as a dictionary: a value, or "error N"."""
    library = ctypes.CDLL(path)
    said = {"before init": library.nvmlDeviceGetCount_v2(byref(c_uint()))}
    code = library.nvmlInit_v2()
    if code != SUCCESS:
        library.nvmlErrorString.restype = c_char_p
        return {"init": f"error {code}: {library.nvmlErrorString(code).decode()}"}

    def answer(code, value):
        return value() if code == SUCCESS else f"error {code}"

    def text(name, *arguments, size=96):
        buffer = ctypes.create_string_buffer(size)
        return answer(getattr(library, name)(*arguments, buffer, c_uint(size)), buffer.value.decode)

    def number(name, *arguments):
        value = c_uint()
        return answer(getattr(library, name)(*arguments, byref(value)), lambda: value.value)

    said["driver"] = text("nvmlSystemGetDriverVersion")
    said["nvml"] = text("nvmlSystemGetNVMLVersion")
    said["cuda"] = number("nvmlSystemGetCudaDriverVersion_v2")
    said["count"] = number("nvmlDeviceGetCount_v2")
    device = c_void_p()
    said["handle"] = library.nvmlDeviceGetHandleByIndex_v2(c_uint(0), byref(device))
    said["handle past the end"] = library.nvmlDeviceGetHandleByIndex_v2(c_uint(said["count"]), byref(c_void_p()))
    said["name"] = text("nvmlDeviceGetName", device)
    said["name without room"] = text("nvmlDeviceGetName", device, size=2)
    said["uuid"] = text("nvmlDeviceGetUUID", device)
    said["serial"] = text("nvmlDeviceGetSerial", device)
    for field, name in [("brand", "Brand"), ("architecture", "Architecture"), ("cores", "NumGpuCores"), ("bus_width", "MemoryBusWidth"),
                        ("compute_mode", "ComputeMode"), ("minor", "MinorNumber"), ("power", "PowerUsage"), ("fans", "NumFans"),
                        ("persistence", "PersistenceMode"), ("pstate", "PerformanceState")]:
        said[field] = number("nvmlDeviceGet" + name, device)
    for clock in range(4):
        said[f"max_clock_{clock}"] = number("nvmlDeviceGetMaxClockInfo", device, c_uint(clock))
    said["temperature"] = number("nvmlDeviceGetTemperature", device, c_uint(0))
    one, two = c_int(), c_int()
    said["capability"] = answer(library.nvmlDeviceGetCudaComputeCapability(device, byref(one), byref(two)), lambda: [one.value, two.value])
    said["ecc"] = answer(library.nvmlDeviceGetEccMode(device, byref(one), byref(two)), lambda: [one.value, two.value])
    said["mig"] = answer(library.nvmlDeviceGetMigMode(device, byref(one), byref(two)), lambda: [one.value, two.value])
    pci = Pci()
    said["pci"] = answer(library.nvmlDeviceGetPciInfo_v3(device, byref(pci)), lambda: [pci.bus_id.decode(), pci.legacy.decode()])
    memory = Memory()
    said["memory"] = answer(library.nvmlDeviceGetMemoryInfo(device, byref(memory)), lambda: [memory.total, memory.free, memory.used])
    count, room = c_uint(0), (Process * 64)()
    said["processes, no room"] = library.nvmlDeviceGetComputeRunningProcesses_v3(device, byref(count), None)
    count = c_uint(64)
    said["processes"] = answer(library.nvmlDeviceGetComputeRunningProcesses_v3(device, byref(count), room),
                               lambda: [[room[i].pid, room[i].used] for i in range(count.value)])
    value = Value(field=81)
    said["field values"] = [library.nvmlDeviceGetFieldValues(device, c_int(1), byref(value)), value.result]
    said["link"] = library.nvmlDeviceGetNvLinkRemoteDeviceType(device, c_uint(0), byref(c_uint()))
    said["no device"] = library.nvmlDeviceGetName(c_void_p(), ctypes.create_string_buffer(96), c_uint(96))
    said["shutdown"] = [library.nvmlShutdown(), library.nvmlShutdown()]
    return said


def dumped(path):
    ended = subprocess.run([sys.executable, __file__, "--dump", path], capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"nvml.py: {path}: {ended.stderr}")
    return json.loads(ended.stdout)


def check(ours, real):
    """Fields that are wrong. What must hold with no other library beside comes first."""
    total, free, used = ours["memory"]
    wrong = [field for field, right in {
        "before init": ours["before init"] == UNINITIALIZED,
        "count": ours["count"] >= 1,
        "handle": ours["handle"] == SUCCESS,
        "handle past the end": ours["handle past the end"] == INVALID_ARGUMENT,
        "name without room": ours["name without room"] == f"error {INSUFFICIENT_SIZE}",
        "uuid": ours["uuid"].startswith("GPU-") and len(ours["uuid"]) == 40,
        "serial": ours["serial"] == f"error {NOT_SUPPORTED}",
        "memory": total == free + used,
        "no device": ours["no device"] == INVALID_ARGUMENT,
        "shutdown": ours["shutdown"] == [SUCCESS, UNINITIALIZED],
    }.items() if not right]
    if real:
        wrong += [field for field in SAME if ours[field] != real[field] and ours[field] != f"error {NOT_SUPPORTED}"]
        wrong += ["memory above the card's"] * (total > real["memory"][0])
        wrong += ["the hardware's UUID is shown"] * (ours["uuid"] == real["uuid"])
    return wrong


def main():
    if sys.argv[1:2] == ["--dump"]:
        return print(json.dumps(dump(sys.argv[2])))
    ours = dumped("libnvidia-ml.so.1")
    if "init" in ours:
        sys.exit(f"nvml.py: libnvidia-ml.so.1: {ours['init']}")
    places = sys.argv[2:3] if sys.argv[1:2] == ["--real"] else REAL
    path = next((path for path in places if os.path.exists(path)), None)
    real = dumped(path) if path else {}
    if not path or "init" in real:
        print(f"NOT TRIED: beside NVIDIA's library: {real.get('init', 'none in ' + ', '.join(places))}")
        real = {}
    for field, value in ours.items():
        must = "same" if field in SAME else ""
        print(f"{field:22} {str(value):44} {str(real.get(field, '')):44} {must}")
    try:
        import pynvml
        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        print("pynvml:", pynvml.nvmlDeviceGetName(device), pynvml.nvmlDeviceGetMemoryInfo(device),
              pynvml.nvmlDeviceGetComputeRunningProcesses(device))
        pynvml.nvmlShutdown()
    except ImportError:
        print("NOT TRIED: pynvml is not installed")
    wrong = check(ours, real)
    print("nvml.py: ok" if not wrong else f"nvml.py: wrong: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
