"""Plays cases on both sides and judges them.

Cases of a file share a process a side, one after the other; after a death, a hang or a broken context the next case gets
a fresh one. Cases that want a process of their own come last. What native cannot do either says nothing about vgpu: skipped.
"""

import statistics
import time
import traceback
from dataclasses import asdict, dataclass, field

from . import compare
from .side import START_LIMIT_S, Gone

# One sample of a speed case lasts about so long, on the slower side.
SAMPLE_S = 0.3
SAMPLE_RUNS_MAX = 2000
# So many outputs of a case are recorded.
OUTPUTS_KEPT = 40
# Busier than this is what bounds a case.
BUSY = 0.85


@dataclass
class Result:
    """How one case ended."""

    label: str
    kind: str
    status: str = "passed"
    why: str = ""
    # What is shown: "bitwise", an error, or nothing.
    equal: str = ""
    # Seconds an operation, or a figure.
    native: float | None = None
    vgpu: float | None = None
    unit: str = ""
    # Native time over vgpu's.
    ratio: float | None = None
    # Half of the range of the samples over their median, in percent, of the wider side.
    spread: float | None = None
    target: str = ""
    met: bool | None = None
    # The most that `vgpu` may be to meet it.
    most: float | None = None
    bound: str = ""
    numbers: dict = field(default_factory=dict)

    def as_json(self):
        """For the file of results."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "", {})}


class _End(Exception):
    """The case has ended before its usual end: its status, and why."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status
        self.why = why


class Player:
    """Plays the cases of one file."""

    def __init__(self, native, vgpu, options, report):
        self.sides = (native, vgpu)
        self.options = options
        self.report = report
        self.processes = [None, None]
        # Why the file cannot be played at all.
        self.refusal = None

    def play(self, cases):
        """Plays them and reports each."""
        try:
            for case in sorted(cases, key=lambda case: case.fresh):
                if case.fresh:
                    self._end_processes(case.group)
                self.report(self._play(case))
        finally:
            self._end_processes(cases[0].group)

    def _play(self, case):
        result = Result(case.label, case.kind)
        started = time.monotonic()
        try:
            if self.options.time_is_up():
                raise _End("skipped", "the time limit")
            if self.refusal:
                raise self.refusal
            {"case": self._case, "speed": self._speed, "figure": self._figure}[case.kind](case, result)
        except _End as end:
            result.status, result.why = end.status, end.why
        except Exception as error:  # A mistake here costs one case, not the run.
            traceback.print_exc()
            result.status, result.why = "failed", f"the runner: {type(error).__name__}: {error}"
        result.numbers["took_s"] = round(time.monotonic() - started, 2)
        return result

    # Kinds

    def _case(self, case, result):
        request = {"do": "case", "name": case.name}
        if case.alone:
            answers = self._in_turn(case, request)
        else:
            with self._running(case) as both:
                answers = both.ask(request)
        # Recorded, so that what NVIDIA's driver answers can be looked up later.
        result.numbers["native"] = _values(answers[0]["outputs"])
        result.equal = _compared(answers, case)

    def _speed(self, case, result):
        samples = ([], [])
        result.unit = "s"
        if case.fresh:
            for _ in range(min(3, self.options.repeats)):
                # One after the other: a start is what is timed.
                for side, kept in enumerate(samples):
                    with self._running(case, only=side) as one:
                        one.ask({"do": "prepare", "name": case.name})
                        kept.append(one.ask({"do": "sample", "count": 1})[side])
        else:
            with self._running(case) as both:
                prepared = both.ask({"do": "prepare", "name": case.name})
                if prepared[0]["outputs"]:
                    result.equal = _compared(prepared, case)
                count = self._runs_of_a_sample(both)
                for _ in range(self.options.repeats):
                    for side, kept in enumerate(samples):
                        kept.append(both.ask({"do": "sample", "count": count}, only=side)[side])
                    if self.options.time_is_up():
                        break
                both.ask({"do": "drop"})
        _judge_speed(case, result, *samples)

    def _runs_of_a_sample(self, both):
        # The slower side decides: one that is a hundred times slower is not to take a hundred times as long.
        once = max(both.ask({"do": "sample", "count": 1}, only=side)[side]["seconds"] for side in (0, 1))
        return max(1, min(SAMPLE_RUNS_MAX, round(SAMPLE_S / max(once, 1e-9))))

    def _figure(self, case, result):
        native, vgpu = self._in_turn(case, {"do": "figure", "name": case.name})
        result.native, result.vgpu, result.unit = native["value"], vgpu["value"], case.unit
        if result.vgpu is None:
            raise _End("failed", "no figure")
        result.bound = vgpu["detail"]
        if native.get("detail"):
            result.bound += f" (native: {native['detail']})"
        if case.added is not None and result.native is not None:
            result.most, result.target = result.native + case.added, f"+{case.added:g}"
        elif case.most is not None:
            result.most, result.target = case.most, f"<= {case.most:g}"
        if result.most is not None:
            result.met = result.vgpu <= result.most
            if case.must and not result.met:
                raise _End("failed", f"{result.vgpu:g} {case.unit}, at most {result.most:g}: {vgpu['detail']}")

    def _in_turn(self, case, request):
        """Asks one side and, when its process has ended, the other."""
        answers = []
        for side in (0, 1):
            with self._running(case, only=side) as one:
                answers.append(one.ask(request)[side])
        return answers

    # Processes

    def _running(self, case, only=None):
        return _Both(self, case, only)

    def _end_processes(self, group):
        told = _ended(self.processes)
        if told:
            self.report(Result(f"{group}/(end)", "case", "failed", told))


