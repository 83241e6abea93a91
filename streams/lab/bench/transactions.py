"""``bench transactions``: how many a second one broker ends, by how many producers at once.

Each is a worker's: it sends one message and a consumer group's offsets. What is in one costs little beside.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median, median_low
from typing import Any

from confluent_kafka import TopicPartition

from streams.lab.bench.contest import say
from streams.lab.up import Lab
from topics.catalogue import BATCHES, RAW, VALIDATING
from topics.ownership import group_metadata
from topics.transaction import TransactionalProducer

#: Producers at once: a worker has one for each of its partitions and roles.
_PRODUCERS = (1, 4, 16, 64)

_WARM_UP_S, _RUN_S = 2.0, 5.0


class Transactions:
    """Producers, each in a thread, that do nothing but commit."""

    def __init__(self, lab: Lab, _: Path, __: int) -> None:
        self._kafka, self._ids = lab.kafka, count()

    def hold(self, runs: int) -> dict[str, Any]:
        """Measure ``runs`` times with each number; gives what :func:`.contest.show` shows."""
        rows = []
        for producers in _PRODUCERS:
            say(f"transactions: {producers} producers")
            rates, times = zip(*(self._run(producers) for _ in range(runs)), strict=True)
            rows.append(
                {"producers": producers, "transactions/s": median_low(rates), "p50 ms": median_low(times)}
            )
        work = f"one message and one group's offsets in each, {_RUN_S:g} s"
        return {"name": "transactions", "work": work, "runs": runs, "rows": rows}

    def _run(self, producers: int) -> tuple[int, float]:
        """Transactions a second, and the median time of one in ms."""
        with ThreadPoolExecutor(producers) as pool:
            ended = list(pool.map(lambda _: list(self._commit()), range(producers)))
        seconds = [took for one in ended for took in one]
        return round(len(seconds) / _RUN_S), round(median(seconds) * 1000, 1)

    def _commit(self) -> Iterator[float]:
        """The seconds of each transaction after the warm-up."""
        number = next(self._ids)
        producer = TransactionalProducer(self._kafka, f"bench-transactions-{number}", timeout_s=60)
        producer.fence()
        group = group_metadata(f"{VALIDATING}-{number}", -1, "")  # nobody's member: offsets without a check
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + _WARM_UP_S + _RUN_S:
            producer.commit(
                lambda sender: sender.produce(BATCHES.name, b"", partition=number % BATCHES.partitions),
                [TopicPartition(RAW.name, 0, 0)],
                group,
            )
            if now > began + _WARM_UP_S:
                yield time.perf_counter() - now
