"""``spotstream bench``: the benchmarks by name, on services of their own."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from schemas.errors import Problem, UsageError
from streams import log
from streams.console import printable
from streams.lab.bench import dispatching, plot, scaling, tailing, validating
from streams.lab.bench.contest import Benchmark, say, show
from streams.lab.bench.delay import Delay
from streams.lab.bench.latency import Latency
from streams.lab.bench.sink import RECORDS
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
    "rejects": validating.rejects,
    "dispatch": _on_a_lab(dispatching.Dispatch),
    "latency": _on_a_lab(Latency),
    "transactions": _on_a_lab(Transactions),
    "scale": scaling.measure,
}

#: Records that one takes at the least.
_LEAST = dict.fromkeys(("validate", "rejects"), validating.LEAST)


def run(names: Sequence[str], records: int, runs: int, *, as_json: bool, picture: Path | None) -> None:
    """Run the benchmarks of ``names`` (all by default), print their results and draw them as ``picture``.

    Records are made whole batches. What there is is printed however it ends. Raises :class:`UsageError` for a
    name that is none, too few records, or a picture that cannot be drawn, before anything is measured; and
    :class:`Problem` at the end when some have failed, which does not keep the others from being run.
    """
    names, records = names or list(BENCHMARKS), records - records % RECORDS
    _check(names, records)
    if picture:
        plot.check(picture)
    log.configure(LogSettings(level="error"))
    interrupt_on_signals()
    results: list[dict[str, Any]] = []
    failures: dict[str, Exception] = {}
    try:
        for name in names:
            try:
                with TemporaryDirectory(prefix="spotstream-bench-") as folder:
                    results.append(BENCHMARKS[name](Path(folder), records, runs))
            except Exception as error:  # noqa: BLE001 - hours of the others' are not lost by it
                failures[name] = error
                _tell(name, error)
            else:
                if not as_json:
                    show(results[-1])
    finally:
        if as_json:
            sys.stdout.write(orjson.dumps(results).decode() + "\n")
    if picture and results:
        plot.plot(results, picture)
    if failures:
        failed = Problem(f"failed: {', '.join(failures)}", where="spotstream bench", remedy="see above")
        raise failed from next(iter(failures.values()))


def _check(names: Sequence[str], records: int) -> None:
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise UsageError(
            f"no such benchmark: {', '.join(unknown)}", remedy=f"there are {', '.join(BENCHMARKS)}"
        )
    for name in names:
        if records < (least := _LEAST.get(name, 0)):
            raise UsageError(f"{name} needs at least {least:,} records", where=f"--records {records}")


def _tell(name: str, error: Exception) -> None:
    if not isinstance(error, Problem):
        error = Problem(f"unexpected {type(error).__name__}: {error}")
    for line in (f"spotstream bench {name}: {error}", *error.below):
        say(printable(line))
