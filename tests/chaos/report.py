"""Writes the tables of docs/reliability.md from runs' results: ``python -m chaos.report FILE…``."""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from chaos.schedule import KINDS

_DOC = Path(__file__).parents[2] / "docs" / "reliability.md"
_TABLES = re.compile(r"(?<=<!-- runs -->\n).*(?=<!-- end of runs -->)", re.DOTALL)


def tables(runs: list[dict[str, Any]]) -> str:
    """What all runs came to, and each fault's row."""
    struck: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        for fault in run["faults"]:
            struck[fault["kind"]].append(fault)
    rows = [_row(kind, struck[kind]) for kind in KINDS if struck[kind]]
    return f"{_summary(runs)}\n{_HEAD}" + "".join(rows) + "\n"


_HEAD = """\
| fault | times | of these alone | first record after: median, worst | every partition after: median, worst |
|---|---|---|---|---|
"""


def _summary(runs: list[dict[str, Any]]) -> str:
    def total(name: str) -> int:
        return sum(run[name] for run in runs)

    faults = sum(len(run["faults"]) for run in runs)
    seeds = ", ".join(f"{run['seed']} ({run['minutes']:g})" for run in runs)
    return (
        f"{len(runs)} runs, faults striking for {total('minutes'):g} minutes in all; {faults} faults; "
        f"{total('records'):,} records in files that were rotated {total('rotations')} times by rename, "
        f"{total('copies')} times by copytruncate: **lost {total('lost')}, booked twice "
        f"{total('doubled')}**.\n"
        f"Seeds, and minutes of each: {seeds}.\n"
    )


def _row(kind: str, faults: list[dict[str, Any]]) -> str:
    alone = [fault for fault in faults if fault["alone"]]
    times = [_times([_latest(fault[name]) for fault in alone]) for name in ("first", "every")]
    return f"| {kind} | {len(faults)} | {len(alone)} | {times[0]} | {times[1]} |\n"


def _latest(by_group: dict[str, float]) -> float:
    """The later one of the two groups; a minute where one of them had not got so far in a minute."""
    return max(by_group.values()) if len(by_group) == 2 else 60.0


def _times(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} s, {max(seconds):.1f} s" if seconds else ""


def main() -> None:
    """Read the runs' results and renew the tables in the document."""
    runs = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    _DOC.write_text(_TABLES.sub(lambda _: tables(runs), _DOC.read_text()))


if __name__ == "__main__":
    main()
