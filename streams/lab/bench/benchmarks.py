"""``spotstream bench``: the benchmarks by name, on services of their own."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from schemas.errors import UsageError
from streams import log
from streams.lab.bench import dispatching, plot, tailing, validating
from streams.lab.bench.contest import Benchmark, show
from streams.lab.bench.delay import Delay
from streams.lab.bench.latency import Latency
from streams.lab.up import Lab, interrupt_on_signals
from streams.settings import LogSettings

BENCHMARKS: dict[str, Callable[[Lab, Path, int], Benchmark]] = {
    "tail": tailing.contest,
    "tail-many": tailing.many,
    "tail-delay": Delay,
    "validate": validating.contest,
    "dispatch": dispatching.Dispatch,
    "latency": Latency,
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
        with TemporaryDirectory(prefix="spotstream-bench-") as folder, Lab(Path(folder)) as lab:
            results.append(BENCHMARKS[name](lab, Path(folder), records).hold(runs))
        if not as_json:
            show(results[-1])
    if picture:
        plot.plot(results, picture)
    if as_json:
        sys.stdout.write(orjson.dumps(results).decode() + "\n")
