"""What vgpu costs this process: replies waited for, and what its worker uses. On the native side there is nothing to count."""

import ctypes
import os
import re
import tempfile
from contextlib import contextmanager

_MIB = 1 << 20


def replies():
    """How many replies of the worker this process has waited for; None where libcuda is NVIDIA's.

    libvgpu counts them in the second word of its marker (libvgpu/src/lib.rs).
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
        return (ctypes.c_uint64 * 2).in_dll(library, "vgpu_is_shim")[1]
    except (OSError, ValueError):
        return None


class Waits:
    """Filled in when a counted block ends: how many replies, and of which calls (with VGPU_LOG=2)."""

    count = None
    calls = ""


@contextmanager
def counted():
    """Counts the replies waited for in a block. With VGPU_LOG=2 libvgpu names each on standard error: it is caught here."""
    waits = Waits()
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        before = replies()
        try:
            yield waits
        finally:
            after = replies()
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            text = said.read().decode(errors="replace")
            os.write(2, text.encode())
        if after is not None:
            # Before the library is connected there is nothing to read: a block may begin before its first call.
            waits.count = after - (before or 0)
        names = re.findall(r"vgpu: waits for (\w+)", text)
        each = sorted(((names.count(name), name) for name in set(names)), reverse=True)
        waits.calls = ", ".join(f"{count} {name}" for count, name in each)


def workers():
    """The process ids of gpu-proxy's workers."""
    proxy = os.environ.get("VGPU_SUITE_PROXY")
    if not proxy:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rsplit(") ", 1)[1].split()
            except (OSError, IndexError):
                continue  # It has ended.
            if fields[1] == proxy:
                found.append(int(entry))
    return found


def cpu_seconds_by_thread(pids):
    """The processor time of the threads of these processes, by their names: spinning counts."""
    seconds = {}
    for pid in pids:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    used = int(file.read().split()[0]) / 1e9
                with open(f"/proc/{pid}/task/{thread}/comm") as file:
                    name = file.read().strip()
                seconds[name] = seconds.get(name, 0) + used
        except (OSError, ValueError, IndexError):
            continue
    return seconds


def cpu_seconds(pids):
    """The processor time of all threads of these processes."""
    return sum(cpu_seconds_by_thread(pids).values())


def memory_mib(pid):
    """What a process holds in memory, in MiB: its private pages, and its share of what it shares without a file."""
    words = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if rest.strip().endswith("kB"):
                words[name] = int(rest.split()[0]) * 1024
    private = words.get("Private_Clean", 0) + words.get("Private_Dirty", 0)
    return private / _MIB, words.get("Pss_Shmem", 0) / _MIB


def largest_mib(pid, count=6):
    """Where most of a process's private pages lie, file by file, in words."""
    found, name = {}, ""
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            fields = line.split()
            if not fields[0].endswith(":"):
                name = os.path.basename(fields[5]) if len(fields) > 5 else "no file"
            elif fields[0] in ("Private_Clean:", "Private_Dirty:"):
                found[name] = found.get(name, 0) + int(fields[1]) / 1024
    largest = sorted(found.items(), key=lambda each: -each[1])[:count]
    return ", ".join(f"{name} {size:.1f}" for name, size in largest)
