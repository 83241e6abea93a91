"""``bench scale``: the whole flow, from a file to its bookings, of several sizes.

Everything is on this machine, so brokers, tailer and sandbox take their part of its cores: more workers or
brokers cannot give more than is left.
"""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil

from schemas.errors import Problem
from streams import settings
from streams.audit.account import audit
from streams.lab.bench.children import limit_s, running, until
from streams.lab.bench.contest import say
from streams.lab.gauge import Gauge
from streams.lab.generate import generate, write
from streams.lab.scales import Scales
from streams.lab.service import free_port
from streams.lab.up import Lab
from streams.tail import checkpoint
from topics.catalogue import BATCHES, DISPATCHING, RAW, RECEIPTS, VALIDATING
from topics.reader import read_all

#: The sizes, as parts of what is asked for; what is not about size is measured with at most so many.
_PARTS, _MOST_ELSE = (20, 4, 1), 1_000_000
_WORKERS, _PARTITIONS, _BROKERS = (1, 2), (1, 4, 16, 64), (1, 3)

#: Booked before anything counts: caches fill, connections open.
_WARM_UP = 20_000

_LOOK_S = 0.25

_ROLES = ("validate", "dispatch")


class Size(NamedTuple):
    """What a flow is made of."""

    workers: int = 1
    partitions: int = 8
    records: int = _MOST_ELSE
    brokers: int = 1


def measure(folder: Path, records: int, runs: int) -> dict[str, Any]:
    """Measure all sizes ``runs`` times, each on services of its own; gives what :func:`.contest.show` shows.

    Raises :class:`Problem` when an audit finds a record missing or doubled.
    """
    measured: dict[Size, dict[str, int | float]] = {}
    rows = []
    for varied, sizes in _curves(records).items():
        for size in sizes:
            if size not in measured:
                say(f"scale: {', '.join(f'{value:,} {name}' for name, value in size._asdict().items())}")
                found = [_run(size, _log(folder, size.records)) for _ in range(runs)]
                measured[size] = {name: median_low(run[name] for run in found) for name in found[0]}
            rows.append({"varied": varied} | size._asdict() | measured[size])
    work = "one file from its first line to the last booking; µs of processor time a record, most MB resident"
    return {"name": "scale", "work": work, "runs": runs, "rows": rows}


