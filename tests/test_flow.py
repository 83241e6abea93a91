"""From a growing file to bookings, as processes on a lab: nothing lost, nothing booked twice."""

import random
import signal
import threading
import time
from collections import Counter

import pytest
from flow import until

from schemas.hashes import rejection_key

pytestmark = pytest.mark.broker

#: Small windows, quick rebalances.
HASTE = {"BATCH__SECONDS": 0.2, "WORKER__SESSION_TIMEOUT_S": 6}
SPREAD = {"TAIL__PARTITIONING": "block", "TAIL__BLOCK_BYTES": 32_768}


class Growth:
    """Lets a log grow to its whole length, cut anywhere, in about ``seconds``."""

    def __init__(self, log, seconds, pieces=200, seed=0):
        data = log.path.read_bytes()
        choose = random.Random(seed)
        cuts = sorted(choose.sample(range(1, len(data)), pieces - 1))
        self._pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        self._path, self._pause_s = log.path, seconds / pieces
        log.path.write_bytes(self._pieces.pop(0))
        self._thread = threading.Thread(target=self._grow, daemon=True)
        self._thread.start()

    def _grow(self):
        with self._path.open("ab", buffering=0) as stream:
            for piece in self._pieces:
                time.sleep(self._pause_s)
                stream.write(piece)

    def wait(self):
        self._thread.join(120)
        assert not self._thread.is_alive()


def finish(flow, log, timeout_s=90):
    """Have the rest of a log published, validated and dispatched."""
    flow.tail(log, **SPREAD)
    flow.settle(timeout_s)


def test_every_record_ends_somewhere_once(flow):
    """Bookings, validated records and dead letters are what an oracle makes of the file."""
    log = flow.log(20_000, seed=1)
    worker = flow.start("worker")
    flow.tail(log)
    flow.settle()
    audit = flow.check(log)
    assert audit["validated"] == audit["delivered"]
    assert flow.booked() == log.accepted
    assert flow.validated() == log.accepted
    rejected = {
        v.number: record for v, record in zip(log.verdicts, log.records, strict=True) if not v.placement_hash
    }
    letters = flow.letters(log)
    assert {letter.place.number: letter.original for _, letter, _ in letters} == rejected
    assert len(letters) == len(rejected)
    spoilt = log.faults
    for key, letter, headers in letters:
        place = letter.place
        assert key == rejection_key(bytes.fromhex(place.descriptor), place.offset, letter.original)
        assert log.path.read_bytes()[place.offset :].startswith(letter.original)
        assert (letter.stage, letter.reason) == ("validate", "invalid")
        assert spoilt[place.number] <= {reason["field"] for reason in letter.reasons}, letter
        assert all(reason["rule"] for reason in letter.reasons)
        assert headers["__connect.errors.topic"] == b"avion.raw"
        assert headers["__connect.errors.partition"] == b"%d" % place.partition
        assert headers["__connect.errors.offset"] == b"%d" % place.raw_offset
        assert letter.reasons[0]["rule"] in headers["__connect.errors.exception.message"].decode()
    assert worker.end(signal.SIGTERM) == 0


def test_a_third_of_all_requests_fails(flow):
    """Limits, errors, resets and lost answers delay batches; none is given up, no record booked twice."""
    flow.faults(
        {"kind": "status", "status": 429, "retry_after": 1, "probability": 0.09},
        {"kind": "status", "status": 503, "probability": 0.09},
        {"kind": "reset", "probability": 0.09},
        {"kind": "lost_answer", "probability": 0.09},
    )
    before = flow.totals()["requests"]
    log = flow.log(20_000, seed=2)
    flow.start("worker", **HASTE, DISPATCH__BACKOFF_CAP_S=1)
    growth = Growth(log, 8)
    tailer = flow.start("tail", log.path, TAIL__PARTITIONING="block", TAIL__BLOCK_BYTES=4096)
    growth.wait()
    tailer.end(signal.SIGTERM)
    finish(flow, log)
    assert flow.hits() >= max(3, 0.2 * (flow.totals()["requests"] - before))
    flow.check(log)
    assert flow.booked() == log.accepted
    assert not flow.listed("--kind", "batch", "--file", str(log.path))


