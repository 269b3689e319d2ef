#!/usr/bin/env python3
"""Puts what NVIDIA's driver said of wrong calls into faults.table: `faults >said`, without vgpu, then `record_faults.py said`.

Lines that the driver did not tell stay. A difference that is none any more goes; one without a reason is printed, to be given one of
those at the table's head, or repaired. The head's date and driver are changed by hand.
"""

import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent / "faults.table"
NO_REASON = "unrecorded"


def answers(said):
    """The last word of each line by the rest of it."""
    pairs = (line.rpartition(" ")[::2] for line in said.splitlines())
    return {about: code for about, code in pairs if code in ("crashes", "hangs") or code.lstrip("-").isdigit()}


def record(table, said):
    """The new table, and the lines that have no reason."""
    told, lines, without = answers(said), [], []
    for line in table.splitlines():
        told_before, bar, other = line.partition(" | ")
        about, _, code = told_before.rpartition(" ")
        if line.startswith(("#", "= ")) or about not in told:
            lines.append(line)
            continue
        ours = other.split()[1] if bar else code
        native = told[about]
        survived = native in ("crashes", "hangs") and ours.isdigit() and int(ours) > 0
        if native == ours or survived:
            line = f"{about} {native}"
        else:
            who, why = (other.split()[0], other.split()[2]) if bar else ("vgpu", NO_REASON)
            line = f"{about} {native} | {who} {ours} {why}"
            if why == NO_REASON:
                without.append(line)
        lines.append(line)
    used = {line.rpartition(" ")[2] for line in lines if " | " in line}
    lines = [line for line in lines if not line.startswith("= ") or line[2:].partition(":")[0] in used]
    return "\n".join(lines) + "\n", without


if __name__ == "__main__":
    recorded, without_reason = record(TABLE.read_text(), Path(sys.argv[1]).read_text())
    TABLE.write_text(recorded)
    print("\n".join(without_reason))
