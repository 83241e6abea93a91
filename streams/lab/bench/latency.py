"""``bench latency``: from the append of a line to its validated record and to its booking, the whole flow."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, KafkaError, Message, TopicPartition
from numpy.typing import NDArray

from schemas.batch import source_of
from schemas.errors import Problem
from schemas.letter import Receipt
from streams.audit.account import audit
from streams.lab.bench.children import running
from streams.lab.bench.contest import say
from streams.lab.generate import generate
from streams.lab.up import Lab
from streams.settings import load
from topics.catalogue import BATCHES, RECEIPTS

#: Records appended a second, and how a window is closed: name → setting.
_RATES = (100, 1000, 10_000)
_WINDOWS = {"closed after 1 s": "0", "closed early": "0.05"}

#: Appended at first and not measured: caches fill, code warms up.
_WARM_UP_S = 5.0
#: Measured in each run.
_RUN_S = 3.0
#: Between two appends.
_EVERY_S = 0.01
_LONGEST_S = 60.0


class Latency:
    """One log that grows evenly; a tailer, a worker and the sandbox."""

    def __init__(self, lab: Lab, folder: Path, _: int) -> None:
        self._lab, self._folder = lab, folder
        self._settings = load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})

    def hold(self, runs: int) -> dict[str, Any]:
        """Measure ``runs`` times :data:`_RUN_S` at each rate; gives what :func:`.contest.show` shows.

        Raises :class:`Problem` when the audit finds a record missing or doubled.
        """
        rows: list[dict[str, Any]] = []
        for window, early in _WINDOWS.items():
            for rate in _RATES:
                say(f"latency: {rate:,} records/s, windows {window}")
                path = self._folder / f"{rate}-{early}.csv"
                lines = _begun(path, int(rate * (_WARM_UP_S + runs * _RUN_S)), rate)
                with self._running(path, early), Arrivals(self._consumer()) as arrivals:
                    _grow(path, lines[:1], rate)
                    arrivals.wait(1)  # everything runs
                    delays = arrivals.delays(_grow(path, lines[1:], rate))
                self._audit(path)
                measured = {name: of[int(rate * _WARM_UP_S) :] for name, of in delays.items()}
                rows += [
                    {"records/s": rate, "windows": window} | _row(name, of) for name, of in measured.items()
                ]
        work = f"one log that grows evenly, {runs * _RUN_S:g} s each; booked: as receipts say"
        return {"name": "latency", "work": work, "runs": runs, "rows": rows}

    @contextmanager
    def _running(self, path: Path, early: str) -> Iterator[None]:
        given = {"BATCH__EARLY_SECONDS": early, "WORKER__WEB_PORT": "0", "LOG__LEVEL": "warning"}
        environment = self._lab.environment | {f"SPOTSTREAM_{name}": value for name, value in given.items()}
        environment["PATH"] = "/usr/bin:/bin"
        with ExitStack() as stack:
            for arguments in (("worker",), ("tail", str(path))):
                command = [sys.executable, "-m", "streams.cli", *arguments]
                stack.enter_context(running(command, env=environment))
            yield

    def _consumer(self) -> Consumer:
        """Of the batches and receipts from now on."""
        consumer = Consumer(self._settings.kafka.reading() | {"fetch.wait.max.ms": 5})
        known = consumer.list_topics(timeout=10).topics
        places = [(topic.name, at) for topic in (BATCHES, RECEIPTS) for at in known[topic.name].partitions]
        consumer.assign([TopicPartition(*place, OFFSET_END) for place in places])
        while places:
            message = consumer.poll(_LONGEST_S)
            if (
                message is None
                or message.error() is None
                or message.error().code() != KafkaError._PARTITION_EOF
            ):
                raise Problem("the broker does not tell its ends", where="bench latency")
            places.remove((message.topic() or "", message.partition() or 0))
        return consumer

    def _audit(self, path: Path) -> None:
        if not audit(self._settings, str(path)).passed:
            raise Problem("the audit does not add up", where=str(path), remedy="see `spotstream audit`")


class Arrivals:
    """When the batches of one partition were validated and booked; a context manager that reads beside."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer, self._stopping = consumer, threading.Event()
        #: First raw offset, when, how many records.
        self._came: dict[str, list[tuple[int, float, int]]] = {"validated": [], "booked": []}
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Arrivals":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._reader.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                self._note(message)

    def _note(self, message: Message) -> None:
        if message.topic() == BATCHES.name:
            source, at, name = source_of(dict(message.headers() or ())), time.time(), "validated"
        else:
            receipt = Receipt.model_validate_json(message.value() or b"")
            source, at, name = receipt.source, datetime.fromisoformat(receipt.at).timestamp(), "booked"
        self._came[name].append((source.first, at, source.records))

    def wait(self, records: int) -> None:
        """Return when so many are validated and booked; raises :class:`Problem` when they are not in time."""
        deadline = time.monotonic() + _LONGEST_S
        while min(sum(count for *_, count in came) for came in self._came.values()) < records:
            if time.monotonic() > deadline:
                raise Problem("not everything was booked in time", where="bench latency")
            time.sleep(0.01)

    def delays(self, appended: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        """Of each record but the first, seconds until it was validated and until it was booked."""
        self.wait(len(appended) + 1)
        return {
            name: np.fromiter(
                chain.from_iterable(repeat(at, count) for _, at, count in sorted(came)[1:]), np.float64
            )
            - appended
            for name, came in self._came.items()
        }


def _begun(path: Path, records: int, seed: int) -> list[bytes]:
    """Begin a log with its header; gives the lines of good records that are to follow."""
    header, *lines = generate(records, seed, bad_rate=0.0)
    path.write_bytes(b"# %s\n" % path.name.encode() + header.data)
    return [line.data for line in lines if line.number]


def _grow(path: Path, lines: list[bytes], rate: int) -> NDArray[np.float64]:
    """Append the lines evenly; gives the moment before each was written, in seconds since 1970."""
    count = len(lines)
    moments = np.empty(count)
    done, began = 0, time.monotonic()
    with path.open("ab", buffering=0) as file:
        while done < count:
            until = min(count, int((time.monotonic() - began) * rate) + 1)
            moments[done:until] = time.time()
            file.write(b"".join(lines[done:until]))
            done = until
            time.sleep(_EVERY_S)
    return moments


def _row(until: str, delays: NDArray[np.float64]) -> dict[str, Any]:
    cuts = np.percentile(delays * 1000, [50, 99, 99.9])
    figures = {
        name: round(float(cut)) for name, cut in zip(("p50 ms", "p99 ms", "p99.9 ms"), cuts, strict=True)
    }
    return {"until": until} | figures
