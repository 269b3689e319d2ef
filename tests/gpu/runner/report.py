"""What a run has seen: rows as they come, the table, the file of results, and the last line with counts."""

import json
import threading

LONGEST_REASON = 240
# So many cases of one reason are named.
LABELS_SHOWN = 5


class Report:
    """Collects results from several threads."""

    def __init__(self, say, verbose):
        self.say = say
        self.verbose = verbose
        self.results = []
        self.lock = threading.Lock()

    def add(self, result):
        """Takes one result; shows it at once where that is wanted."""
        with self.lock:
            self.results.append(result)
            if self.verbose:
                self.say(f"{result.status:7} {result.label}{_reason(result)}")

    def counts(self):
        """passed, failed, skipped."""
        said = [result.status for result in self.results]
        return tuple(said.count(status) for status in ("passed", "failed", "skipped"))

    def table(self):
        """Every case: what it gave on both sides."""
        rows = [("case", "native", "vgpu", "equal", "ratio", "spread", "target", "")]
        rows += [_row(result) for result in self._sorted()]
        return _aligned(rows)

    def summary(self):
        """The files with their counts, what was measured where no table shows it, and the targets that were missed."""
        lines = []
        groups = {}
        for result in self._sorted():
            groups.setdefault(result.label.split("/")[0], []).append(result.status)
        for group, said in groups.items():
            words = [f"{said.count(one)} {one}" for one in ("passed", "failed", "skipped") if one in said]
            lines.append(f"{group}: {', '.join(words)}")
        measured = [result for result in self._sorted() if result.vgpu is not None]
        if measured and not self.verbose:
            rows = [("case", "native", "vgpu", "equal", "ratio", "spread", "target", "")]
            lines += ["", _aligned(rows + [_row(result) for result in measured])]
        missed = [result for result in measured if result.met is False]
        if missed:
            lines += ["", "targets that were missed, and what seems to bound them:"]
            lines += [f"  {result.label}: {_short(result.bound) or '-'}" for result in missed]
        return "\n".join(lines)

    def last_lines(self):
        """Failures, skips by reason, and the counts, as the project's other tests have them. In brief failures go by reason, too."""
        lines = [f"failed: {line}" for line in self._by_reason("failed", one_a_line=self.verbose)]
        lines += [f"skipped: {line}" for line in self._by_reason("skipped", one_a_line=False)]
        lines.append("{} passed, {} failed, {} skipped".format(*self.counts()))
        return "\n".join(lines)

    def _by_reason(self, status, one_a_line):
        reasons = {}
        for result in self._sorted():
            if result.status == status:
                key = result.label if one_a_line else result.why
                reasons.setdefault(key, []).append(result)
        for results in reasons.values():
            labels = [result.label for result in results[:LABELS_SHOWN]]
            more = f" and {len(results) - len(labels)} more" if len(results) > len(labels) else ""
            yield f"{', '.join(labels)}{more}{_reason(results[0])}"

    def write_json(self, path, about):
        """The results, one object a line after one on the machine."""
        with open(path, "w") as file:
            file.write(json.dumps(about) + "\n")
            for result in self._sorted():
                file.write(json.dumps(result.as_json()) + "\n")

    def bench_lines(self):
        """What was measured, in the form of `cargo xtask bench`: one flat object a line."""
        for result in self._sorted():
            if result.vgpu is None:
                continue
            scale, unit = _scale(result)
            fields = {
                "name": result.label,
                "value": _rounded(result.vgpu * scale),
                "unit": unit,
                "beside": None if result.native is None else _rounded(result.native * scale),
                "what": "native",
                "ratio": _rounded(result.vgpu / result.native) if result.native else None,
                "target": _rounded(result.most * scale) if result.most is not None else 0,
            }
            yield json.dumps(fields)

    def _sorted(self):
        return sorted(self.results, key=lambda result: result.label.split("/")[0])


def _row(result):
    scale, unit = _scale(result)

    def shown(value):
        return "-" if value is None else f"{_rounded(value * scale):g} {unit}"

    measured = result.vgpu is not None
    return (
        result.label,
        shown(result.native) if measured else _native_word(result),
        shown(result.vgpu) if measured else result.status,
        result.equal or "-",
        "-" if result.ratio is None else f"{100 * result.ratio:.1f} %",
        "-" if result.spread is None else f"±{result.spread:g} %",
        f"{result.target} {'met' if result.met else 'MISSED'}" if result.target else "-",
        "" if result.status == "passed" else _short(result.why),
    )


def _native_word(result):
    return "-" if result.status == "skipped" else "ok"


def _scale(result):
    """Seconds are shown in what suits the larger of both."""
    if result.unit != "s":
        return 1.0, result.unit
    largest = max(result.native or 0.0, result.vgpu or 0.0)
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if largest * scale >= 1:
            return scale, unit
    return 1e6, "us"


def _rounded(value):
    return float(f"{value:.4g}")


def _reason(result):
    return f": {_short(result.why)}" if result.why else ""


def _short(text):
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 3] + "..."


def _aligned(rows):
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)
