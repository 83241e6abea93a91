"""``bench tail-delay``: how long after it was appended to a log a line can be read with read_committed."""

import random
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import quantiles
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas.errors import Problem
from streams.lab.bench.children import running
from streams.lab.bench.tailing import write
from streams.lab.up import Lab
from streams.settings import load
from topics.catalogue import RAW

#: Lines appended in each run, and the mean time between two.
_LINES, _EVERY_S = 200, 0.04

_LONGEST_S = 10.0


class Delay:
    """A log that grows by single lines at random times, a tailer and a reader."""

    def __init__(self, lab: Lab, folder: Path, _: int) -> None:
        self._lab, self._path = lab, folder / "delay.csv"
        options = [str(self._path), "--profile", "avion"]
        self._command = [sys.executable, "-m", "streams.cli", "tail", *options]

    def hold(self, runs: int) -> dict[str, Any]:
        """Measure ``runs`` times :data:`_LINES` after a warm-up; gives what :func:`.contest.show` shows."""
        kafka = load({"kafka": {"bootstrap_servers": self._lab.broker.bootstrap}}).kafka
        consumer = Consumer(kafka.reading())
        partitions = consumer.list_topics(RAW.name, 10).topics[RAW.name].partitions
        # A lab of its own has nothing on them yet.
        consumer.assign([TopicPartition(RAW.name, number, OFFSET_BEGINNING) for number in partitions])
        write(self._path, 0)
        environment = self._lab.environment | {"PATH": "/usr/bin:/bin", "SPOTSTREAM_LOG__LEVEL": "error"}
        with closing(consumer), running(self._command, env=environment):
            delays = [self._delay(consumer, number) for number in range(_LINES * (runs + 1))][_LINES:]
        cuts = quantiles(delays, n=100, method="inclusive")
        figures = [("p50", cuts[49]), ("p99", cuts[98]), ("highest", max(delays))]
        work = f"{len(delays):,} single lines appended, until each is read with read_committed"
        return {
            "name": "tail-delay",
            "work": work,
            "runs": runs,
            "rows": [{f"{name} ms": round(s * 1000, 1) for name, s in figures}],
        }

    def _delay(self, consumer: Consumer, number: int) -> float:
        time.sleep(random.expovariate(1 / _EVERY_S))
        line = b"SPOT,delay,%d\n" % number
        with self._path.open("ab") as file:
            file.write(line)
        began = time.perf_counter()
        while time.perf_counter() < began + _LONGEST_S:
            message = consumer.poll(1.0)
            if message and message.value() == line:
                return time.perf_counter() - began
        raise Problem("was not published in time", where=line.decode())
