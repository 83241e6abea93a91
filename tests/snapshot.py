"""The state that a release leaves behind, kept: ``python tests/snapshot.py CHECKOUT SNAPSHOT``.

CHECKOUT is the release's. It is stopped in the middle of everything: files half read, records not validated,
batches not sent, dead letters of all sorts. :func:`load` puts the same on another broker, message by message,
at the same offsets: batches, receipts and letters name those.
"""

import gzip
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from streams.lab.generate import generate
from streams.lab.up import Lab
from topics.catalogue import BATCHES, CATALOGUE, DISPATCHING, DLQ, RAW, RECEIPTS, VALIDATED, VALIDATING
from topics.connection import KafkaSettings
from topics.reader import read_all

#: By file, how many records, the format, and how much of it the release sees.
FILES = {
    "growing.csv": (160, "csv", 0.6),
    "packed.csv.gz": (60, "csv", 1),
    "log.xml": (40, "xml", 1),
    "log.fixed": (40, "fixed", 1),
    "unsent.csv": (50, "csv", 1),
    "unread.tsv": (50, "tsv", 1),
}
GROUPS = {VALIDATING: RAW.name, DISPATCHING: BATCHES.name}


def content(name: str) -> bytes:
    """What the file holds in the end, not compressed. All records differ."""
    records, form, _ = FILES[name]
    seed = 77_000 + list(FILES).index(name)
    return b"".join(line.data for line in generate(records, seed, 0.05, form))  # type: ignore[arg-type]


