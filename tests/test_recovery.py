"""What went wrong, mended: halves, dead letters sent again or discarded, batches sent again; on a lab."""

from collections import Counter

import pytest
from flow import until

from schemas.letter import Receipt
from topics.catalogue import DLQ, RECEIPTS, VALIDATED
from topics.reader import read_all

pytestmark = pytest.mark.broker

HASTE = {"BATCH__SECONDS": 0.2, "WORKER__SESSION_TIMEOUT_S": 6}
SPREAD = {"TAIL__PARTITIONING": "block", "TAIL__BLOCK_BYTES": 32_768}


def receipts(flow, key):
    found = [m for m in read_all(flow.kafka, RECEIPTS.name) if m.key() == key.encode()]
    return [Receipt.model_validate_json(message.value()) for message in found]


def validated(flow):
    """How many records the validated topics hold."""
    return sum(1 for topic in VALIDATED.values() for _ in read_all(flow.kafka, topic.name))


def redrive(flow, *arguments):
    status, said = flow.run("dlq", "redrive", *arguments)
    assert status == 0, said
    flow.settle()


@pytest.mark.parametrize(("names", "most"), [(True, 2), (False, 60)])
def test_a_batch_of_5000_with_three_poison_records(flow, names, most):
    log = flow.log(5000, seed=50 + names, bad_rate=0)
    poison = dict.fromkeys(list(log.accepted)[1000:4000:1000], 1)
    faults = [
        {"kind": "status", "status": 422, "hashes": [one], "message": f"no contract {at}", "names": names}
        for at, one in enumerate(poison)
    ]
    if names:  # one answer names them all
        faults = [faults[0] | {"hashes": list(poison), "message": "no contract"}]
    flow.faults(*faults)
    requests = flow.totals()["requests"]
    flow.start("worker", BATCH__SECONDS=20)
    flow.tail(log)
    flow.settle()
    assert flow.totals()["requests"] - requests <= most
    assert flow.booked() == log.accepted - Counter(poison)
    flow.check(log, delivered=4997, rejected=3)
    letters = flow.listed("--reason", "rejected", "--file", str(log.path))
    assert len(letters) == 3
    assert len({letter["what"] for letter in letters}) == (1 if names else 3)
    assert all("no contract" in letter["what"] for letter in letters)


def test_all_dead_letters_are_redriven_when_the_fault_is_gone(flow):
    """Batches that were given up and records that Avstar rejected; validation's rejections stay."""
    log = flow.log(6000, seed=60)
    flow.faults(
        {"kind": "status", "status": 500, "probability": 0.3},
        {"kind": "reject", "record_probability": 0.02, "code": "no_contract"},
        seed=6,
    )
    flow.start("worker", **HASTE, DISPATCH__GIVE_UP_AFTER_ATTEMPTS=1, BREAKER__MINIMUM_CALLS=100_000)
    flow.tail(log, **SPREAD)
    flow.settle()
    before = len(flow.listed())
    _, audit = flow.audit(log)
    dead, refused = audit["dead_lettered"], audit["rejected"] - log.truth.bad
    assert dead > 0
    assert refused > 0
    flow.check(log, delivered=audit["delivered"], rejected=audit["rejected"], dead_lettered=dead)
    published = validated(flow)
    redrive(flow, "--all", "--dry-run")
    batch = flow.listed("--kind", "batch")[0]["key"]
    for option in (("--edit", log.path), ("--profile", "avion")):
        status, said = flow.run("dlq", "redrive", batch, *option)
        assert (status, "a batch is sent as it was" in said) == (2, True), said
    assert len(flow.listed()) == before
    flow.faults()
    redrive(flow, "--all")
    flow.check(log)
    booked = flow.booked()  # with what other tests' letters held
    assert not log.accepted - booked
    assert set(booked.values()) == {1}
    assert validated(flow) == published
    left = flow.listed("--file", str(log.path))
    assert len(left) == log.truth.bad
    assert {letter["stage"] for letter in left} == {"validate"}
    assert not flow.listed("--kind", "batch")
    assert not [letter for letter in left if letter["under_way"]]
    mend_and_discard(flow, log, left, published)


def mend_and_discard(flow, log, left, published):
    first, second = left[:2]
    fresh = flow.log(1, seed=61, bad_rate=0)
    row = flow.folder / "row"
    row.write_bytes(fresh.path.read_bytes().splitlines(keepends=True)[-1])
    redrive(flow, first["key"], "--edit", row)
    status, said = flow.run("dlq", "discard", second["key"], "--why", "a test record")
    assert status == 0, said
    assert flow.run("dlq", "discard", second["key"], "--why", "again")[0] == 1
    flow.check(log, delivered=log.truth.records - log.truth.bad + 1, rejected=log.truth.bad - 1)
    assert not log.accepted + fresh.accepted - flow.booked()
    assert flow.totals()["duplicates_booked"] == 0
    assert validated(flow) == published + 1
    assert {letter["key"] for letter in flow.listed("--file", str(log.path))} == {
        letter["key"] for letter in left[2:]
    }
    (receipt,) = receipts(flow, second["key"])
    assert (receipt.status, receipt.why) == ("discarded", "a test record")


def test_a_batch_of_which_every_record_was_rejected_is_booked_when_it_is_redriven(flow):
    """Avstar has an answer to its key, which it would give again."""
    log = flow.log(40, seed=75, bad_rate=0)
    flow.faults({"kind": "reject", "record_probability": 1.0, "code": "no_contract"}, seed=7)
    flow.start("worker", **HASTE, DLQ__FLOOD_REFUSED=0)
    flow.tail(log)
    flow.settle()
    flow.check(log, delivered=0, rejected=40)
    flow.faults()
    redrive(flow, "--reason", "rejected")
    flow.check(log)
    assert flow.booked() == log.accepted


