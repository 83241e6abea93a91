"""From a growing file to bookings, as processes on a lab: nothing lost, nothing booked twice."""

import pytest

pytestmark = pytest.mark.broker


def test_every_record_ends_somewhere_once(flow):
    log = flow.log(20_000, seed=1)
    worker = flow.start("worker")
    flow.tail(log)
    flow.settle()
    flow.check(log)
    assert flow.booked() == log.accepted
    assert worker.end(15) == 0