def _wait(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


class _Release:
    """Runs the commands of a checkout on a lab."""

    def __init__(self, checkout: Path, lab: Lab, folder: Path) -> None:
        self._checkout, self._lab, self.folder = checkout, lab, folder
        self.kafka = KafkaSettings(bootstrap_servers=lab.broker.bootstrap)

    def start(self, *arguments: object, **settings: object) -> subprocess.Popen[bytes]:
        given = {"WORKER__WEB_PORT": 0, "BATCH__SECONDS": 0.3, "DLQ__FLOOD_SHARE": 1} | settings
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SPOTSTREAM_")}
        named = {f"SPOTSTREAM_{name}": str(value) for name, value in given.items()}
        return subprocess.Popen(
            [sys.executable, "-m", "streams.cli", *map(str, arguments)],
            env=ours | self._lab.environment | named | {"PYTHONPATH": str(self._checkout)},
            cwd=self.folder,
            stdout=subprocess.PIPE,
        )

    def run(self, *arguments: object) -> bytes:
        return self.start(*arguments).communicate(timeout=120)[0]

    def tail(self, name: str) -> None:
        form = FILES[name][1]
        profile = "avion" if form == "csv" else f"avion-{form}"
        assert self.start("tail", self.folder / name, "--once", "--profile", profile).wait(120) == 0

    def count(self, topic: str) -> int:
        return sum(1 for _ in read_all(self.kafka, topic))

    def settled(self) -> bool:
        """Whether everything on the raw topic has ended, as the release's own audit says."""
        return not json.loads(self.run("audit", "--json"))["missing"]

    def faults(self, *faults: dict[str, Any]) -> None:
        data = json.dumps({"seed": 1, "faults": faults}).encode()
        url = f"{self._lab.sandbox.url}/sandbox/faults"
        urllib.request.urlopen(urllib.request.Request(url, data=data, method="PUT")).close()


def _play(release: _Release) -> None:
    for name, (_, _, share) in FILES.items():
        data = content(name)
        data = data[: int(len(data) * share)]
        (release.folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    worker = release.start("worker", DISPATCH__GIVE_UP_AFTER_ATTEMPTS=2)
    release.faults({"kind": "reject", "record_probability": 0.04})
    growing = release.start("tail", release.folder / "growing.csv")
    _wait(lambda: release.count(RAW.name) > 85)
    growing.terminate()
    assert growing.wait(30) == 0
    release.tail("packed.csv.gz")
    release.tail("log.fixed")
    _wait(release.settled)
    release.faults({"kind": "status", "status": 503, "count": 2})
    release.tail("log.xml")
    _wait(release.settled)
    worker.terminate()
    assert worker.wait(30) == 0
    worker = release.start("worker", "--role", "validate")
    before = release.count(BATCHES.name)
    release.tail("unsent.csv")
    _wait(lambda: release.count(BATCHES.name) > before)
    worker.terminate()
    assert worker.wait(30) == 0
    release.tail("unread.tsv")


def make(checkout: Path, path: Path) -> None:
    """Run the release and write down what it leaves."""
    with tempfile.TemporaryDirectory() as temporary, Lab(Path(temporary) / "lab") as lab:
        folder = Path(temporary) / "logs"
        folder.mkdir()
        release = _Release(checkout, lab, folder)
        _play(release)
        state = _state(release, lab)
    assert complete(state)
    text = json.dumps(state, sort_keys=True, ensure_ascii=False).encode()
    path.write_bytes(lzma.compress(text, preset=9))
    print(f"{path}: {path.stat().st_size:,} bytes")


def _state(release: _Release, lab: Lab) -> dict[str, Any]:
    topics: dict[str, list[Any]] = {topic.name: [] for topic in CATALOGUE}
    for name, messages in topics.items():
        for message in read_all(release.kafka, name):
            headers = [(header, _text(value)) for header, value in message.headers() or ()]
            place = message.partition(), message.offset()
            messages.append([*place, _text(message.key()), _text(message.value()), headers])
        messages.sort(key=lambda message: message[:2])
    with urllib.request.urlopen(f"{lab.sandbox.url}/sandbox/ledger/records") as answer:
        booked = [json.loads(line)["idempotency_key"] for line in answer]
    audit = json.loads(release.run("audit", "--json"))
    return {
        "topics": topics,
        "groups": {group: _positions(release.kafka, group, topic) for group, topic in GROUPS.items()},
        "schemas": _schemas(lab),
        "booked": booked,
        "audit": {name: number for name, number in audit.items() if isinstance(number, int)},
    }


def _positions(kafka: KafkaSettings, group: str, topic: str) -> list[list[Any]]:
    consumer = Consumer(kafka.confluent(group_id=group, enable_auto_commit=False))
    try:
        wanted = [TopicPartition(topic, at) for at in consumer.list_topics(topic).topics[topic].partitions]
        found = consumer.committed(wanted, 30)
        return [[at.partition, at.offset, at.metadata or ""] for at in found if at.offset >= 0]
    finally:
        consumer.close()


def _schemas(lab: Lab) -> dict[str, list[Any]]:
    """By subject: the id, and the schema."""
    found = {}
    for topic in VALIDATED.values():
        subject = f"{topic.name}-value"
        with urllib.request.urlopen(f"{lab.registry.url}/subjects/{subject}/versions/latest") as answer:
            said = json.loads(answer.read())
        found[subject] = [said["id"], said["schema"]]
    return found


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("latin-1")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


def load(path: Path, lab: Lab) -> dict[str, Any]:
    """Put the state on a lab that is empty; gives it."""
    state: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    for _, (subject, (number, schema)) in sorted(
        (of[0], (name, of)) for name, of in state["schemas"].items()
    ):
        data = json.dumps({"schema": schema, "schemaType": "AVRO"}).encode()
        request = urllib.request.Request(
            f"{lab.registry.url}/subjects/{subject}/versions", data=data, method="POST"
        )
        request.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        with urllib.request.urlopen(request) as answer:
            assert json.loads(answer.read())["id"] == number
    producer = Producer({"bootstrap.servers": lab.broker.bootstrap, "transactional.id": "snapshot"})
    producer.init_transactions(30)
    for topic, messages in state["topics"].items():
        by_partition: dict[int, list[Any]] = defaultdict(list)
        for message in messages:
            by_partition[message[0]].append(message)
        for partition, found in by_partition.items():
            _write(producer, topic, partition, found)
    admin = AdminClient({"bootstrap.servers": lab.broker.bootstrap})
    for group, positions in state["groups"].items():
        places = [TopicPartition(GROUPS[group], at, offset, text) for at, offset, text in positions]
        _wait(partial(_committed, admin, ConsumerGroupTopicPartitions(group, places)))
    return state


def _committed(admin: AdminClient, positions: ConsumerGroupTopicPartitions) -> bool:
    """Whether the broker took them; a new one has no coordinator for a moment."""
    (asked,) = admin.alter_consumer_group_offsets([positions]).values()
    try:
        return all(at.error is None for at in asked.result(30).topic_partitions)
    except KafkaException:
        return False


def _write(producer: Producer, topic: str, partition: int, messages: list[Any]) -> None:
    """A partition's messages, at their offsets: where some are left out, the end of a transaction stands.

    Of a compacted topic there may be more missing; nobody names offsets of those.
    """
    exact = topic in (RAW.name, BATCHES.name)
    producer.begin_transaction()
    for message, following in pairwise([*messages, None]):
        _, offset, key, value, headers = message
        given = [(name, _bytes(text)) for name, text in headers]

        def check(error: Any, sent: Any, offset: int = offset) -> None:
            assert error is None, error
            assert not exact or sent.offset() == offset, (topic, partition, sent.offset(), offset)

        producer.produce(topic, _bytes(value), _bytes(key), partition, headers=given, on_delivery=check)
        if following and exact and following[1] != offset + 1:
            assert following[1] == offset + 2, "more than the end of a transaction is missing"
            producer.commit_transaction(30)
            producer.begin_transaction()
    producer.commit_transaction(30)


def complete(state: dict[str, Any]) -> bool:
    """Whether it has something of everything, or it would show little."""
    letters = [json.loads(_bytes(message[3]) or b"{}") for message in state["topics"][DLQ.name]]
    receipts = state["topics"][RECEIPTS.name]
    return bool(receipts) and {"invalid", "rejected", "gave_up"} <= {
        letter.get("reason") for letter in letters
    }


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute(), Path(sys.argv[2]))
