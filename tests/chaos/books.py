"""What must have come of the files, by the oracle; nothing of the product is imported.

The source files as they lie there in the end, the sandbox's ledger over HTTP and the dead letters as JSON on
their topic are all that is read.
"""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition
from oracle import frame, verdicts


class Books(NamedTuple):
    """Of all source files: accepted placement hashes, and the bytes of the records that are rejected."""

    accepted: Counter[str]
    rejected: Counter[bytes]
    originals: dict[str, bytes]  #: by placement hash

    @property
    def records(self) -> int:
        """How many there are."""
        return self.accepted.total() + self.rejected.total()


def keep(folders: list[tuple[Path, str]]) -> Books:
    """Read all files of these folders, which are of these formats.

    Of those that are the same all but one are copies, as a move that was broken off leaves them.
    """
    books, seen = Books(Counter(), Counter(), {}), set[bytes]()
    for folder, form in folders:
        for path in sorted(folder.glob("[!.]*")):  # hidden are parts of copies
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if data not in seen:
                seen.add(data)
                enter(books, data, form)
    return books


def enter(books: Books, data: bytes, form: str) -> None:
    """Judge a file's records."""
    if form == "csv":
        originals = list(frame(data, ","))[1:]
    else:
        originals = [line for line in data.split(b"\n") if line.strip()]
    for verdict, original in zip(verdicts(data, form), originals, strict=True):
        if verdict.placement_hash:
            books.accepted[verdict.placement_hash] += 1
            books.originals[verdict.placement_hash] = original.rstrip(b"\r\n")
        else:
            books.rejected[original.rstrip(b"\r\n")] += 1


def letters(bootstrap: str) -> list[dict[str, Any]]:
    """All dead letters, ``original`` decoded."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "chaos", "enable.auto.commit": False}
        | {"isolation.level": "read_committed", "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    )
    partitions = consumer.list_topics("avstar.dlq", 15).topics["avstar.dlq"].partitions
    consumer.assign([TopicPartition("avstar.dlq", p, 0) for p in partitions])
    found, open_partitions = [], set(partitions)
    while open_partitions:
        message = consumer.poll(30)
        assert message is not None, "the brokers are silent"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            open_partitions.discard(message.partition())
        else:
            letter = json.loads(message.value())
            found.append(letter | {"original": base64.b64decode(letter["original"]).rstrip(b"\r\n")})
    consumer.close()
    return found


class Balance(NamedTuple):
    """How the books and the product's own account compare."""

    lost: int
    doubled: int
    disagreements: list[str]


def balance(
    books: Books, guilty: set[str], booked: Counter[str], audit: dict[str, Any], found: list[dict[str, Any]]
) -> Balance:
    """Compare. ``guilty`` are placement hashes that Avstar refuses; it books all that it is sent under a new
    key, so a record is ``booked`` as often as it was sent.
    """
    refused = Counter({key: n for key, n in books.accepted.items() if key in guilty})
    expected = set(books.accepted) - guilty
    lost, doubled = len(expected - set(booked)), (booked - books.accepted).total()
    wrong = []
    if lost:
        wrong.append(f"{lost} records are not booked, such as {sorted(expected - set(booked))[:3]}")
    if doubled:
        wrong.append(f"{doubled} records are booked twice")
    if strange := set(booked) - expected:
        wrong.append(f"{len(strange)} records are booked that should not be, such as {sorted(strange)[:3]}")
    due = books.rejected + Counter(
        {books.originals[placement]: number for placement, number in refused.items()}
    )
    have = Counter(letter["original"] for letter in found)
    if unjustified := have - due:
        wrong.append(f"{unjustified.total()} dead letters too many, such as {list(unjustified)[:2]}")
    if absent := due - have:
        wrong.append(f"{absent.total()} rejected records without a dead letter, such as {list(absent)[:2]}")
    numbers = {
        "records": books.records,
        "published": books.records,
        "delivered": books.accepted.total() - refused.total(),
        "rejected": due.total(),
        "dead_lettered": 0,
        "missing": 0,
        "duplicates": 0,
    }
    wrong += [
        f"audit: {name} {audit[name]}, by the books {number}"
        for name, number in numbers.items()
        if audit[name] != number
    ]
    return Balance(lost, doubled, wrong)


def some(lines: Iterator[bytes], head: bytes, form: str, share: int) -> list[str]:
    """Placement hashes of good records, one of ``share`` lines."""
    picked = [line for number, line in enumerate(lines) if number % share == share // 2]
    return [v.placement_hash for line in picked for v in verdicts(head + line, form) if v.placement_hash]
