"""One side: how its processes are started, asked, and ended.

`native` is this machine's driver (or, where the runner itself is tried, another gpu-proxy); `vgpu` is libvgpu and a gpu-proxy.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

SERVE = Path(__file__).resolve().parent.parent / "harness" / "serve.py"
# Importing a framework from a cold disk takes long.
START_LIMIT_S = 180
END_LIMIT_S = 20

# Both sides: the same numbers from the same libraries, nothing from the network, no memory taken in advance.
COMMON = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
# What a side compiles may not help the other one.
CACHES = {
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "CUPY_CACHE_DIR": "cupy",
    "NUMBA_CACHE_DIR": "numba",
    "CUDA_CACHE_PATH": "cuda",
}


class Gone(Exception):
    """The process ended, or was ended because it did not answer; the text says which."""


class Side:
    """A name, the environment of its processes, and where their logs go."""

    def __init__(self, name, work, served=None):
        self.name = name
        self.work = work / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.env = dict(os.environ, **COMMON, VGPU_SUITE_SIDE=name)
        for variable, folder in CACHES.items():
            self.env[variable] = str(self.work / "cache" / folder)
        for variable in ("VGPU_SOCKET", "VGPU_LOG", "VGPU_SUITE_PROXY"):
            self.env.pop(variable, None)
        if served:
            socket, libraries, proxy = served
            before = self.env.get("LD_LIBRARY_PATH")
            self.env["LD_LIBRARY_PATH"] = f"{libraries}:{before}" if before else libraries
            self.env["VGPU_SOCKET"] = socket
            self.env["VGPU_SUITE_PROXY"] = proxy

    def start(self, case, env=None):
        """A process of the case's file. Its first answer comes unasked: {"ready": …}, {"skip": why} or {"error": why}."""
        return Process(self, case.file, dict(self.env, **(env or {})))


class Process:
    """A process that serves one file of cases."""

    def __init__(self, side, file, env):
        self.side = side
        self.log = side.work / f"{file.stem}.log"
        reader, writer = os.pipe()
        with open(self.log, "ab") as log:
            self.log_start = log.tell()
            self.child = subprocess.Popen(
                [sys.executable, str(SERVE), str(file), str(writer)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=env,
                cwd=str(side.work),
                pass_fds=[writer],
                # Its children go with it.
                start_new_session=True,
            )
        os.close(writer)
        self.reader = reader
        self.pending = b""

    def send(self, request):
        """Asks; `answer` follows."""
        try:
            self.child.stdin.write(json.dumps(request).encode() + b"\n")
            self.child.stdin.flush()
        except OSError as error:
            raise self._gone() from error

    def answer(self, limit_s):
        """Waits for the answer to what was sent."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
                raise Gone(f"no answer within {limit_s:.0f} s{self.tail()}")
            # A child of the process may keep the pipe open after its death.
            ready, _, _ = select.select([self.reader], [], [], min(left, 0.5))
            data = os.read(self.reader, 1 << 20) if ready else b""
            if not data and (ready or self.child.poll() is not None):
                # What it wrote last counts.
                more = select.select([self.reader], [], [], 0)[0]
                data = os.read(self.reader, 1 << 20) if more else b""
                if not data:
                    raise self._gone()
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        return json.loads(line)

    def ask(self, request, limit_s):
        """Both."""
        self.send(request)
        return self.answer(limit_s)

    def end(self):
        """Lets it end by itself. Says how it ended where that is not well."""
        try:
            self.child.stdin.write(b'{"do": "end"}\n')
            self.child.stdin.close()
        except OSError:
            pass
        try:
            code = self.child.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return f"does not end within {END_LIMIT_S} s"
        finally:
            self.kill()
        return None if code == 0 else f"ends with {_name_of(code)}{self.tail()}"

    def kill(self):
        """Ends it, and what it started."""
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()
        self._close()

    def tail(self):
        """The last line of its log that says something, for a message."""
        try:
            with open(self.log, "rb") as log:
                log.seek(max(self.log_start, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        return f"; it said: {said[-1][:300]}" if said else ""

    def _gone(self):
        try:
            code = self.child.wait(5)
        except subprocess.TimeoutExpired:
            code = None
        told = "does not read" if code is None else f"ended with {_name_of(code)}"
        told += self.tail()
        self.kill()
        return Gone(told)

    def _close(self):
        if self.reader is not None:
            os.close(self.reader)
            self.reader = None
        try:
            self.child.stdin.close()
        except OSError:
            pass


def _name_of(code):
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
