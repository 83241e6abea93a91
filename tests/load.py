"""What load is put on: a tailer and workers that are kept running, a log that is fed, and what they take."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import numpy as np
import psutil
from chaos.actors import Actor
from confluent_kafka import KafkaException
from flow import until

from streams.lab.generate import generate
from streams.lab.up import Lab
from topics.admin import Asker
from topics.catalogue import BATCHES, DISPATCHING, RAW, VALIDATING
from topics.connection import KafkaSettings
from topics.standing import standing

_SAMPLE_S = 2.0
_BLOCKS = 24
_DAY_S = 86_400


class Slope(NamedTuple):
    """A straight line through samples: the change in a day, with its standard error."""

    per_day: float
    error: float
    mean: float

    @classmethod
    def of(cls, seconds: list[float], values: list[float]) -> "Slope":
        """By least squares through the means of :data:`_BLOCKS` stretches of time.

        Samples two seconds apart are alike, and an error that counts each as one that stands for itself is
        several times too small (batch means: Law and Kelton, Simulation Modeling and Analysis).
        """
        blocks = min(_BLOCKS, len(values))
        at, means = (np.array([b.mean() for b in np.array_split(some, blocks)]) for some in (seconds, values))
        at /= _DAY_S
        design = np.column_stack((at - at.mean(), np.ones(blocks)))
        (per_day, mean), *_ = np.linalg.lstsq(design, means, rcond=None)
        left = means - design @ (per_day, mean)
        error = np.sqrt((left @ left) / (blocks - 2) / (design[:, 0] @ design[:, 0]))
        return cls(float(per_day), float(error), float(mean))

    def is_flat(self, a_day: float) -> bool:
        """Whether it may be 0 at 95 % (Student's t of 22 degrees), or adds less than ``a_day``."""
        return self.per_day < max(2.07 * self.error, a_day)


class Plant:
    """A context manager. The first worker is measured; whatever is done to any is done to the others."""

    def __init__(self, lab: Lab, folder: Path, seed: int, workers: int = 1, **settings: object) -> None:
        self._lab, self._folder = lab, folder
        # What was rotated before it was seen could still grow, for all the tailer knows.
        self._settings = {"TAIL__COMPLETE_AFTER_S": 3} | settings
        self._lines = (line for s in count(seed) for line in islice(generate(10_000_000, s, 0.01), 1, None))
        self._head = next(iter(generate(1, seed))).data
        self._asker = {
            topic.name: Asker(KafkaSettings(bootstrap_servers=lab.broker.bootstrap), group)
            for group, topic in ((VALIDATING, RAW), (DISPATCHING, BATCHES))
        }
        self.logs, self._many = folder / "logs", workers
        self.written = self.good = 0
        self.samples: list[dict[str, float]] = []  #: each with ``at``, ``lag`` and what processes take
        self._over = threading.Event()
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            starting.enter_context(patch.dict(os.environ, self._lab.environment))
            os.environ["SPOTSTREAM_WORKER__WEB_PORT"] = "0"
            self.logs.mkdir()
            self.tailer = Actor("tail", self._folder, "tail", str(self.logs), "--delete", **self._settings)
            self.workers = [
                Actor(f"worker{number}", self._folder, "worker", **self._settings)
                for number in range(self._many)
            ]
            for actor in (self.tailer, *self.workers):
                starting.callback(actor.kill)
            for work in (self._keep, self._sample):
                thread = threading.Thread(target=work, daemon=True)
                thread.start()
                starting.callback(thread.join, 30)
            starting.callback(self._over.set)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()
        (self._folder / "samples.json").write_text(json.dumps(self.samples))  # to be drawn, if one must look

    def start(self, *actors: Actor) -> None:
        """Start these, and keep them running."""
        for actor in actors:
            actor.start()

    def _keep(self) -> None:
        while not self._over.wait(0.3):
            for actor in (self.tailer, *self.workers):
                if actor.service:
                    actor.keep()

    def feed(self, records: int) -> None:
        """Append so many lines to the log."""
        path = self.logs / "log.csv"
        new = not path.exists()
        with path.open("ab") as log:
            log.write(self._head if new else b"")
            for line in islice(self._lines, records):
                log.write(line.data)
                self.written += line.number > 0  # beside records there are empty lines
                self.good += line.number > 0 and not line.fault

    def feed_for(self, seconds: float, per_s: float) -> None:
        """At this rate, or as near to it as lines can be made."""
        began, before = time.monotonic(), self.written
        while (passed := time.monotonic() - began) < seconds:
            due = int(min(passed + 0.2, seconds) * per_s) - (self.written - before)
            self.feed(max(due, 0))
            time.sleep(0.2)

    def rotate(self) -> None:
        """Rename the log; the tailer deletes what it has published."""
        with suppress(FileNotFoundError):
            (self.logs / "log.csv").rename(self.logs / f"log.csv.{time.monotonic_ns()}")

    @property
    def lag(self) -> int:
        """Offsets that the two groups have yet to read."""
        return sum(
            place.behind
            for topic, asker in self._asker.items()
            for place in standing(asker, topic, 15).values()
        )

    def ledger(self) -> dict[str, int]:
        """What Avstar has booked."""
        with urllib.request.urlopen(f"{self._lab.sandbox.url}/sandbox/ledger", timeout=60) as answer:
            return dict(json.loads(answer.read()))

    def await_booked(self, timeout_s: float) -> float:
        """Return when all good records are booked: how long it took. No more may be written meanwhile."""
        began = time.monotonic()
        self.rotate()  # a quote left open in one of the last lines would wait for what comes
        until(lambda: self.ledger()["unique_records"] >= self.good, timeout_s, 0.5)
        return time.monotonic() - began

    def audit(self, timeout_s: float = 3600) -> dict[str, Any]:
        """What the audit tells, once it is content."""
        command = [sys.executable, "-m", "streams.cli", "audit", "--json"]
        deadline = time.monotonic() + timeout_s
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
            if done.returncode == 0 or time.monotonic() > deadline:
                return dict(json.loads(done.stdout))

    def _sample(self) -> None:
        began = time.monotonic()
        while not self._over.wait(_SAMPLE_S):
            with suppress(KafkaException, OSError):
                found = {"at": time.monotonic() - began, "lag": float(self.lag)}
                for name, process in self._measured():
                    with process.oneshot():
                        found[f"{name} rss MB"] = process.memory_info().rss / 1e6
                        found[f"{name} descriptors"] = float(process.num_fds())
                        found[f"{name} threads"] = float(process.num_threads())
                self.samples.append(found)

    def _measured(self) -> Iterator[tuple[str, psutil.Process]]:
        with suppress(psutil.NoSuchProcess):
            for process in self.tailer.processes:
                if "env" not in process.cmdline()[:1] and "streams.cli" in process.cmdline():
                    yield "tail", process
            for role in ("validate", "dispatch"):
                if process := self.workers[0].role(role):
                    yield role, process

    def peak(self, name: str) -> float:
        """The largest of what was sampled."""
        return max((sample[name] for sample in self.samples if name in sample), default=0.0)

    def slopes(self, since_s: float) -> dict[str, Slope]:
        """Of everything that was sampled, from that moment of the samples on."""
        late = [sample for sample in self.samples if sample["at"] >= since_s]
        names = {name for sample in late for name in sample} - {"at"}
        return {
            name: Slope.of([s["at"] for s in late if name in s], [s[name] for s in late if name in s])
            for name in sorted(names)
        }
