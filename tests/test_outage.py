"""Avstar is down for long while logs keep coming: validation goes on, all of it is booked once afterwards."""

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest
from flow import Flow, Process, until

from topics.catalogue import RAW, VALIDATED
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


def statuses(flow: Flow) -> Iterator[tuple[float, int]]:
    with urllib.request.urlopen(f"{flow.lab.sandbox.url}/sandbox/requests") as answer:
        for line in answer:
            told = json.loads(line)
            yield told["at"], told["status"]


def validated(flow: Flow) -> int:
    return sum(1 for topic in VALIDATED.values() for _ in read_all(flow.kafka, topic.name))


@pytest.mark.timeout(170)
def test_a_long_outage_while_logs_keep_coming(flow: Flow) -> None:
    worker = flow.start("worker", **SETTINGS)
    logs = [flow.log(3000, seed=70)]
    flow.tail(logs[0])
    flow.settle()
    flow.faults({"kind": "status", "status": 503}, {"kind": "reset"})
    began = time.time()
    for number in range(1, 7):
        logs.append(flow.log(3000, seed=70 + number))
        flow.tail(logs[-1])
        # Validation is up to date while nothing can be sent.
        until(lambda: not flow.behind("spotstream-validate", RAW.name), 15)
        if number == 3:
            second = flow.start("worker", "--role", "dispatch", **SETTINGS)  # a rebalance resumes everything
    assert validated(flow) == sum(sum(log.accepted.values()) for log in logs)
    until(lambda: "open" in states(worker), 20)
    until(lambda: time.time() - began > 20, 30)
    ended = time.time()
    tries = [at for at, status in statuses(flow) if began < at and status != 200]
    assert (
        len([at for at in tries if ended - 5 < at]) <= 2 * 5 / 0.5 + 4
    )  # a probe each half second, of each worker
    assert {letter.stage for _, letter, _ in flow.letters()} == {"validate"}
    assert flow.booked() == logs[0].accepted
    flow.faults()
    flow.settle(60)
    until(lambda: states(worker)[-1] == "closed" or not states(worker), 10)
    for log in logs:
        flow.check(log)
    assert flow.booked() == sum((log.accepted for log in logs), Counter())
    assert flow.totals()["duplicates_booked"] == 0
    assert worker.end(15) == 0
    assert second.end(15) == 0
