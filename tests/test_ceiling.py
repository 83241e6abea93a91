"""The account's ceiling over several workers: kept while one is killed and one joins, and used."""

import json
import signal
import time
import urllib.request
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate

import pytest
from confluent_kafka import Producer
from flow import Flow, Process, until

from schemas.batch import Source, build
from topics.catalogue import BATCHES

pytestmark = pytest.mark.broker


def backlog(flow: Flow, batches: int) -> None:
    """Publish so many batches of one record, evenly over all partitions."""
    producer = Producer(flow.kafka.confluent())
    for number in range(batches):
        record = b'{"n":%d,"record_type":"spot","run":"%d"}' % (number, time.monotonic_ns())
        one = build([(sha256(record).hexdigest(), record)])
        partition = number % BATCHES.partitions
        headers = one.headers(Source(partition, number, number, 1, "0"), [], ["spot"], 0)
        producer.produce(BATCHES.name, one.body, one.key, partition=partition, headers=headers)
        producer.poll(0)
    assert producer.flush(30) == 0


def owned(worker: Process) -> int:
    """Partitions that the worker has said it owns, last."""
    said = [json.loads(line) for line in worker.said.splitlines() if '"share"' in line]
    return said[-1]["owned"] if said else 0


def shared(workers: Sequence[Process]) -> bool:
    return sum(map(owned, workers)) == BATCHES.partitions and all(map(owned, workers))


def arrivals(flow: Flow) -> list[float]:
    with urllib.request.urlopen(f"{flow.lab.sandbox.url}/sandbox/requests") as answer:
        return sorted(json.loads(line)["at"] for line in answer)


def most_in(times: Sequence[float], window_s: float) -> int:
    """The most in any window."""
    firsts = accumulate(
        range(len(times)),
        lambda first, last: next(at for at in range(first, last + 1) if times[at] > times[last] - window_s),
        initial=0,
    )
    return max(last - first + 1 for last, first in enumerate(list(firsts)[1:]))


def keeps_and_uses(flow: Flow, per_minute: int, window_s: float, settled_s: float) -> None:
    """Three workers, one killed, one added; ``settled_s`` after each change a window counts as steady."""
    settings = {
        "DISPATCH__REQUESTS_PER_MINUTE": per_minute,
        "WORKER__SESSION_TIMEOUT_S": 6,
        "LOG__FORMAT": "json",
    }
    ceiling = per_minute * window_s / 60
    backlog(flow, int(per_minute / 60 * (4 * (settled_s + window_s) + 60)))
    began = time.time()
    workers = [flow.start("worker", "--role", "dispatch", **settings) for _ in range(3)]
    steady = []

    def settle() -> None:
        until(lambda: shared(workers), 60)
        time.sleep(settled_s + window_s)
        steady.append(time.time() - window_s)

    settle()
    workers.pop(1).end(signal.SIGKILL)
    settle()
    workers.append(flow.start("worker", "--role", "dispatch", **settings))
    settle()
    times = [at for at in arrivals(flow) if at >= began]
    most = most_in(times, window_s)
    used = [sum(start <= at < start + window_s for at in times) / ceiling for start in steady]
    print(f"ceiling {ceiling:g} in {window_s:g} s: {most} at the most, used {[f'{u:.1%}' for u in used]}")
    assert most <= ceiling
    assert min(used) >= 0.9
    assert flow.totals()["duplicates_booked"] == 0


@pytest.mark.timeout(170)
def test_the_ceiling_is_kept_and_used_while_workers_come_and_go(flow: Flow) -> None:
    keeps_and_uses(flow, 1800, window_s=8, settled_s=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_600_a_minute(flow: Flow) -> None:
    keeps_and_uses(flow, 600, window_s=60, settled_s=60)