class _Both:
    """The processes of a case: shared ones of the file, or its own."""

    def __init__(self, player, case, only):
        self.player = player
        self.case = case
        self.which = (0, 1) if only is None else (only,)
        self.own = [None, None]

    def __enter__(self):
        processes = self.own if self.case.fresh else self.player.processes
        self.processes = processes
        missing = [at for at in self.which if processes[at] is None]
        for at in missing:
            processes[at] = self.player.sides[at].start(self.case, self.case.env)
        hellos = {}
        for at in missing:
            try:
                hellos[at] = processes[at].answer(self._limit_s(START_LIMIT_S))
            except Gone as gone:
                hellos[at] = {"error": f"importing: {gone}"}
        self._judge_hellos(hellos)
        return self

    def _judge_hellos(self, hellos):
        for at in sorted(hellos):
            hello = hellos[at]
            if "ready" in hello:
                continue
            self._drop(0)
            self._drop(1)
            if at == 0:
                end = _End("skipped", hello.get("skip") or f"native: {hello['error']}")
            else:
                end = _End("failed", f"the file cannot be imported: {hello.get('skip') or hello['error']}")
            # It will be no other for the other cases, and costs a start each.
            self.player.refusal = end
            raise end

    def __exit__(self, kind, error, trace):
        told = _ended(self.own)
        if told and kind is None:
            raise _End("failed", told)

    def ask(self, request, only=None):
        """Asks both at once, or one; anything but an answer ends the case."""
        which = [at for at in self.which if only is None or at == only]
        answers, gone = [None, None], [None, None]
        for at in which:
            try:
                if self.processes[at] is None:
                    raise Gone("the process has ended")
                self.processes[at].send(request)
            except Gone as error:
                gone[at] = error
        for at in which:
            if gone[at] is None:
                try:
                    answers[at] = self.processes[at].answer(self._limit_s(self.case.limit_s))
                except Gone as error:
                    gone[at] = error
        for at in which:
            if gone[at] is not None:
                answers[at] = {"error": str(gone[at])}
                self.processes[at] = None
            elif answers[at].get("poisoned"):
                self._drop(at)
        self._judge(answers, which)
        return answers

    def _judge(self, answers, which):
        for at in which:
            answer = answers[at]
            if "skip" in answer:
                raise _End("skipped" if at == 0 or 0 not in which else "failed", answer["skip"])
            if "error" in answer:
                told = answer["error"]
                raise _End("skipped", f"native: {told}") if at == 0 else _End("failed", told)

    def _limit_s(self, usual):
        # What has begun may end, but not hold up a run whose time is up.
        return min(usual, max(self.player.options.seconds_left(), 5.0))

    def _drop(self, at):
        process = self.processes[at]
        self.processes[at] = None
        if process:
            process.kill()


def _ended(processes):
    """Ends both. What is wrong with vgpu's end, when native's is well: after a fault a framework may end badly by itself."""
    told = [None, None]
    for at, process in enumerate(processes):
        processes[at] = None
        told[at] = process.end() if process else None
    return f"the process {told[1]}" if told[1] and not told[0] else None


def _compared(answers, case):
    try:
        return compare.same(answers[0]["outputs"], answers[1]["outputs"], case.tolerance)
    except compare.Differs as differs:
        raise _End("failed", str(differs)) from differs


def _values(outputs):
    """The plain values among the outputs; of the rest what they are."""
    return {leaf["name"]: leaf["sample"][0] if len(leaf["sample"] or []) == 1 else leaf["type"] for leaf in outputs[:OUTPUTS_KEPT]}


def _each(samples):
    """Median seconds of an operation, and half of the samples' range over it."""
    values = [sample["seconds"] / sample["operations"] for sample in samples]
    median = statistics.median(values)
    return median, (max(values) - min(values)) / 2 / median if median else 0.0


def _judge_speed(case, result, native, vgpu):
    (result.native, one), (result.vgpu, other) = _each(native), _each(vgpu)
    result.spread = round(100 * max(one, other), 1)
    result.ratio = result.native / result.vgpu if result.vgpu else None
    if case.added_s is not None:
        result.target = f"+{1000 * case.added_s:g} ms"
        result.most = result.native + case.added_s
    else:
        result.target = f">= {100 * case.target:g} %"
        result.most = result.native / case.target
    result.met = result.vgpu <= result.most
    total = {
        key: sum(sample.get(key, 0) for sample in vgpu)
        for key in ("seconds", "operations", "own_cpu", "worker_cpu", "replies")
    }
    seconds, operations = total["seconds"] or 1e-9, total["operations"]
    result.numbers.update(
        native_s=[sample["seconds"] / sample["operations"] for sample in native],
        vgpu_s=[sample["seconds"] / sample["operations"] for sample in vgpu],
        replies=round(total["replies"] / operations, 3),
        own_cpu=round(total["own_cpu"] / seconds, 3),
        worker_cpu=round(total["worker_cpu"] / seconds, 3),
    )
    result.bound = _bound(result.numbers)


def _bound(numbers):
    """What seems to hold a case up. Both ends also spin for a while before they sleep: that counts as work here."""
    own, worker, replies = numbers["own_cpu"], numbers["worker_cpu"], numbers["replies"]
    shown = f"program {100 * own:.0f} %, worker {100 * worker:.0f} % busy, {replies:g} replies an operation"
    if worker >= BUSY > own:
        return f"the worker's driver calls: {shown}"
    if own >= BUSY > worker:
        return f"the program's thread: {shown}"
    if replies >= 0.5:
        return f"wake-ups and copies: {shown}"
    return f"the GPU, or both ends: {shown}"