def test_a_redrive_that_fails_renews_the_letters_and_is_capped(flow):
    log = flow.log(2000, seed=70, bad_rate=0)
    flow.faults({"kind": "reject", "record_probability": 0.01, "code": "no_contract"}, seed=7)
    flow.start("worker", **HASTE)
    flow.tail(log, **SPREAD)
    flow.settle()
    letters = {letter["key"]: letter for letter in flow.listed("--file", str(log.path))}
    assert len(letters) > 5
    for times in (1, 2):
        status, said = flow.run("dlq", "redrive", "--reason", "rejected", DLQ__MAX_REDRIVES=2)
        assert status == 0, said
        flow.settle()
        again = {letter["key"]: letter for letter in flow.listed("--file", str(log.path))}
        assert again.keys() == letters.keys()
        assert {letter["retry_count"] for letter in again.values()} == {times}
        assert all(again[key]["last_failure"] > letters[key]["last_failure"] for key in letters)
        flow.check(log, delivered=2000 - len(letters), rejected=len(letters))
    flow.faults()
    requests = flow.totals()["requests"]
    key = next(iter(letters))
    assert flow.run("dlq", "redrive", key, DLQ__MAX_REDRIVES=2)[0] == 1
    assert flow.totals()["requests"] == requests
    redrive(flow, "--reason", "rejected")
    flow.check(log)
    assert flow.booked() == log.accepted


def test_letters_of_a_redrive_under_way_are_left_alone(flow):
    log = flow.log(500, seed=80, bad_rate=0)
    flow.faults({"kind": "reject", "record_probability": 0.1}, seed=8)
    worker = flow.start("worker", **HASTE)
    flow.tail(log)
    flow.settle()
    flow.faults()
    assert worker.end(15) == 0
    letters = flow.listed("--file", str(log.path))
    first = flow.run("dlq", "redrive", "--all")
    batches = len(flow.batches())
    second = flow.run("dlq", "redrive", "--all")
    assert first[0] == second[0] == 0
    assert len(flow.batches()) == batches
    assert all(letter["under_way"] for letter in flow.listed("--file", str(log.path)))
    assert flow.run("dlq", "discard", letters[0]["key"], "--why", "w")[0] == 1
    flow.start("worker", **HASTE)
    flow.settle()
    assert not flow.listed("--file", str(log.path))
    assert flow.booked() == log.accepted
    flow.check(log)


def test_a_letter_in_parts_is_one(flow):
    """Parts are listed as one, redriven as one, and end together."""
    from confluent_kafka import Producer

    from schemas.parts import split
    from streams.recovery import letters

    log = flow.log(1000, seed=90, bad_rate=0)
    flow.faults({"kind": "status", "status": 500})
    worker = flow.start("worker", **HASTE, DISPATCH__GIVE_UP_AFTER_ATTEMPTS=1, BREAKER__MINIMUM_CALLS=100_000)
    flow.tail(log)
    flow.settle()
    flow.faults()
    assert worker.end(15) == 0
    listed = flow.listed("--kind", "batch")
    assert listed
    producer = Producer(flow.kafka.confluent(partitioner="murmur2_random"))
    for stored in letters.index(flow.kafka):
        if stored.said["kind"] == "batch":
            letter = letters.load(flow.kafka, [stored])[stored.key]
            parts = split(stored.key, letter, len(letter.dump()) // 2)
            assert len(parts) > 2
            producer.produce(DLQ.name, None, stored.key)
            for key, part in parts:
                producer.produce(DLQ.name, part.dump(), key)
    producer.flush()
    assert flow.listed("--kind", "batch") == listed
    flow.start("worker", **HASTE)
    redrive(flow, "--all")
    assert not flow.listed("--kind", "batch")
    latest = {m.key(): m.value() for m in read_all(flow.kafka, DLQ.name)}
    assert not [key for key, value in latest.items() if b"/" in key and value is not None]
    flow.check(log)
    assert flow.booked() == log.accepted


def test_a_flood_of_rejections_holds_until_somebody_says_go_on(flow):
    log = flow.log(6000, seed=95, bad_rate=0.9)
    worker = flow.start("worker", **HASTE, DLQ__FLOOD_RECORDS=2000)
    flow.tail(log)
    worker.wait_for("flood guard")
    assert worker.end(15) == 0
    held = len(flow.listed("--file", str(log.path)))
    assert held < 2000 + 5000 * 0.9
    flow.start("worker", **HASTE, DLQ__FLOOD_SHARE=1)
    flow.settle()
    flow.check(log)
    assert len(flow.listed("--file", str(log.path))) == log.truth.bad > held


def test_a_rebalance_lets_no_more_of_a_flood_on(flow):
    """A partition that is kept or comes back is held; the other worker holds it at its first window."""
    log = flow.log(10_000, seed=96, bad_rate=0.9)
    small = HASTE | {"BATCH__RECORDS": 2000}
    one = flow.start("worker", "--role", "validate", **small, DLQ__FLOOD_RECORDS=4000)
    flow.tail(log)
    one.wait_for("flood guard")
    letters = len(flow.listed("--file", str(log.path)))
    other = flow.start("worker", "--role", "validate", **small, DLQ__FLOOD_RECORDS=1)

    def held():
        return (one.said + other.said).count("flood guard")

    until(lambda: held() > 1)
    before = held()
    assert other.end(15) == 0
    until(lambda: held() > before)
    assert one.end(15) == 0
    assert len(flow.listed("--file", str(log.path))) == letters
    flow.start("worker", **HASTE, DLQ__FLOOD_SHARE=1)  # else it holds the next test's records, too
    flow.settle()
    flow.check(log)
