"""Writes the tables of docs/reliability.md from runs' results: ``python -m chaos.report FILE…``."""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from chaos.schedule import KINDS

_DOC = Path(__file__).parents[2] / "docs" / "reliability.md"
_TABLES = re.compile(r"(?<=<!-- runs -->\n).*(?=<!-- end of runs -->)", re.DOTALL)


Runs = list[dict[str, Any]]


def tables(earlier: Runs, runs: Runs) -> str:
    """What all runs came to, each fault's row, and what was late; times are of ``runs`` alone."""
    struck: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in [*earlier, *runs]:
        for fault in run["faults"]:
            struck[fault["kind"]].append(fault | {"timed": fault["alone"] and run in runs})
    rows = [_row(kind, struck[kind]) for kind in KINDS if struck[kind]]
    late = [f"- seed {run['seed']}: {line}\n" for run in runs for line in run["wrong"] if "late" in line]
    parts = (_summary([*earlier, *runs]), _HEAD + "".join(rows), _timed(runs), "".join(late))
    return "\n".join(part for part in parts if part)


def _timed(runs: Runs) -> str:
    seeds = ", ".join(str(run["seed"]) for run in runs)
    loads = [run["load"] for run in runs if "load" in run]
    return (
        f"Times are of seeds {seeds}, at a load of {min(loads):g} to {max(loads):g}, two cores. Late, that"
        " is 15 s after a worker's kill, or the first record 5 s after a broker's return, were:\n"
    )


_HEAD = """\
| fault | times | alone and timed | first record after: median, worst | every partition after: median, worst |
|---|---|---|---|---|
"""


def _summary(runs: Runs) -> str:
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
    timed = [fault for fault in faults if fault["timed"]]
    times = [_times([_latest(fault[name]) for fault in timed]) for name in ("first", "every")]
    return f"| {kind} | {len(faults)} | {len(timed)} | {times[0]} | {times[1]} |\n"


def _latest(by_group: dict[str, float]) -> float:
    """The later one of the two groups; a minute where one of them had not got so far in a minute."""
    return max(by_group.values()) if len(by_group) == 2 else 60.0


def _times(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} s, {max(seconds):.1f} s" if seconds else ""


def main() -> None:
    """Read the runs' results and renew the tables in the document."""
    parser = argparse.ArgumentParser(prog="python -m chaos.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="results of runs")
    parser.add_argument(
        "--earlier", nargs="*", type=Path, default=[], help="of runs whose times do not count"
    )
    given = parser.parse_args()
    earlier, runs = (
        [json.loads(file.read_text()) for file in files] for files in (given.earlier, given.files)
    )
    _DOC.write_text(_TABLES.sub(lambda _: tables(earlier, runs), _DOC.read_text()))


if __name__ == "__main__":
    main()