def _curves(records: int) -> dict[str, list[Size]]:
    base = Size(records=min(records // _PARTS[1], _MOST_ELSE))
    return {
        "workers": [base._replace(workers=workers) for workers in _WORKERS],
        "partitions": [base._replace(partitions=partitions) for partitions in _PARTITIONS],
        "brokers": [base._replace(brokers=brokers) for brokers in _BROKERS],
        "records": [base._replace(records=records // part) for part in _PARTS],
    }


def _log(folder: Path, records: int) -> Path:
    """A log of so many records, 1 % of them bad; written once."""
    path = folder / f"{records}.csv"
    if not path.exists():
        with path.open("wb") as file:
            write(file, generate(records, 7, 0.01))
    return path


def _run(size: Size, log: Path) -> dict[str, int | float]:
    with (
        TemporaryDirectory(prefix="spotstream-scale-", dir=log.parent) as folder,
        Lab(Path(folder) / "lab", replicated=size.brokers > 1, partitions=size.partitions) as lab,
    ):
        flow = Flow(lab, Path(folder), size)
        with flow.running():
            return flow.measure(log)


class Flow:
    """Tailer and workers on a lab."""

    def __init__(self, lab: Lab, folder: Path, size: Size) -> None:
        self._lab, self._size = lab, size
        self._settings = settings.load({"kafka": lab.kafka.model_dump(exclude_unset=True)})
        self._pages: dict[str, str] = {}
        self._gauge, self._scales = Gauge(self._settings, self._pages), Scales()
        self._logs, self._said = folder / "logs", folder / "said"
        self._logs.mkdir()
        self._started: list[subprocess.Popen[Any]] = []
        self._passed = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """A tailer of a folder, and the workers, each on a core of its own."""
        given = {"TAIL__PARTITIONING": "block", "LOG__LEVEL": "warning"}
        environment = self._lab.environment | {f"SPOTSTREAM_{name}": value for name, value in given.items()}
        environment["PATH"] = "/usr/bin:/bin"
        with ExitStack() as stack:
            said = stack.enter_context(self._said.open("wb"))

            def start(*arguments: str, port: int = 0, core: int | None = None) -> None:
                command = [sys.executable, "-m", "streams.cli", *arguments]
                ours = environment | {"SPOTSTREAM_WORKER__WEB_PORT": str(port)}
                self._started.append(stack.enter_context(running(command, core, env=ours, stderr=said)))

            start("tail", str(self._logs))
            for number in range(self._size.workers):
                port = free_port(len(_ROLES))
                start("worker", port=port, core=-1 - number)
                for index, role in enumerate(_ROLES):
                    self._pages[f"{role} {number}"] = f"http://127.0.0.1:{port + index}/status/"
            yield

    def measure(self, log: Path) -> dict[str, int | float]:
        """From the moment when the log is there to its last booking."""
        self._until(self._gauge.ready, 0)
        self._pass(_log(log.parent, _WARM_UP), _WARM_UP, "warm.csv")
        self._scales = Scales()  # what the start and the warm-up took is no record's
        self._weigh()
        began = time.time()
        path = self._pass(log, self._size.records, "log.csv")
        self._weigh()
        return {"records/s": round(self._size.records / (self._booked_at(path) - began))} | self._costs()

    def _booked_at(self, path: Path) -> float:
        """When the last batch was booked, in seconds since 1970; raises unless the log's audit adds up."""
        if not audit(self._settings, str(path)).passed:
            raise Problem("the audit does not add up", where=str(path), remedy="see `spotstream audit`")
        receipts = read_all(self._settings.kafka, RECEIPTS.name)
        last_ms: int = max(message.timestamp()[1] for message in receipts)
        return last_ms / 1000

    def _pass(self, log: Path, records: int, name: str) -> Path:
        """Give the log to the tailer; its path there, when all of it is settled."""
        path = self._logs / name
        os.link(log, path)
        size = path.stat().st_size
        self._passed += records

        def published() -> bool:
            if self._gauge.published() < self._passed:
                return False
            files = checkpoint.read(self._settings.kafka).files.values()
            return any(known.path == str(path) and known.position == size for known in files)

        self._until(published, records)
        self._until(lambda: self._gauge.caught_up(RAW, VALIDATING), records)
        self._until(lambda: self._gauge.caught_up(BATCHES, DISPATCHING), records)
        return path

    def _until(self, condition: Callable[[], bool], records: int) -> None:
        """Return once ``condition()`` holds, which takes so many records; weighs meanwhile."""

        def holds() -> bool:
            self._weigh()
            return condition()

        until(holds, self._started, limit_s(records), self._failure, _LOOK_S)

    def _failure(self) -> Problem:
        said = self._said.read_text(encoding="utf-8", errors="replace")[-2000:]
        return Problem("the flow has stopped or takes too long", where="bench scale", below=said.splitlines())

    def _weigh(self) -> None:
        brokers = [(f"brokers {broker.pid}", psutil.Process(broker.pid)) for broker in self._lab.brokers]
        roles = []
        for child in self._started:
            with suppress(psutil.Error):
                process = psutil.Process(child.pid)
                for one in [process, *process.children()]:
                    command = one.cmdline()
                    role = command[command.index("--role") + 1] if "--role" in command else command[3]
                    roles.append((f"{role} {one.pid}", one))
        self._scales.weigh([*brokers, *roles])

    def _costs(self) -> dict[str, int | float]:
        spent: dict[str, float] = defaultdict(float)
        for name, seconds in self._scales.cpu_s.items():
            spent[name.partition(" ")[0]] += seconds
        most: dict[str, int] = defaultdict(int)
        for name, size in self._scales.rss_mb.items():
            role = name.partition(" ")[0]
            most[role] = max(most[role], size)
        names = ("tail", *_ROLES, "brokers")
        micros = {f"{name} µs": round(spent[name] * 1e6 / self._size.records, 1) for name in names}
        return micros | {f"{name} MB": most[name] for name in ("tail", *_ROLES)}