def test_a_record_that_avstar_rejects_is_alone_in_the_dead_letters(flow):
    """207: the record's own bytes and place, whatever else was in its batch."""
    flow.faults({"kind": "reject", "record_probability": 0.01, "code": "no_contract"}, seed=3)
    log = flow.log(5000, seed=3)
    flow.start("worker", **HASTE)
    flow.tail(log)
    flow.settle()
    booked, accepted = flow.booked(), log.accepted
    refused = accepted - booked
    assert 10 < refused.total() < 100
    assert not booked - accepted
    flow.check(log, delivered=booked.total(), rejected=log.truth.bad + refused.total())
    letters = [found for found in flow.letters() if found[1].reason == "rejected"]
    assert Counter(letter.placement_hash for _, letter, _ in letters) == refused
    originals = dict(zip((v.placement_hash for v in log.verdicts), log.records, strict=True))
    numbers = {v.placement_hash: v.number for v in log.verdicts}
    listed = {letter["key"]: letter for letter in flow.listed("--reason", "rejected")}
    for key, letter, headers in letters:
        assert letter.original == originals[letter.placement_hash]
        assert letter.place.number == numbers[letter.placement_hash]
        assert log.path.read_bytes()[letter.place.offset :].startswith(letter.original)
        assert letter.reasons[0]["value"] == "no_contract"
        assert letter.exchange["status"] == 207
        assert headers["__connect.errors.topic"] == b"avion.raw"
        assert listed[key]["files"] == [str(log.path)]


@pytest.mark.parametrize(("status", "upload"), [(400, "json"), (422, "multipart")])
def test_a_refused_batch_costs_only_the_records_at_fault(flow, status, upload):
    """It is halved until they are alone; each is a dead letter, the others are booked."""
    log = flow.log(4000, seed=status)
    accepted = log.accepted
    guilty = random.Random(status).sample(sorted(accepted), 3)
    flow.faults({"kind": "status", "status": status, "hashes": guilty})
    flow.start("worker", **HASTE, BATCH__UPLOAD=upload)
    finish(flow, log)
    assert flow.booked() == accepted - Counter(guilty)
    flow.check(log, delivered=accepted.total() - 3, rejected=log.truth.bad + 3)
    letters = [letter for _, letter, _ in flow.letters() if letter.placement_hash in guilty]
    assert sorted(letter.placement_hash for letter in letters) == sorted(guilty)
    assert all(letter.exchange["status"] == status for letter in letters)
    assert upload.encode() in {headers["upload"] for _, headers in flow.batches()}


def test_a_batch_that_is_given_up_is_dead_lettered_whole(flow):
    """Where the settings say so; its records are accounted for, and it is kept to be sent as it was."""
    log = flow.log(4000, seed=10)
    guilty = min(log.accepted)
    flow.faults({"kind": "status", "status": 503, "hashes": [guilty]})
    flow.start("worker", **HASTE, DISPATCH__GIVE_UP_AFTER_ATTEMPTS=2)
    finish(flow, log)
    booked, accepted = flow.booked(), log.accepted
    lost = accepted - booked
    assert guilty in lost
    assert not booked - accepted
    flow.check(log, delivered=booked.total(), dead_lettered=lost.total())
    (found,) = [(key, letter) for key, letter, _ in flow.letters() if letter.reason == "gave_up"]
    key, letter = found
    assert letter.records == lost.total()
    assert letter.headers == {name: value.decode() for name, value in dict(flow.batches())[key].items()}


@pytest.mark.timeout(300)
def test_kills_lose_and_double_nothing(flow):
    """SIGKILL of the tailer, both roles and the supervisor at random moments while the log grows."""
    choose = random.Random(5)
    log = flow.log(60_000, seed=5)
    victims = ["tail"] * 10 + ["validate"] * 4 + ["dispatch"] * 4 + ["supervisor"] * 2
    choose.shuffle(victims)
    growth = Growth(log, 70, pieces=400, seed=5)
    tailer = flow.start("tail", log.path, **SPREAD)
    worker = flow.start("worker", **HASTE)
    for victim in victims:
        time.sleep(choose.uniform(0.5, 5.5) if victim != "tail" else choose.uniform(0.3, 2.5))
        if victim == "tail":
            tailer.end(signal.SIGKILL)
            tailer = flow.start("tail", log.path, **SPREAD)
        elif victim == "supervisor" or worker.popen.poll() is not None:
            worker.popen.kill()
            worker = flow.start("worker", **HASTE)
        else:
            until(lambda: worker.popen.poll() is not None or worker.role(victim), 15)  # noqa: B023
            if role := worker.role(victim):
                role.kill()
    growth.wait()
    tailer.end(signal.SIGTERM)
    if worker.popen.poll() is not None:
        worker = flow.start("worker", **HASTE)
    finish(flow, log)
    flow.check(log)
    assert flow.booked() == log.accepted
    assert worker.end(signal.SIGTERM) == 0


