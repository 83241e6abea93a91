"""Partitions are added while the flow runs: files stay where they are, nothing is lost or booked twice."""

import signal
from collections import defaultdict

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from flow import Flow, Log, until

from schemas.rawkey import RawKey
from streams.lab.generate import generate, write
from topics.catalogue import BATCHES, CATALOGUE, RAW, VALIDATED
from topics.provision import require
from topics.reader import read_all

pytestmark = pytest.mark.broker

GROWN = 12


def places(flow: Flow) -> dict[bytes, list[tuple[int, int]]]:
    """By descriptor: partition and record number of each raw record, as they lie in their partitions."""
    found: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for message in read_all(flow.kafka, RAW.name):
        key = RawKey.unpack(message.key() or b"")
        found[key.descriptor].append((message.partition(), key.number))
    return found


def test_files_keep_their_partition_and_new_ones_spread(flow: Flow) -> None:
    whole = flow.log(3000, seed=61)
    text, path = whole.path.read_bytes(), whole.path
    path.write_bytes(text[: len(text) // 2])
    settings = {"KAFKA__PARTITIONS": GROWN, "KAFKA__VALIDATED_PARTITIONS": GROWN, "BATCH__SECONDS": 0.2}
    worker = flow.start("worker", **settings)
    tail = flow.start("tail", path, **settings)
    until(flow.booked)
    (descriptor,) = places(flow)
    status, said = flow.run("topics", "apply", "--allow", "partitions", **settings)
    assert status == 0, said
    assert flow.run("topics", "plan", **settings)[0] == 0
    known = AdminClient(flow.kafka.confluent()).list_topics(timeout=15).topics
    grown = {topic.name for topic in CATALOGUE if len(known[topic.name].partitions) == GROWN}
    assert grown == {RAW.name, BATCHES.name, *(topic.name for topic in VALIDATED.values())}
    with path.open("ab") as stream:
        stream.write(text[len(text) // 2 :])
    until(lambda: len(places(flow)[descriptor]) == len(whole.records))
    tail.end(signal.SIGTERM)
    others = [other(flow, number) for number in range(24)]
    # A tailer that starts knows the new partitions…
    status, said = flow.run("tail", *(log.path for log in others), "--once", **settings)
    assert status == 0, said
    worker.end(signal.SIGTERM)
    worker = flow.start("worker", **settings)  # …and so does a worker
    flow.settle()
    found = places(flow)
    first = found.pop(descriptor)
    assert len({partition for partition, _ in first}) == 1
    assert [number for _, number in first] == list(range(1, len(first) + 1)), "in order, each once"
    assert max(partition for spots in found.values() for partition, _ in spots) >= 8, "new ones are used"
    assert {len({p for p, _ in spots}) for spots in found.values()} == {1}
    batches = {message.partition() for message in read_all(flow.kafka, BATCHES.name)}
    assert max(batches) >= 8
    status, audit = flow.audit()
    assert (status, audit["missing"], audit["duplicates"]) == (0, 0, 0)
    assert audit["records"] == len(whole.records) + 24 * 20
    worker.end(signal.SIGTERM)


def other(flow: Flow, number: int) -> Log:
    """A log whose descriptor is its own, because its path is."""
    path = flow.folder / f"other-{number}.csv"
    with path.open("wb") as stream:
        truth = write(stream, list(generate(20, 1000 + number, 0)))
    return Log(path, truth, {})


def test_a_raw_topic_that_was_grown_by_hand_is_refused_until_batches_follow(flow: Flow) -> None:
    admin = AdminClient(flow.kafka.confluent())
    wanted = len(admin.list_topics(timeout=15).topics[RAW.name].partitions) + 1
    admin.create_partitions([NewPartitions(RAW.name, wanted)])[RAW.name].result(15)
    until(lambda: len(admin.list_topics(timeout=15).topics[RAW.name].partitions) == wanted)
    status, said = flow.run("worker")
    assert status == 1
    assert f"{BATCHES.name} has {wanted - 1} partitions" in said
    assert "topics apply --allow partitions" in said
    assert flow.run("topics", "apply", "--allow", "partitions")[0] == 0
    assert len(admin.list_topics(timeout=15).topics[BATCHES.name].partitions) == wanted
    require(flow.kafka)
