"""``spotstream bench``: the benchmarks by name, on services of their own."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from schemas.errors import UsageError
from streams import log
from streams.lab.bench import dispatching, plot, scaling, tailing, validating
from streams.lab.bench.contest import Benchmark, show
from streams.lab.bench.delay import Delay
from streams.lab.bench.latency import Latency
from streams.lab.bench.transactions import Transactions
from streams.lab.up import Lab, interrupt_on_signals
from streams.settings import LogSettings

#: ``measure(folder, records, runs)`` gives what :func:`.contest.show` shows.
Measure = Callable[[Path, int, int], dict[str, Any]]


def _on_a_lab(benchmark: Callable[[Lab, Path, int], Benchmark]) -> Measure:
    def measure(folder: Path, records: int, runs: int) -> dict[str, Any]:
        with Lab(folder) as lab:
            return benchmark(lab, folder, records).hold(runs)

    return measure


BENCHMARKS: dict[str, Measure] = {
    "tail": _on_a_lab(tailing.contest),
    "tail-many": _on_a_lab(tailing.many),
    "tail-delay": _on_a_lab(Delay),
    "validate": _on_a_lab(validating.contest),
    "dispatch": _on_a_lab(dispatching.Dispatch),
    "latency": _on_a_lab(Latency),
    "transactions": _on_a_lab(Transactions),
    "scale": scaling.measure,
}


def run(names: Sequence[str], records: int, runs: int, *, as_json: bool, picture: Path | None) -> None:
    """Run the benchmarks of ``names`` (all by default), print their results and draw them as ``picture``.

    Raises :class:`UsageError` for a name that is none, or a picture that cannot be drawn.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise UsageError(
            f"no such benchmark: {', '.join(unknown)}", remedy=f"there are {', '.join(BENCHMARKS)}"
        )
    if picture:
        plot.check(picture)
    log.configure(LogSettings(level="error"))
    interrupt_on_signals()
    results = []
    for name in names or BENCHMARKS:
        with TemporaryDirectory(prefix="spotstream-bench-") as folder:
            results.append(BENCHMARKS[name](Path(folder), records, runs))
        if not as_json:
            show(results[-1])
    if picture:
        plot.plot(results, picture)
    if as_json:
        sys.stdout.write(orjson.dumps(results).decode() + "\n")