@pytest.mark.timeout(240)
def test_workers_join_stall_and_leave_while_a_log_grows(flow):
    """Two supervisors share the partitions; a role that was stopped past its session comes back, a zombie."""
    log = flow.log(40_000, seed=6)
    growth = Growth(log, 45, seed=6)
    flow.start("tail", log.path, **SPREAD)
    first = flow.start("worker", **HASTE)
    first.wait_for('"started"', 2)
    second = flow.start("worker", **HASTE)
    second.wait_for('"started"', 2)
    for name in ("validate", "dispatch"):
        zombie = first.role(name)
        zombie.suspend()
        time.sleep(9)
        zombie.resume()
        time.sleep(2)
    assert first.end(signal.SIGTERM) == 0
    third = flow.start("worker", **HASTE)
    third.wait_for('"started"', 2)
    assert second.end(signal.SIGTERM) == 0
    growth.wait()
    finish(flow, log)
    assert {headers["source-partition"] for _, headers in flow.batches()} == {b"%d" % p for p in range(8)}
    flow.check(log)
    assert flow.booked() == log.accepted
    assert third.end(signal.SIGTERM) == 0


@pytest.mark.timeout(240)
def test_the_broker_is_away_for_half_a_minute(flow):
    """Tailer and worker outlast an outage; what was under way is done once."""
    log = flow.log(20_000, seed=7)
    growth = Growth(log, 40, seed=7)
    tailer = flow.start("tail", log.path, **SPREAD)
    worker = flow.start("worker", **HASTE)
    worker.wait_for('"started"', 2)
    time.sleep(3)
    flow.lab.broker.stop()
    time.sleep(30)
    flow.lab.broker.start()
    growth.wait()
    assert tailer.popen.poll() is None
    assert worker.popen.poll() is None
    tailer.end(signal.SIGTERM)
    finish(flow, log)
    flow.check(log)
    assert flow.booked() == log.accepted
    assert worker.end(signal.SIGTERM) == 0


def test_a_worker_under_load_ends_within_ten_seconds(flow):
    """SIGTERM: what is in flight is finished or left to the next worker, exit status 0."""
    log = flow.log(30_000, seed=8, bad_rate=0)
    flow.tail(log)  # one partition, many batches: most of those behind a slow one end before it
    hashes = [verdict.placement_hash for verdict in log.verdicts]
    flow.faults(
        {"kind": "latency", "seconds": 1, "hashes": [hashes[2500]]},
        {"kind": "latency", "seconds": 12, "hashes": [hashes[5000]]},
    )
    before = flow.totals()["records"]
    worker = flow.start("worker", **HASTE, BATCH__RECORDS=2000)
    until(lambda: flow.totals()["records"] >= before + 25_000)
    began = time.monotonic()
    assert worker.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    flow.faults()
    flow.start("worker", **HASTE)
    flow.settle()
    flow.check(log)
    assert flow.booked() == log.accepted


def test_an_api_that_is_not_there_is_waited_for(flow):
    """Nothing is dead-lettered; SIGTERM still ends the worker in time; the next one delivers."""
    log = flow.log(2500, seed=9)
    worker = flow.start("worker", AVSTAR__BASE_URL="http://127.0.0.1:9", **HASTE)
    flow.tail(log)
    worker.wait_for("delivery_failed", 3)
    began = time.monotonic()
    assert worker.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    assert not flow.listed("--kind", "batch", "--file", str(log.path))
    flow.start("worker", **HASTE)
    flow.settle()
    flow.check(log)
    assert flow.booked() == log.accepted
