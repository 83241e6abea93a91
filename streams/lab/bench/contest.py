"""A contest: contenders doing the same work, run in turn; medians, and ratios pair by pair."""

import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, Protocol

from rich.table import Table

from streams.console import console

#: Rounds before those that count: a broker that has just started is still compiling what it runs.
WARM_UPS = 3


class Benchmark(Protocol):
    """What can be measured."""

    def hold(self, runs: int) -> dict[str, Any]:
        """Measure so often; gives what :func:`show` shows."""
        ...


class Contender(NamedTuple):
    """One way to do the work. ``run`` does it once, and gives records per second; raises on failure.

    ``missing`` says why it cannot run here, and is empty when it can.
    """

    name: str
    run: Callable[[], float]
    missing: str = ""


class Contest(NamedTuple):
    """The subject is the first contender; the others are its baselines."""

    name: str
    work: str
    contenders: Sequence[Contender]

    def hold(self, runs: int) -> dict[str, Any]:
        """Run every contender ``runs`` times after the warm-ups, in turn; gives what :func:`show` shows."""
        present = [contender for contender in self.contenders if not contender.missing]
        rates: dict[str, list[float]] = {contender.name: [] for contender in present}
        for turn in range(1 - WARM_UPS, runs + 1):
            # Each is the first as often as the others: what comes after a rest, or after whom, may matter.
            first = turn % len(present)
            for contender in [*present[first:], *present[:first]]:
                say(f"{self.name} {max(turn, 0)}/{runs}: {contender.name}")
                rate = contender.run()
                if turn > 0:
                    rates[contender.name].append(rate)
        subject = rates[self.contenders[0].name]
        rows = [_row(contender, rates.get(contender.name, []), subject) for contender in self.contenders]
        return {"name": self.name, "work": self.work, "runs": runs, "contenders": rows}


def _row(contender: Contender, rates: list[float], subject: list[float]) -> dict[str, Any]:
    if not rates:
        return {"name": contender.name, "skipped": contender.missing}
    return {
        "name": contender.name,
        "records_per_second": round(median(rates)),
        "lowest": round(min(rates)),
        "highest": round(max(rates)),
        "subject_is_times_as_fast": round(median(a / b for a, b in zip(subject, rates, strict=True)), 2),
    }


def show(result: dict[str, Any]) -> None:
    """Print a benchmark's result as a table."""
    title = f"{result['name']}: {result['work']}"
    if rows := result.get("rows"):
        table = Table(title=title, title_justify="left", min_width=len(title))
        for name, value in rows[0].items():
            table.add_column(name, justify="left" if isinstance(value, str) else "right")
        for row in rows:
            table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
        console().print(table)
        return
    table = Table(title=f"{title}, median of {result['runs']}", title_justify="left")
    for heading in ("contender", "records/s", "lowest", "highest", "spotstream is … times as fast"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for row in result["contenders"]:
        if "skipped" in row:
            table.add_row(row["name"], f"skipped: {row['skipped']}")
        else:
            rates = [f"{row[field]:,}" for field in ("records_per_second", "lowest", "highest")]
            table.add_row(row["name"], *rates, f"{row['subject_is_times_as_fast']:.2f}")
    console().print(table)
    if overhead := result.get("overhead"):
        console().print(told(overhead))


def told(overhead: Mapping[str, float]) -> str:
    """What ``bench dispatch`` adds to its result, as a sentence."""
    figures = ", ".join(f"{name.removesuffix(' ms')} {ms:.1f} ms" for name, ms in overhead.items())
    return f"A single batch, from its topic into the sink, and a POST of the same alone: {figures}."


def say(what: str) -> None:
    """Tell on stderr what is being measured."""
    print(what, file=sys.stderr, flush=True)
