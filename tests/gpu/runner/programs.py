"""Compiled programs: those of tests/cuda and of tests/gpu/programs, each run on both sides.

They compare with the CPU by themselves; here exit code, standard output and standard error must be the same. A program that
measures prints a line of JSON a figure: {"name", "value", "unit"}, or {"name", "error"}.
"""

import concurrent.futures
import json
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .play import Result

HERE = Path(__file__).resolve().parent.parent
FOLDERS = (HERE.parent / "cuda", HERE / "programs")
LIMIT_S = 90
# A hundred processes, each with a context of its own; where the driver crashes one more.
LIMITS_S = {"faults": 400}
# As in tests/xtask/src/cuda_programs.rs: PTX for the oldest architecture, so that a driver compiles it.
PTX_ONLY = ["-gencode", "arch=compute_75,code=compute_75"]
NVCC_FLAGS = ["-O2", "-std=c++17", "-cudart", "static"]
# Where the shared cudarts of compiled programs lie (tests/xtask/src/cuda_programs.rs).
LIBRARIES = "usr/lib/x86_64-linux-gnu"

# Started by others, or made for something else.
NOT_PLAYED = {
    "pattern_plant": "runs until it is killed; cargo xtask test plays it on soft",
    "pattern_probe": "wants addresses of pattern_plant",
    "peers": "wants two devices on both sides; cargo xtask test plays it on two of soft",
    "nvml_query": "compares what its container uses, with nobody beside it; cargo xtask test plays it on soft",
}
ARGUMENTS = {"spin": ["1"]}
# What these print differs by design, so that only "right by itself" and the exit code are compared.
SAYS_OTHERWISE = {
    "device_query": "attributes that vgpu does not offer",
    "memory_info": "how much is free",
    "driver_more": "how long it took",
    "driver_rest": "how many lines the driver writes of a failed call",
    "jit_twice": "how long it took",
    "driver_wide": "made for vgpu alone",
    "spin": "how often it came round",
}
# What these say line by line: as native, but for what a table has. How it is read: tests/xtask/src/faults.rs.
TABLES = {"faults": HERE / "faults.table"}
# Right through vgpu is enough: NVIDIA's driver is known to answer otherwise.
VGPU_ALONE = {"driver_wide"}

# Figures of the programs that measure, in seconds: at most (`most`), or of the native time (`target`), or so much more (`added`); and
# what bounds each of them.
HERE_ALONE, RING, WAKE_UP, DRIVER, COPY = (
    "what the library does in the program",
    "the ring",
    "a wake-up, or the wait for a reply",
    "the worker's driver calls",
    "a copy",
)
MEASURES = {
    "driver_speed": {
        "call answered in the guest": {"most": 20e-9, "bound": HERE_ALONE},
        "queued launch, 100 B, p50": {"most": 150e-9, "bound": RING},
        "queued launch, 100 B, p99": {"most": 400e-9, "bound": RING},
        "sync call, polling": {"most": 2e-6, "bound": WAKE_UP},
        "sync call, parked": {"most": 20e-6, "bound": WAKE_UP},
        "launches, drained": {"target": 1.30, "bound": DRIVER},
        "launch and sync": {},
        "launch, its count seen": {},
        "copy of 4 B to pinned, sync": {},
        "copy of 4 B to pageable, sync": {},
        "launch, copy of 4 B to pinned, sync": {},
        "launch, copy of 4 B to pageable, sync": {},
        "launch, parked": {},
        "launch, parked, its count seen": {},
        "copies of 4 KB from pinned, drained": {},
        "copies of 4 KB from pageable, drained": {},
        "copies of 4 KB from pageable, each with a sync": {},
        "words written, drained": {},
        "event record": {},
        "graph of 100 kernels": {"target": 0.99, "bound": DRIVER},
        "pinned H2D 64 MB": {"target": 0.97, "bound": COPY},
        "pinned D2H 64 MB": {"target": 0.97, "bound": COPY},
        "pageable H2D 64 MB": {"target": 1.30, "bound": COPY},
        "pageable D2H 64 MB": {"target": 1.30, "bound": COPY},
        "pinned H2D 4 KB": {"target": 0.90, "bound": WAKE_UP},
        "pinned D2H 4 KB": {"target": 0.90, "bound": WAKE_UP},
        "pageable H2D 4 KB": {"target": 0.90, "bound": WAKE_UP},
        "pageable D2H 4 KB": {"target": 0.90, "bound": WAKE_UP},
        "main to first kernel": {"added": 0.1, "bound": DRIVER},
    },
}


