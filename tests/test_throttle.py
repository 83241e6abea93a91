"""Several workers on a lab: an outage that lasts, and the account's ceiling while workers come and go."""

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
from topics.catalogue import BATCHES, VALIDATED
from topics.reader import read_all

pytestmark = pytest.mark.broker

#: An hour is as ten seconds: the breaker's minute is one, its pause a fifth.
SETTINGS = {
    "BREAKER__WINDOW_S": 2,
    "BREAKER__OPEN_S": 0.5,
    "BREAKER__MINIMUM_CALLS": 5,
    "BATCH__SECONDS": 0.2,
    "DISPATCH__BACKOFF_CAP_S": 1,
    "LOG__FORMAT": "json",
}


def states(worker: Process) -> list[str]:
    """What the breaker became, in order."""
    return [json.loads(line)["state"] for line in worker.said.splitlines() if '"breaker"' in line]


def arrivals(flow: Flow) -> list[tuple[float, int]]:
    """When requests came, and the status of their answers, in order."""
    with urllib.request.urlopen(f"{flow.lab.sandbox.url}/sandbox/requests") as answer:
        return [(told["at"], told["status"]) for told in map(json.loads, answer)]


def validated(flow: Flow) -> int:
    return sum(1 for topic in VALIDATED.values() for _ in read_all(flow.kafka, topic.name))


@pytest.mark.timeout(300)
def test_a_long_outage_while_a_log_grows(flow: Flow) -> None:
    log = flow.log(3000, seed=70)
    content = log.path.read_bytes()
    parts = [content[at : at + len(content) // 8] for at in range(0, len(content), len(content) // 8)]
    log.path.write_bytes(parts[0])
    worker = flow.start("worker", **SETTINGS)
    tail = flow.start("tail", log.path)
    until(lambda: flow.booked().total() > 100, 120)
    flow.faults({"kind": "status", "status": 503}, {"kind": "reset"})
    booked = flow.booked()
    began = time.time()
    with log.path.open("ab", buffering=0) as growing:
        for number, part in enumerate(parts[1:]):
            growing.write(part)
            if number == 2:  # a rebalance, which resumes whatever was paused
                second = flow.start("worker", "--role", "dispatch", **SETTINGS)
            time.sleep(2)
    # What was validated is up to date while nothing can be sent.
    until(lambda: validated(flow) == log.accepted.total(), 20, every_s=0.5)
    until(lambda: "open" in states(worker) + states(second) and time.time() - began > 20)
    ended = time.time()
    tries = [at for at, status in arrivals(flow) if ended - 5 < at and status != 200]
    assert len(tries) <= 2 * 5 / 0.5 + 4  # a probe each half second, of each worker
    assert {letter.stage for _, letter, _ in flow.letters()} == {"validate"}
    assert flow.booked() == booked
    flow.faults()
    flow.settle(60)
    flow.check(log)
    assert flow.booked() == log.accepted
    assert flow.totals()["duplicates_booked"] == 0
    assert [process.end(signal.SIGTERM) for process in (tail, worker, second)] == [0, 0, 0]


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
        until(lambda: shared(workers), 90)
        time.sleep(settled_s + window_s)
        steady.append(time.time() - window_s)

    settle()
    workers.pop(1).end(signal.SIGKILL)
    settle()
    workers.append(flow.start("worker", "--role", "dispatch", **settings))
    settle()
    times = [at for at, _ in arrivals(flow) if at >= began]
    most = most_in(times, window_s)
    used = [sum(start <= at < start + window_s for at in times) / ceiling for start in steady]
    print(f"ceiling {ceiling:g} in {window_s:g} s: {most} at the most, used {[f'{u:.1%}' for u in used]}")
    assert most <= ceiling
    assert min(used) >= 0.9
    assert flow.totals()["duplicates_booked"] == 0


@pytest.mark.timeout(170)
def test_the_ceiling_is_kept_and_used_while_workers_come_and_go(flow: Flow) -> None:
    keeps_and_uses(flow, 1800, window_s=6, settled_s=1.5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_600_a_minute(flow: Flow) -> None:
    keeps_and_uses(flow, 600, window_s=60, settled_s=60)
