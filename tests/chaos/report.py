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


def tables(runs: Runs) -> str:
    """What all runs came to, each fault's row, and what was late."""
    struck: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        for fault in run["faults"]:
            struck[fault["kind"]].append(fault | {"timed": fault["alone"] and run["timed"]})
    rows = [_row(kind, struck[kind]) for kind in KINDS if struck[kind]]
    wrong = [(run["seed"], line) for run in runs for line in run["wrong"]]
    timed = {run["seed"] for run in runs if run["timed"]}
    late = [f"- seed {seed}, {line}\n" for seed, line in wrong if line.startswith("late") and seed in timed]
    other = [f"- seed {seed}, {line[:100]}\n" for seed, line in wrong if not line.startswith("late")]
    parts = [_summary(runs), _HEAD + "".join(rows), _LATE + "".join(late)]
    return "\n".join([*parts, _OTHER + "".join(other)] if other else parts)


_LATE = """\
Later than 15 s after a worker's kill, or with the first record later than 5 s after a broker's return, were:

"""
_OTHER = """\
The books and the audit did not agree in these; what came of it is below:

"""
_HEAD = """\
| fault | times | timed | first record after: median, worst | every partition after: median, worst |
|---|---|---|---|---|
"""


def _summary(runs: Runs) -> str:
    def total(name: str) -> int:
        return sum(run[name] for run in runs)

    faults = sum(len(run["faults"]) for run in runs)
    seeds = ", ".join(
        f"{run['seed']} ({run['minutes']:g}{', TLS' * run.get('secured', False)})" for run in runs
    )
    return (
        f"{len(runs)} runs, faults striking for {total('minutes'):g} minutes in all; {faults} faults; "
        f"{total('records'):,} records in files that\nwere rotated {total('rotations')} times by rename, "
        f"{total('copies')} times by copytruncate: **lost {total('lost')}, booked twice "
        f"{total('doubled')}**.\n"
        f"Seeds, and minutes of each: {seeds}.{_loads(runs)}\n"
    )


def _loads(runs: Runs) -> str:
    loads = [run["load"] for run in runs if "load" in run]
    return (
        f"\nLoad at the end, where it was noted: {', '.join(map(str, loads))}, on two cores." if loads else ""
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
    parser.add_argument("results", type=Path, nargs="+", help="what runs wrote")
    parser.add_argument("--untimed", type=Path, nargs="*", default=[], help="whose times tell nothing")
    given = parser.parse_args()
    runs = [json.loads(path.read_text()) | {"timed": False} for path in given.untimed]
    runs += [json.loads(path.read_text()) | {"timed": True} for path in given.results]
    _DOC.write_text(_TABLES.sub(lambda _: tables(runs), _DOC.read_text()))


if __name__ == "__main__":
    main()