@dataclass
class Program:
    """A program, compiled or to be compiled."""

    name: str
    source: Path | None
    path: Path | None = None

    @property
    def label(self):
        """How it is chosen and shown."""
        return f"programs/{self.name}"

    @property
    def measures(self):
        """What it measures, if that is what it is for."""
        return MEASURES.get(self.name)


def known(options):
    """The programs that are chosen."""
    found = {}
    for folder in FOLDERS:
        for source in sorted([*folder.glob("*.cu"), *folder.glob("*.cpp")]):
            found[source.stem] = Program(source.stem, source)
    if options.programs:
        # There it is compiled for each version, under names of their own.
        found.pop("cudart_init", None)
        for path in sorted(options.programs.iterdir()):
            if path.is_file():
                found.setdefault(path.name, Program(path.name, None)).path = path
    wanted = [program for program in found.values() if program.name not in NOT_PLAYED]
    if options.bench_lines:
        wanted = [program for program in wanted if program.measures]
    return [one for one in wanted if not options.only or any(word in one.label for word in options.only)]


def names(options):
    """Their labels."""
    return [program.label for program in known(options)] if "program" in options.kinds else []


def play(sides, options, report):
    """Compiles what is not compiled, runs each on both sides, reports; what measures comes last, alone."""
    work = sides[0].work.parent / "programs"
    work.mkdir(exist_ok=True)
    chosen = known(options)

    def make_and_play(program):
        for result in _play(program, sides, options, work):
            report(result)

    with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for done in [pool.submit(make_and_play, one) for one in chosen if not one.measures]:
            done.result()
    for program in chosen:
        if program.measures:
            make_and_play(program)


def _play(program, sides, options, work):
    """The results of one program: one, or one a figure."""
    result = Result(program.label, "program")
    if options.time_is_up():
        result.status, result.why = "skipped", "the time limit"
        return [result]
    why = _compile(program, work)
    if why:
        result.status, result.why = "skipped", why
        return [result]
    if program.measures:
        return _measure(program, sides, options)
    _judge(program, result, *(_run(program, side) for side in sides))
    return [result]


def _compile(program, work):
    """Compiles it with what is here; says why it cannot."""
    if program.path:
        return None
    if program.name == "cudart_init":
        return "it wants CUDA's shared runtimes of two versions: give --programs"
    path = work / program.name
    if program.source.suffix == ".cpp":
        compiler = shutil.which("g++") or shutil.which("c++")
        if not compiler:
            return "no C++ compiler here"
        line = [compiler, "-O2", "-std=c++17", "-pthread", "-o", path, program.source, "-ldl"]
    else:
        nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
        if not nvcc:
            return "no nvcc here"
        own = ["-arch=native"] if program.source.parent == FOLDERS[1] else PTX_ONLY
        line = [nvcc, *NVCC_FLAGS, *own, "-o", path, program.source]
    try:
        made = subprocess.run(line, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "the compiler takes longer than 300 s"
    if made.returncode:
        said = [text for text in (made.stderr + made.stdout).splitlines() if "error" in text or "fatal" in text]
        return f"it does not compile: {(said or ['?'])[0]}"
    program.path = path
    return None


def _run(program, side, *words):
    """Exit code, standard output, standard error; a code of None when it did not end."""
    env = dict(side.env)
    beside = program.path.parent / LIBRARIES
    if beside.is_dir():
        env["LD_LIBRARY_PATH"] = f"{env.get('LD_LIBRARY_PATH', '')}:{beside}".lstrip(":")
    line = [program.path, *ARGUMENTS.get(program.name, []), *words]
    try:
        limit = LIMITS_S.get(program.name, LIMIT_S)
        ended = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, env=env, cwd=side.work, timeout=limit
        )
    except subprocess.TimeoutExpired as late:
        return None, _text(late.stdout), _text(late.stderr)
    with open(side.work / "programs.log", "ab") as log:
        log.write(f"--- {program.name}: {ended.returncode}\n".encode() + ended.stdout + ended.stderr)
    return ended.returncode, _text(ended.stdout), _text(ended.stderr)


def _text(said):
    return (said or b"").decode(errors="replace")


