#!/usr/bin/env python3
"""Runs programs native and through vgpu on this machine, compares what they give, and prints ratios.

`cargo xtask gpu-suite` starts it with a gpu-proxy; README.md says what it plays.
"""

import argparse
import concurrent.futures
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from runner import catalogue, programs
from runner.play import Player
from runner.report import Report
from runner.side import Side

HERE = Path(__file__).resolve().parent
KINDS = ("case", "speed", "figure", "program")
# What a run plays that names nothing: all files here. The others are named by --cases.
CASES = HERE / "cases"


def whole(path):
    """A path that holds in every working directory."""
    return Path(path).absolute()


class Options:
    """What the command line says, and how much time is left."""

    def __init__(self, words):
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--vgpu", metavar="SOCKET,LIBRARIES,PID", help="the gpu-proxy, and where its libcuda is")
        parser.add_argument("--native", metavar="SOCKET,LIBRARIES,PID", help="another one in the place of the driver")
        parser.add_argument("--cases", type=whole, default=CASES, help="the folder of the files of cases")
        parser.add_argument("--only", default="", help="parts of names, with commas: FILE/CASE contains one")
        parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
        parser.add_argument("--programs", type=whole, help="compiled programs; else nvcc here compiles them")
        parser.add_argument("--repeats", type=int, default=5, help="samples of a speed case on each side")
        parser.add_argument("--jobs", type=int, default=3, help="files beside each other, where nothing is timed")
        parser.add_argument("--time-limit", type=float, default=86400, metavar="S", help="what is left then is skipped")
        parser.add_argument("--json", type=whole, help="a file for the results")
        parser.add_argument("--logs", type=whole, help="a folder for the logs of both sides; else they go")
        parser.add_argument("--bench-lines", action="store_true", help="print the measured as lines for xtask bench")
        parser.add_argument("--brief", action="store_true", help="no table of all cases")
        parser.add_argument("--list", action="store_true", help="print the names of the cases")
        self.__dict__.update(vars(parser.parse_args(words)))
        self.only = [word for word in self.only.split(",") if word]
        self.kinds = [word for word in self.kinds.split(",") if word]
        unknown = set(self.kinds) - set(KINDS)
        if unknown:
            parser.error(f"--kinds knows no {', '.join(sorted(unknown))}")
        if not self.list and not self.vgpu:
            parser.error("--vgpu is missing: cargo xtask gpu-suite gives it")
        self.ends = time.monotonic() + self.time_limit

    def seconds_left(self):
        """Until the time limit."""
        return self.ends - time.monotonic()

    def time_is_up(self):
        """Whether nothing more may begin."""
        return self.seconds_left() <= 0


def served(words):
    """SOCKET,LIBRARIES,PID."""
    return tuple(words.split(",")) if words else None


def chosen(options):
    """The files with cases to play."""
    files = []
    for file in sorted(options.cases.glob("*.py")):
        cases = catalogue.choose(catalogue.read(file), options.only, options.kinds)
        if cases:
            files.append(cases)
    return files


def play(files, sides, options, report):
    """What may run beside other things first, some files at once; then what is timed or measured."""
    checks = [[case for case in cases if not case.alone] for cases in files]
    alone = [[case for case in cases if case.alone] for cases in files]

    def play_one(cases):
        Player(*sides, options, report.add).play(cases)

    with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for done in [pool.submit(play_one, cases) for cases in checks if cases]:
            done.result()
    if "program" in options.kinds:
        programs.play(sides, options, report.add)
    for cases in alone:
        if cases:
            play_one(cases)


def main(words):
    """Plays what the words choose. The exit code is 0 when nothing failed and something was played."""
    options = Options(words)
    files = chosen(options)
    if options.list:
        for case in [case for cases in files for case in cases]:
            print(case.label, case.kind)
        for name in programs.names(options):
            print(name, "program")
        return 0
    say = sys.stderr if options.bench_lines else sys.stdout

    def show(text):
        print(text, file=say, flush=True)

    work = Path(tempfile.mkdtemp(prefix="vgpu-suite-"))
    report = Report(show, verbose=not options.brief)
    started = time.monotonic()
    try:
        sides = (Side("native", work, served(options.native)), Side("vgpu", work, served(options.vgpu)))
        play(files, sides, options, report)
    finally:
        if options.logs:
            keep_logs(work, options.logs)
        shutil.rmtree(work, ignore_errors=True)
    about = {"machine": platform.node(), "python": platform.python_version(), "took_s": round(time.monotonic() - started)}
    if options.json:
        report.write_json(options.json, about)
    if options.bench_lines:
        for line in report.bench_lines():
            print(line)
    elif not options.brief:
        show("\n" + report.table())
    show("\n" + report.summary())
    show("\n" + report.last_lines())
    passed, failed, _ = report.counts()
    return 0 if passed and not failed else 1


def keep_logs(work, folder):
    """Copies the logs, named by side and file."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in work.glob("*/*.log"):
        shutil.copy(log, folder / f"{log.parent.name}-{log.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
