"""Replay on a lab: whatever is sent again, nothing is booked twice, and an interruption costs nothing."""

import json
import signal
import subprocess
from collections import Counter

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from flow import COMMAND, until

from schemas.letter import Receipt
from topics.catalogue import BATCHES, RAW, RECEIPTS
from topics.reader import read_all

pytestmark = pytest.mark.broker

HASTE = {"BATCH__SECONDS": 0.2, "WORKER__SESSION_TIMEOUT_S": 6}
SPREAD = {"TAIL__PARTITIONING": "block", "TAIL__BLOCK_BYTES": 8192}


def replay(flow, *arguments):
    """Exit status, what it printed as JSON, what it said on stderr."""
    done = subprocess.run(
        [*COMMAND, "replay", "--json", *map(str, arguments)],
        env=flow.environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def empty(flow, topic):
    """As retention would, in the end."""
    admin = AdminClient(flow.kafka.confluent())
    partitions = [TopicPartition(topic, at) for at in admin.list_topics(topic).topics[topic].partitions]
    asked = admin.list_offsets(dict.fromkeys(partitions, OffsetSpec.latest()))
    ends = [TopicPartition(topic, at.partition, found.result(15).offset) for at, found in asked.items()]
    for found in admin.delete_records(ends).values():
        found.result(15)


def replayed(flow, path):
    """How often each batch was settled for a replay."""
    receipts = [
        Receipt.model_validate_json(message.value()) for message in read_all(flow.kafka, RECEIPTS.name)
    ]
    return Counter(receipt.batch_id for receipt in receipts if receipt.replay)


@pytest.fixture(scope="module")
def day(lab, tmp_path_factory):
    """A log that was booked: a record was rejected out of some batches. Gives its path and flow."""
    from flow import Flow

    with Flow(lab, tmp_path_factory.mktemp("day")) as flow:
        log = flow.log(3000, seed=1)
        flow.faults({"kind": "reject", "record_probability": 0.01}, seed=1)
        worker = flow.start("worker", **HASTE)
        flow.tail(log, **SPREAD)
        flow.settle()
        assert worker.end(signal.SIGTERM) == 0
        return log


def test_a_day_sent_again_books_nothing(flow, day):
    flow.start("worker", **HASTE)
    batches = flow.batches()
    before, audit = flow.totals(), flow.audit(day)[1]
    status, dry, _ = replay(flow, "--since", "1d", "--dry-run")
    assert status == 0
    assert dry["batches"] == len(batches)
    assert flow.totals() == before
    status, found, _ = replay(flow, "--since", "1d")
    assert status == 0
    assert (found["batches"], found["records"]) == (dry["batches"], dry["records"])
    assert found["taken"] == audit["delivered"]
    after = flow.totals()
    assert (after["records"], after["batches"]) == (before["records"], before["batches"])
    assert after["requests"] == before["requests"] + len(batches)
    again = flow.audit(day)[1]
    assert {name: again[name] for name in again if name != "seconds"} == {
        name: audit[name] for name in audit if name != "seconds"
    }
    assert len(flow.listed("--reason", "rejected")) == audit["rejected"] - day.truth.bad


def test_spans_files_and_kinds_pick_batches(flow, day):
    sources = [headers for _, headers in flow.batches() if b"replay" not in str(headers).encode()]
    one = sources[len(sources) // 2]
    first, partition = int(one["source-first"]), int(one["source-partition"])
    span = f"{partition}:{first}-{first}"
    holds = 1 if one["source-offsets"].startswith(b"0") else 0
    assert replay(flow, "--offsets", span, "--dry-run")[1]["batches"] == holds
    with_bills = {h["source-first"] + h["source-partition"] for h in sources if b"billing" in h["kinds"]}
    found = replay(flow, "--since", "1d", "--kind", "billing", "--file", day.path.name, "--dry-run")[1][
        "batches"
    ]
    assert found == len(with_bills)
    assert flow.run("replay", "--since", "1d", "--file", "none.csv")[0] == 1


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_partition_that_there_is_not_is_refused(flow, dry):
    status, said = flow.run("replay", "--offsets", "0:1-2", "--offsets", "99:0-5", *dry)
    assert status == 2
    assert "--offsets: avion.raw has no partition 99; they are 0 to 7" in said


def test_an_interrupted_replay_goes_on_where_it_stopped(flow, day):
    before = replayed(flow, day.path)
    batches = len(flow.batches())
    first = flow.start("replay", "--since", "5h")
    until(lambda: len(flow.batches()) > batches or first.popen.poll() is not None)
    assert first.end(signal.SIGINT) == 1, first.said  # no worker takes any: it waits
    handed_over = len(flow.batches()) - batches
    assert "interrupted" in first.said
    flow.start("worker", **HASTE)
    status, found, said = replay(flow, "--since", "5h")
    assert status == 0
    assert "going on" in said
    flow.settle()
    all_of_them = replayed(flow, day.path) - before
    assert set(all_of_them.values()) == {1}
    assert found["batches"] == len(all_of_them) - handed_over
    assert replay(flow, "--since", "5h", "--dry-run")[2] == ""


def test_batches_that_are_gone_are_rebuilt_and_refused_when_their_records_are_gone(flow, day):
    flow.start("worker", **HASTE)
    audit, before = flow.audit(day)[1], flow.totals()
    keys = {key for key, _ in flow.batches()}
    empty(flow, BATCHES.name)
    status, found, _ = replay(flow, "--since", "3h")
    assert status == 0
    assert {key for key, _ in flow.batches()} == keys
    assert (found["batches"], found["taken"]) == (len(keys), audit["delivered"])
    assert (flow.totals()["batches"], flow.totals()["records"]) == (before["batches"], before["records"])
    flow.check(day, delivered=audit["delivered"], rejected=audit["rejected"])
    empty(flow, BATCHES.name)
    empty(flow, RAW.name)
    status, found, _ = replay(flow, "--since", "3h")
    assert status == 1
    assert (found["batches"], len(found["refused"])) == (0, len(keys))
    assert "no longer kept" in found["refused"][0]["why"]


def test_what_could_not_be_sent_before_an_interruption_is_not_forgotten(flow, day):
    empty(flow, BATCHES.name)
    empty(flow, RAW.name)
    worker = flow.start("worker", **HASTE)
    flow.tail(flow.log(300, seed=9), **SPREAD)
    flow.settle()
    assert worker.end(signal.SIGTERM) == 0
    status, dry, _ = replay(flow, "--since", "4h", "--dry-run")
    assert status == 1
    assert dry["refused"]
    kept = len(flow.batches())
    first = flow.start("replay", "--since", "4h")
    until(lambda: len(flow.batches()) > kept or first.popen.poll() is not None)
    first.wait_for("cannot be sent again", len(dry["refused"]))
    assert first.end(signal.SIGINT) == 1, first.said  # no worker takes any: it waits
    flow.start("worker", **HASTE)
    status, found, _ = replay(flow, "--since", "4h")
    assert status == 1
    assert found["refused_before"] + len(found["refused"]) == len(dry["refused"])
    assert found["refused_before"]
    status, found, _ = replay(flow, "--since", "4h", "--dry-run")
    assert found["refused_before"] == 0