def _judge(program, result, native, vgpu):
    if program.name in VGPU_ALONE:
        wanted = 0
    elif native[0] is None:
        result.status, result.why = "skipped", f"native: not over after {LIMIT_S} s"
        return
    else:
        wanted = native[0]
    if vgpu[0] is None:
        result.status, result.why = "failed", f"not over after {LIMIT_S} s; it said: {_last(vgpu)}"
    elif vgpu[0] != wanted:
        result.status, result.why = "failed", f"exit code {vgpu[0]}, native {wanted}; it said: {_last(vgpu)}"
    elif program.name in SAYS_OTHERWISE:
        result.equal = "exit code"
    elif program.name in TABLES:
        result.equal = "by its table"
        other = _beside_table(TABLES[program.name].read_text(), native[1], vgpu[1])
        if other:
            result.equal, result.status, result.why = "", "failed", other
    else:
        other = _other_line(native, vgpu)
        result.equal = "" if other else "bitwise"
        if other:
            result.status, result.why = "failed", other


def _last(ended):
    lines = (ended[1] + ended[2]).strip().splitlines()
    return lines[-1] if lines else "nothing"


def _other_line(native, vgpu):
    for name, theirs, ours in (("output", native[1], vgpu[1]), ("errors", native[2], vgpu[2])):
        if theirs != ours:
            theirs, ours = theirs.splitlines(), ours.splitlines()
            at = next((i for i, pair in enumerate(zip(theirs, ours)) if pair[0] != pair[1]), min(len(theirs), len(ours)))
            shown = [lines[at] if at < len(lines) else "nothing" for lines in (ours, theirs)]
            return f"line {at + 1} of its {name}: {shown[0]!r}, native {shown[1]!r}"
    return None


def _answers(said):
    """The last word of each line by the rest of it."""
    return {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in said.splitlines()}


def _beside_table(table, native, vgpu):
    """The lines that are neither as native nor as the table has them on purpose: how many, and the first."""
    meant = {}
    for line in table.splitlines():
        told, _, other = line.partition(" | ")
        about, _, recorded = told.rpartition(" ")
        if other.startswith(("vgpu ", "cuda ")) and recorded != "?":
            meant[about] = other.split()[1]
    ours, theirs = _answers(vgpu), _answers(native)
    differ = []
    for about, answer in theirs.items():
        wanted = meant.get(about, answer)
        got = ours.get(about, "nothing")
        # What the driver does not survive has to be an error.
        right = got.isdigit() and int(got) > 0 if wanted in ("crashes", "hangs") else got == wanted
        if not right:
            differ.append(f"'{about}': {got}, native {answer}")
    differ += [f"'{about}': native nothing" for about in ours if about not in theirs]
    return f"{len(differ)} lines; {'; '.join(differ[:40])}" if differ else None


def _measure(program, sides, options):
    """Runs it on both sides in turn and gives a result a figure."""
    seen = ({}, {})
    words = ["quick"] if options.repeats <= 1 else []
    failure = None
    for _ in range(max(1, min(3, options.repeats))):
        for side, kept in zip(sides, seen):
            code, output, _ = ended = _run(program, side, *words)
            if code != 0:
                told = "is not over" if code is None else f"ends with {code}"
                failure = (side.name, f"{told}; it said: {_last(ended)}")
            for line in output.splitlines():
                if line.startswith("{"):
                    figure = json.loads(line)
                    kept.setdefault(figure["name"], []).append(figure)
        if options.time_is_up():
            break
    results = [_figure(program, name, rule, seen) for name, rule in program.measures.items()]
    if failure:
        side, why = failure
        status = "skipped" if side == "native" else "failed"
        results.append(Result(f"{program.label} on {side}", "program", status, why))
    return results


def _figure(program, name, rule, seen):
    result = Result(f"{program.label}: {name}", "speed", unit="s")
    for side, kept in (("native", seen[0].get(name, [])), ("vgpu", seen[1].get(name, []))):
        values = [figure["value"] for figure in kept if "value" in figure]
        if not values:
            told = next((figure["error"] for figure in kept if "error" in figure), "no such line")
            result.status = "skipped" if side == "native" else "failed"
            result.why = f"{side}: {told}"
            return result
        middle = statistics.median(values)
        setattr(result, side, middle)
        spread = round(50 * (max(values) - min(values)) / middle, 1) if middle else 0.0
        result.spread = max(result.spread or 0.0, spread)
    result.ratio = result.native / result.vgpu if result.vgpu else None
    if "most" in rule:
        result.most = rule["most"]
        result.target = f"<= {rule['most'] * 1e9:g} ns"
    elif "target" in rule:
        result.most = result.native / rule["target"]
        result.target = f">= {100 * rule['target']:g} %"
    elif "added" in rule:
        result.most = result.native + rule["added"]
        result.target = f"+{1000 * rule['added']:g} ms"
    if result.most is not None:
        result.met = result.vgpu <= result.most
    result.bound = rule.get("bound", "")
    return result
