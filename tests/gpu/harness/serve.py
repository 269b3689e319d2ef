"""One side's process of one file of cases: imports the file, then does what the runner asks, a line of JSON each way.

    serve.py FILE DESCRIPTOR       requests on standard input, answers on DESCRIPTOR

Standard output and error are the file's own and go to a log.
"""

import ctypes
import gc
import importlib.util
import json
import os
import random
import signal
import sys
import time
import traceback

# In the place of this folder, whose names are no modules for others. A spawned child has it already.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if ROOT not in sys.path:
    sys.path[0] = ROOT

from harness import CASES, Figure, Skip, Timed, outputs, vgpu  # noqa: E402

# Neither means that the context is broken: no call was made yet, or this thread has no context.
NOT_INITIALIZED, INVALID_CONTEXT = 3, 201


class Server:
    """The state between two requests: the speed case that is prepared."""

    def __init__(self):
        self.timed = None

    def case(self, request):
        """Gives the case's outputs."""
        self.drop({})
        return {"outputs": outputs.describe(self._call(request["name"]))}

    def figure(self, request):
        """Gives the case's number."""
        value = self._call(request["name"])
        if value is None:
            return {"value": None}
        return {"value": float(value), "detail": value.detail if isinstance(value, Figure) else ""}

    def prepare(self, request):
        """Sets a speed case up and warms it."""
        self.drop({})
        self.timed = self._call(request["name"])
        if not isinstance(self.timed, Timed):
            raise TypeError(f"{request['name']} returned no Timed")
        for _ in range(self.timed.warmups):
            self.timed.run()
        made = self.timed.outputs() if self.timed.outputs else None
        return {"outputs": outputs.describe(made) if self.timed.outputs else []}

    def sample(self, request):
        """Times `count` runs."""
        count, timed = request["count"], self.timed
        workers = vgpu.workers()
        replies, worker, own = vgpu.replies(), vgpu.cpu_seconds(workers), time.process_time()
        collecting = gc.isenabled()
        gc.disable()
        start = time.perf_counter()
        for _ in range(count):
            timed.run()
        seconds = time.perf_counter() - start
        if collecting:
            gc.enable()
        answer = {
            "seconds": seconds,
            "operations": count * timed.operations,
            "own_cpu": time.process_time() - own,
        }
        if workers:
            answer["worker_cpu"] = vgpu.cpu_seconds(workers) - worker
        if replies is not None:
            answer["replies"] = vgpu.replies() - replies
        return answer

    def drop(self, _request):
        """Lets go of the prepared case and its memory."""
        if self.timed is None:
            return {}
        self.timed = None
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return {}

    def _call(self, name):
        _seed()
        return CASES[name]()


def _seed():
    """Both sides draw the same numbers."""
    random.seed(1)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(1)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(1)


def _is_poisoned():
    """Whether a call on the context fails for good: the process must go."""
    try:
        code = ctypes.CDLL("libcuda.so.1").cuCtxSynchronize()
    except (OSError, AttributeError):
        return False
    return code not in (0, NOT_INITIALIZED, INVALID_CONTEXT)


def _answer(server, request):
    try:
        return getattr(server, request["do"])(request)
    except Skip as skip:
        return {"skip": str(skip)}
    except BaseException as error:  # A case may raise anything, SystemExit too.
        traceback.print_exc()
        told = f"{type(error).__name__}: {error}".strip()
        del error
        server.timed = None
        return {"error": told[:2000], "poisoned": _is_poisoned()}


def _end_with_the_runner():
    """A case that hangs may not outlive a runner that was killed: nobody would notice, and it holds the GPU's memory."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _load(path):
    spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)
    module = importlib.util.module_from_spec(spec)
    # Where a spawned child or a pickled function looks for it.
    sys.modules[spec.name] = module
    sys.path.append(os.path.dirname(path))
    spec.loader.exec_module(module)


def main():
    path, descriptor = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    _end_with_the_runner()
    # Not for the children of the cases: the runner waits for this end to be closed.
    os.set_inheritable(descriptor, False)

    def tell(answer):
        line = json.dumps(answer).encode() + b"\n"
        while line:
            line = line[os.write(descriptor, line) :]

    start = time.perf_counter()
    try:
        _load(path)
    except Skip as skip:
        tell({"skip": str(skip)})
        return
    except BaseException as error:
        traceback.print_exc()
        tell({"error": f"{type(error).__name__}: {error}"[:2000]})
        return
    tell({"ready": time.perf_counter() - start})
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "end":
            break
        tell(_answer(server, request))


if __name__ == "__main__":
    main()
