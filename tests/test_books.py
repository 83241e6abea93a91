"""The audit's books: whatever becomes of records, it is told as it was."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import Source, runs
from schemas.letter import Place
from schemas.rawkey import pack
from streams.audit.books import Books, Statement, Tally

FILE = bytes(15) + b"\x01"
SIZE = 10  #: bytes of a record


def source(offsets: list[int], records: int | None = None, partition: int = 0) -> Source:
    """Of a batch of the records at these raw offsets."""
    count = len(offsets) if records is None else records
    return Source(partition, offsets[0], offsets[-1], count, runs(offsets, offsets[0]))


def letter(offset: int, partition: int = 0) -> bytes:
    """Of a record that validation rejected."""
    place = {"partition": partition, "raw_offset": offset}
    return orjson.dumps({"kind": "record", "stage": "validate", "place": place})


def published(*offsets: int, checkpoint: int | None = None, begin: int = 0) -> Books:
    """Books in which the records 1, 2, … of one file lie at these raw offsets of partition 0."""
    books = Books({0: begin}, {0: 0})
    books.file(FILE, "one", "/log.csv")
    records = len(offsets) if checkpoint is None else checkpoint
    books.checkpoint("one", "/log.csv", records, records * SIZE)
    for number, offset in enumerate(offsets, 1):
        books.raw(0, offset, pack(FILE, (number - 1) * SIZE, number, 0), SIZE)
    return books


def whats(statement: Statement) -> list[tuple[str, str, int, int]]:
    """The findings, shortened."""
    return [(found.kind, found.what, found.records, found.number) for found in statement.findings]


def check(total: Tally, **expected: int) -> None:
    """Every number that is not named is 0, and the equation holds."""
    names = [name for name in Tally.__slots__ if name != "path"]
    assert {name: getattr(total, name) for name in names} == dict.fromkeys(names, 0) | expected
    assert total.records == total.delivered + total.rejected + total.dead_lettered + total.missing


def test_delivered_refused_and_rejected_records_are_told_apart() -> None:
    books = published(0, 1, 2, 3, 4)
    taken = source([0, 1, 3, 4])
    books.batch("aa", taken)
    books.receipt("aa", taken, "delivered", [2])
    books.letter(b"key", letter(2))
    statement = books.close()
    check(statement.total, records=5, published=5, validated=4, delivered=3, rejected=2, batches=1)
    assert statement.findings == []


def test_what_ended_nowhere_is_missing_with_its_place() -> None:
    books = published(0, 1, 2, 5, 6)
    books.batch("aa", source([1, 2, 5]))
    statement = books.close()
    check(statement.total, records=5, published=5, validated=3, batches=1, missing=5)
    assert whats(statement) == [
        ("missing", "in no batch and no dead letter", 1, 1),
        ("missing", "in a batch without receipt", 2, 2),
        ("missing", "in no batch and no dead letter", 1, 5),
        ("missing", "in a batch without receipt", 1, 4),
    ]
    assert [found.offset for found in statement.findings] == [0, 1, 6, 5]


@pytest.mark.parametrize(
    ("statuses", "fate"),
    [
        (["dead_lettered"], "dead_lettered"),
        (["dead_lettered", "redriven", "delivered"], "delivered"),
        (["dead_lettered", "dead_lettered"], "dead_lettered"),
        (["dead_lettered", "discarded"], "dead_lettered"),
        (["delivered", "dead_lettered"], "delivered"),
        (["dead_lettered", "redriven"], "delivered"),
        (["delivered", "delivered"], "delivered"),
    ],
)
def test_the_receipts_of_a_batch_together_tell_how_it_ended(statuses: list[str], fate: str) -> None:
    books = published(0, 1)
    books.batch("aa", source([0, 1]))
    books.batch("aa", source([0, 1]))  # sent again by the redrive
    for status in statuses:
        books.receipt("aa", source([0, 1]), status)
    check(books.close().total, records=2, published=2, validated=2, batches=1, **{fate: 2})


def test_a_record_that_any_delivery_took_is_delivered() -> None:
    books = published(0, 1, 2)
    books.batch("aa", source([0, 1, 2]))
    books.receipt("aa", source([0, 1, 2]), "delivered", [0, 1])
    books.receipt("aa", source([0, 1, 2]), "delivered", [1, 2])
    check(books.close().total, records=3, published=3, validated=3, batches=1, delivered=2, rejected=1)


def test_the_same_key_from_another_source_is_another_batch() -> None:
    books = published(0, 1, 2, 3)
    books.batch("aa", source([0, 1]))
    books.batch("aa", source([2, 3]))  # the same two lines, exported again
    books.receipt("aa", source([2, 3]), "delivered")
    books.receipt("bb", source([0, 1]), "delivered")  # not this batch's
    check(books.close().total, records=4, published=4, validated=4, batches=2, delivered=2, missing=2)


def test_a_record_in_two_batches_or_in_none_of_the_topics_is_a_duplicate() -> None:
    books = published(0, 1, 2, 4)
    for key, offsets in (("aa", [0, 1]), ("bb", [1, 2]), ("cc", [3, 4])):
        books.batch(key, source(offsets))
        books.receipt(key, source(offsets), "delivered")
    statement = books.close()
    check(statement.total, records=4, published=4, validated=4, batches=3, delivered=4, duplicates=2)
    assert whats(statement) == [
        ("duplicate", "in two batches", 1, 2),
        ("duplicate", "in a batch, but not published", 1, 0),
    ]


def test_a_record_both_booked_and_rejected_is_a_duplicate() -> None:
    books = published(0, 1)
    books.batch("aa", source([0, 1]))
    books.receipt("aa", source([0, 1]), "delivered")
    books.letter(b"key", letter(1))
    statement = books.close()
    check(statement.total, records=2, published=2, validated=2, batches=1, delivered=2, duplicates=1)
    assert whats(statement) == [("duplicate", "in a batch, and rejected", 1, 2)]


def test_a_tombstone_takes_its_letter_back_and_a_discarded_rejection_stays_one() -> None:
    books = published(0, 1)
    books.letter(b"key", letter(0))
    books.letter(b"key", None)
    books.letter(b"other", letter(1))
    books.letter(b"other", None)
    books.discarded(Place(partition=0, raw_offset=1))
    check(books.close().total, records=2, published=2, rejected=1, missing=1)


def test_a_discarded_record_that_the_tailer_or_avstar_rejected_stays_rejected() -> None:
    books = published(0, 1, checkpoint=3)
    books.batch("aa", source([0, 1]))
    books.receipt("aa", source([0, 1]), "delivered", [1])
    books.discarded(Place(partition=0, raw_offset=1))
    books.discarded(Place(descriptor=FILE.hex(), number=3, partition=0, raw_offset=-1))
    check(books.close().total, records=3, published=2, validated=2, batches=1, delivered=1, rejected=2)


@pytest.mark.parametrize(
    ("status", "refused", "fates"),
    [
        ("redriven", [], {"delivered": 3}),
        ("redriven", [1], {"delivered": 2, "rejected": 1}),
        ("dead_lettered", [], {"delivered": 1, "rejected": 2}),
        ("", [], {"delivered": 1, "rejected": 2}),
    ],
)
def test_a_redriven_record_is_what_it_was_until_it_is_booked(
    status: str, refused: list[int], fates: dict[str, int]
) -> None:
    books = published(0, 1, 2)
    books.batch("aa", source([0, 1], 3))
    books.receipt("aa", source([0, 1], 3), "delivered", [1])
    again = source([1, 2])
    books.batch("bb", again, from_letters=True)
    if status:
        books.receipt("bb", again, status, refused, from_letters=True)
    books.letter(b"key", letter(2))
    if status == "redriven":
        books.letter(b"key", letter(2).replace(b"validate", b"dispatch") if refused else None)
    validated = 3 if status == "redriven" else 2
    check(books.close().total, records=3, published=3, validated=validated, batches=2, **fates)


def test_a_redrive_is_told_by_its_receipt_when_retention_took_its_batch() -> None:
    books = Books({0: 0}, {0: 7})
    books.file(FILE, "one", "/log.csv")
    books.checkpoint("one", "/log.csv", 2, 2 * SIZE)
    for number in (1, 2):
        books.raw(0, number - 1, pack(FILE, (number - 1) * SIZE, number, 0), SIZE)
    books.receipt("aa", source([0, 1]), "delivered", [0])
    books.receipt("bb", source([0]), "dead_lettered", from_letters=True)
    check(books.close().total, records=2, published=2, validated=2, batches=2, delivered=1, rejected=1)


def test_records_of_the_checkpoint_and_the_file_that_are_not_published_are_missing() -> None:
    books = published(0, 1, checkpoint=5)
    assert books.published() == {"one": (5, 50)}
    books.unpublished("one", 7)
    statement = books.close()
    check(statement.total, records=12, published=2, missing=12)
    assert whats(statement)[:2] == [
        ("missing", "in the checkpoint, but not on the raw topic", 3, 3),
        ("missing", "in the file, but not published", 7, 6),
    ]


def test_bytes_that_no_record_holds_are_missing_though_the_numbers_go_on() -> None:
    books = Books({0: 0}, {})
    books.file(FILE, "one", "/log.csv")
    books.raw(0, 0, pack(FILE, 20, 1, 20), SIZE)  # after a header of 20 bytes
    books.raw(0, 1, pack(FILE, 45, 2, 5), SIZE)  # 10 bytes are nowhere
    statement = books.close()
    assert statement.total.missing == 3
    assert whats(statement)[0] == ("missing", "bytes 30 to 40 of the file are in no record", 1, 2)


def test_a_line_too_large_for_the_topic_is_a_rejected_record() -> None:
    books = Books({0: 0}, {})
    books.file(FILE, "one", "/log.csv")
    books.raw(0, 0, pack(FILE, 0, 1, 0), SIZE)
    books.raw(0, 1, pack(FILE, 9_000_010, 3, 9_000_000), SIZE)
    place = {"descriptor": FILE.hex(), "number": 2, "partition": 0, "raw_offset": -1}
    books.letter(b"key", orjson.dumps({"kind": "record", "stage": "tail", "place": place}))
    books.batch("aa", source([0, 1]))
    books.receipt("aa", source([0, 1]), "delivered")
    statement = books.close()
    check(statement.total, records=3, published=2, validated=2, batches=1, delivered=2, rejected=1)


def test_what_retention_took_is_expired_and_receipts_stand_in_for_batches() -> None:
    books = Books({0: 100}, {0: 7})
    books.file(FILE, "one", "/log.csv")
    for number in (51, 52):
        books.raw(0, 49 + number, pack(FILE, number * SIZE, number, 0), SIZE)
    books.receipt("aa", source([98, 99, 100, 101]), "delivered")
    statement = books.close()
    check(statement.total, records=2, published=2, validated=2, batches=1, delivered=2, expired=50)
    assert statement.findings == []


def test_a_stray_message_is_a_record_of_no_file() -> None:
    books = published(0, 1)
    books.stray(0, 2)
    books.stray(0, 5)
    statement = books.close()
    assert [(tally.path, tally.missing) for tally in statement.files] == [("/log.csv", 2), ("(no file)", 2)]


def test_findings_are_bounded_and_numbers_are_not() -> None:
    books = published(*range(0, 3000, 2), begin=0)
    for offset in range(0, 3000, 4):
        books.letter(b"%d" % offset, letter(offset))
    statement = books.close()
    assert statement.total.missing == 750
    assert len(statement.findings) == 750
    books = published(*range(0, 6000, 2), begin=0)
    for offset in range(0, 6000, 4):
        books.letter(b"%d" % offset, letter(offset))
    assert len(books.close().findings) == Books.MOST_FINDINGS


Way = Literal["published", "repeated", "lost", "too_large"]
ENDS = ("delivered", "dead_lettered", "pending", "unvalidated")


@dataclass
class World:
    """A history of files, partitions and batches, and what an honest audit says of it."""

    draw: st.DataObject
    books: Books = field(default_factory=lambda: Books({0: 0, 1: 0}, {0: 0, 1: 0}))
    expected: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    ends: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    owners: dict[int, list[tuple[int, str, int]]] = field(default_factory=lambda: {0: [], 1: []})
    best: dict[tuple[str, int], int] = field(default_factory=dict)

    def publish(self, name: str, ways: list[Way], partitions: list[int]) -> None:
        """One file: its records go to the partitions in turn, each in a transaction of its own or not."""
        descriptor = name.encode().ljust(16, b".")
        self.books.file(descriptor, name, name)
        self.books.checkpoint(name, name, len(ways), 0)
        at = skipped = 0
        for number, way in enumerate(ways, 1):
            partition = partitions[number % len(partitions)]
            if way == "too_large":
                place = {"descriptor": descriptor.hex(), "number": number, "partition": partition}
                value = orjson.dumps({"kind": "record", "stage": "tail", "place": place})
                self.letters.append((f"{name}{number}".encode(), value))
                self.expected[name]["rejected"] += 1
                skipped += SIZE
            elif way == "lost":
                self.expected[name]["missing"] += 1
                skipped = 0
            else:
                for _ in range(1 + (way == "repeated")):
                    self.append(partition, name, number, pack(descriptor, at, number, skipped))
                self.expected[name]["duplicates"] += way == "repeated"
                skipped = 0
            at += SIZE

    letters: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    def append(self, partition: int, name: str, number: int, key: bytes) -> None:
        self.books.raw(partition, self.ends[partition], key, SIZE)
        self.owners[partition].append((self.ends[partition], name, number))
        self.ends[partition] += 1 + (self.draw.draw(st.integers(0, 3)) == 0)  # a transaction's marker

    def validate(self, partition: int) -> None:
        """Cut a partition into windows, each with an end; some records are rejected, some refused."""
        draw, left = self.draw.draw, self.owners[partition]
        while left:
            size = draw(st.integers(1, 6))
            window, left = left[:size], left[size:]
            end = draw(st.sampled_from(ENDS))
            rejected = draw(st.lists(st.booleans(), min_size=len(window), max_size=len(window)))
            taken = [record for record, bad in zip(window, rejected, strict=True) if not bad]
            if end == "unvalidated":
                self.note(window, 0)
                continue
            for offset, name, number in (r for r, bad in zip(window, rejected, strict=True) if bad):
                self.letters.append((f"{partition}:{offset}".encode(), letter(offset, partition)))
                self.note([(offset, name, number)], 1)
                self.rejected[partition].append((offset, name, number))
            if taken:
                self.deliver(partition, taken, end)

    def deliver(self, partition: int, taken: list[tuple[int, str, int]], end: str) -> None:
        where = source([offset for offset, _, _ in taken], partition=partition)
        key = f"{partition}-{taken[0][0]}"
        self.books.batch(key, where)
        if end == "pending":
            self.note(taken, 2)
            return
        refused = self.draw.draw(st.sets(st.integers(0, len(taken) - 1))) if end == "delivered" else set()
        self.outcomes.append((key, where, end, refused))
        for index, record in enumerate(taken):
            self.note([record], 3 if end == "dead_lettered" else 4 if index in refused else 5)
            if index in refused:
                self.rejected[partition].append(record)
        if end == "dead_lettered" and (
            again := self.draw.draw(st.sampled_from(["", "redriven", "discarded"]))
        ):
            self.outcomes.append((key, where, again, set()))
            self.note(taken, 5 if again == "redriven" else 3)

    def mend(self, partition: int) -> None:
        """Redrive some of the rejected records together, discard others."""
        draw = self.draw.draw
        fates = st.sampled_from(["stays", "discarded", "redriven"])
        fate = {record: draw(fates) for record in self.rejected[partition]}
        for record in [record for record, what in fate.items() if what == "discarded"]:
            self.letters.append((f"{partition}:{record[0]}".encode(), None))
            self.places.append(Place(partition=partition, raw_offset=record[0]))
        again = sorted(record for record, what in fate.items() if what == "redriven")
        end = draw(st.sampled_from(["redriven", "dead_lettered", "pending"]))
        if not again:
            return
        where = source([record[0] for record in again], partition=partition)
        self.books.batch(f"again-{partition}", where, from_letters=True)
        if end == "pending":
            return
        refused = draw(st.sets(st.integers(0, len(again) - 1))) if end == "redriven" else set()
        self.redrives.append((f"again-{partition}", where, end, refused))
        for index, record in enumerate(again) if end == "redriven" else ():
            renewed = letter(record[0], partition).replace(b"validate", b"dispatch")
            self.letters.append((f"{partition}:{record[0]}".encode(), renewed if index in refused else None))
            self.note([record], 4 if index in refused else 5)

    rejected: dict[int, list[tuple[int, str, int]]] = field(default_factory=lambda: {0: [], 1: []})
    places: list[Place] = field(default_factory=list)
    redrives: list[tuple[str, Source, str, set[int]]] = field(default_factory=list)
    outcomes: list[tuple[str, Source, str, set[int]]] = field(default_factory=list)

    def note(self, records: list[tuple[int, str, int]], rank: int) -> None:
        """A record that was published twice counts with the better of its two fates."""
        for _, name, number in records:
            self.best[name, number] = max(self.best.get((name, number), 0), rank)

    def close(self) -> Statement:
        for outcome in self.outcomes:
            self.books.receipt(*outcome)
        for outcome in self.redrives:
            self.books.receipt(*outcome, from_letters=True)
        for place in self.places:
            self.books.discarded(place)
        for dead in self.letters:
            self.books.letter(*dead)
        names = ("missing", "rejected", "missing", "dead_lettered", "rejected", "delivered")
        for (name, _), rank in self.best.items():
            self.expected[name][names[rank]] += 1
            self.expected[name]["published"] += 1
            self.expected[name]["validated"] += rank >= 2
        return self.books.close()


@settings(max_examples=150)
@given(st.data())
def test_any_history_is_told_as_it_was(data: st.DataObject) -> None:
    world = World(data)
    way = st.sampled_from(["published"] * 8 + ["repeated", "lost", "too_large"])
    for name in ("a", "b", "c")[: data.draw(st.integers(1, 3))]:
        ways = data.draw(st.lists(way, max_size=20))
        world.publish(name, ways, data.draw(st.sampled_from([[0], [1], [0, 1], [0, 0, 1, 1]])))
    for partition in (0, 1):
        world.validate(partition)
        world.mend(partition)
    statement = world.close()
    for tally in statement.files:
        names = ("published", "validated", "rejected", "delivered", "dead_lettered", "missing", "duplicates")
        assert {name: getattr(tally, name) for name in names} == {
            name: world.expected[tally.path][name] for name in names
        }, tally.path
        assert tally.records == tally.delivered + tally.rejected + tally.dead_lettered + tally.missing
    missing = sum(found.records for found in statement.findings if found.kind == "missing")
    assert missing == statement.total.missing
