"""The books of the audit: what became of every record, kept in one byte each.

Pure: fed with what the topics say, in the order of :class:`Books`' methods, so that what is written
meanwhile can only be behind, never ahead. Memory is one byte for each raw offset, 56 bytes for each run of
records that a transaction published, about 200 for each open dead letter and 1 kB for each batch.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from schemas.batch import Source
from schemas.letter import Place
from schemas.rawkey import RawKey
from streams.audit.rawlog import (
    ABSENT,
    BATCHED,
    DEAD_LETTERED,
    DELIVERED,
    PUBLISHED,
    RAISE,
    REFUSED,
    REJECTED,
    REPEATED,
    RawLog,
    Run,
)


class Finding(NamedTuple):
    """Records that are not where they should be: how many, and where they were last seen."""

    kind: Literal["missing", "duplicate"]
    path: str
    what: str
    records: int
    number: int = 0  #: the first one's in the file; 0 when unknown
    partition: int = -1  #: of the raw topic; -1 when not there
    offset: int = -1  #: the first one's on that partition


@dataclass(slots=True)
class Tally:
    """The numbers of a file, or of all; ``records = delivered + rejected + dead_lettered + missing``."""

    path: str = ""
    records: int = 0
    published: int = 0
    validated: int = 0
    rejected: int = 0
    batches: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    missing: int = 0
    duplicates: int = 0
    expired: int = 0  #: deleted from the raw topic by retention; no other number counts them

    def add(self, other: "Tally") -> None:
        """Add another's numbers, but ``batches``: one batch may hold records of several files."""
        for name in self.__slots__:
            if name not in ("path", "batches"):
                setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _File:
    """What is known of one file (by identity) before its records are counted."""

    path: str
    records: int = 0  # by its checkpoint
    position: int = 0  # by its checkpoint
    unpublished: int = 0
    too_large: set[int] = field(default_factory=set)  # numbers of records that the tailer rejected


@dataclass(slots=True)
class _Outcome:
    """How a batch ended so far, by its receipts in order. Delivered is for good."""

    delivered: bool = False
    given_up: bool = False
    refused: frozenset[int] = frozenset()
    from_letters: bool = (
        False  # made of single records' dead letters, whose fate stands until it is delivered
    )

    def learn(self, status: str, refused: Iterable[int]) -> None:
        if status in ("delivered", "redriven"):
            # Refused by every delivery: what any of them took is booked.
            self.refused = self.refused & frozenset(refused) if self.delivered else frozenset(refused)
            self.delivered = True
        self.given_up = status in ("dead_lettered", "discarded")


class Statement(NamedTuple):
    """What :meth:`Books.close` finds: the numbers of each file and of all, and what is out of place."""

    files: list[Tally]
    total: Tally
    findings: list[Finding]


class Books:
    """Takes in what the topics say; :meth:`close` balances it.

    ``raw_begins`` and ``batches_begin`` (partition → first offset still held) tell what retention deleted.
    """

    #: Findings that are kept; the numbers count all.
    MOST_FINDINGS = 1000

    def __init__(self, raw_begins: Mapping[int, int], batches_begin: Mapping[int, int]) -> None:
        self._raw = {number: RawLog(number, base) for number, base in raw_begins.items()}
        self._batches_begin = batches_begin
        self._expired = any(raw_begins.values())
        self._files: list[_File] = []
        self._by_identity: dict[str, int] = {}
        self._by_descriptor: dict[bytes, int] = {}
        self._outcomes: dict[tuple[str, Source], _Outcome] = {}
        self._letters: dict[bytes, tuple[int, int]] = {}
        self._too_large: dict[object, tuple[bytes, int]] = {}
        self._strays = 0
        self._discarded: set[tuple[int, int]] = set()
        self._twice: list[tuple[str, int, int, int]] = []
        self._findings: list[Finding] = []

    def file(self, descriptor: bytes, identity: str, path: str) -> None:
        """A file's descriptor id, and what the descriptor says."""
        self._by_descriptor[descriptor] = self._index(identity, path)

    def checkpoint(self, identity: str, path: str, records: int, position: int) -> None:
        """How far a file is published: that many records (too large ones included), that many bytes."""
        file = self._files[self._index(identity, path)]
        file.path, file.records, file.position = path, records, position

    def raw(self, partition: int, offset: int, key: bytes, size: int) -> None:
        """A raw record of ``size`` bytes. Raises ``ValueError`` when the key is not one of ours."""
        descriptor, at, number, skipped = RawKey.unpack(key)
        log = self._raw[partition]
        if (
            offset == log.next_offset
            and number == log.next_number
            and at - skipped == log.end
            and descriptor == log.descriptor
        ):
            log.next_offset = offset + 1
            log.next_number = number + 1
            log.end = at + size
            return
        file = self._by_descriptor.get(descriptor)
        if file is None:
            file = self._by_descriptor[descriptor] = self._index(
                descriptor.hex(), f"descriptor {descriptor.hex()}"
            )
        log.begin(file, descriptor, offset, number=number, start=at - skipped, end=at + size)

    def stray(self, partition: int, offset: int) -> None:
        """A message on the raw topic that is no file's record."""
        index = self._index("", "(no file)")
        self._strays += 1
        self._raw[partition].begin(index, b"", offset, number=self._strays, start=0, end=0)

    def published(self) -> dict[str, tuple[int, int]]:
        """By identity: how many records and bytes are published, by the checkpoint or what lies beyond it."""
        ends = [(file.records, file.position) for file in self._files]
        for log in self._raw.values():
            for run in log.runs():
                ends[run.file] = max(ends[run.file], (run.number + run.records - 1, run.end))
        return {identity: ends[index] for identity, index in self._by_identity.items()}

    def unpublished(self, identity: str, records: int) -> None:
        """Complete records that stand in the file beyond what is :meth:`published`."""
        self._files[self._by_identity[identity]].unpublished = records

    def batch(self, key: str, source: Source, *, from_letters: bool = False) -> None:
        """A batch. The same key from the same source is the same batch, sent again by redrive or replay.
        Raises ``LookupError`` for a raw partition that is not there.

        ``from_letters``: a redrive made it of records that had been rejected, perhaps out of other batches.
        """
        if (key, source) in self._outcomes:
            return
        log = self._raw[source.partition]
        self._outcomes[key, source] = _Outcome(from_letters=from_letters)
        if from_letters:
            return
        log.finish()
        for first, last in source.stretches():
            where = log.where(first, last)
            if ABSENT in log.fates[where]:
                self._twice.extend(
                    ("in a batch, but not published", source.partition, *gap)
                    for gap in log.stretches(ABSENT, first, last)
                )
            if BATCHED in log.fates[where]:
                self._twice.extend(
                    ("in two batches", source.partition, *both)
                    for both in log.stretches(BATCHED, first, last)
                )
            log.raise_to(BATCHED, first, last)

    def receipt(
        self,
        key: str,
        source: Source,
        status: str,
        refused: Iterable[int] = (),
        *,
        from_letters: bool = False,
    ) -> None:
        """How a batch ended; ``refused`` are the indices of the records that Avstar rejected."""
        if (key, source) not in self._outcomes:
            if not self._batches_begin.get(source.partition):
                return
            # Retention took the batch; its receipt says as much.
            self.batch(key, source, from_letters=from_letters)
        self._outcomes[key, source].learn(status, refused)

    def discarded(self, place: Place) -> None:
        """A rejected record whose dead letter was discarded: rejected it stays."""
        if place.raw_offset < 0:
            self._too_large[b"discarded", place.descriptor, place.number] = (
                bytes.fromhex(place.descriptor),
                place.number,
            )
        elif place.partition in self._raw:
            self._discarded.add((place.partition, place.raw_offset))

    def letter(self, key: bytes, value: bytes | None) -> None:
        """A dead letter, or the tombstone of one. Of batches' letters their receipts tell."""
        self._letters.pop(key, None)
        self._too_large.pop(key, None)
        letter: dict[str, Any] = orjson.loads(value) if value is not None else {}
        place = letter.get("place")
        if letter.get("kind") != "record" or place is None:
            return
        if letter["stage"] == "tail":
            self._too_large[key] = (bytes.fromhex(place["descriptor"]), int(place["number"]))
        elif letter["stage"] == "validate" and place["partition"] in self._raw:
            self._letters[key] = (place["partition"], int(place["raw_offset"]))

    def close(self) -> Statement:
        """Balance the books. They take nothing in after this."""
        for log in self._raw.values():
            log.finish()
        for (_, source), outcome in self._outcomes.items():
            self._settle(source, outcome)
        for partition, offset in self._letters.values():
            self._reject(partition, offset)
        for partition, offset in self._discarded:  # Avstar may have rejected it, or booked it since
            self._raw[partition].raise_to(REJECTED, offset, offset)
        for descriptor, number in self._too_large.values():
            if descriptor in self._by_descriptor:
                self._files[self._by_descriptor[descriptor]].too_large.add(number)
        tallies = [Tally(file.path, rejected=len(file.too_large)) for file in self._files]
        for index, runs in enumerate(self._runs_by_file()):
            self._join(self._files[index], runs, tallies[index])
            self._count(runs, tallies[index])
        total = Tally("all", batches=len(self._outcomes))
        for what, partition, first, last in self._twice:
            total.duplicates += self._charge(tallies, what, partition, first, last)
        self._count_batches(tallies)
        for tally in tallies:
            tally.records = tally.delivered + tally.rejected + tally.dead_lettered + tally.missing
            total.add(tally)
        return Statement(tallies, total, self._findings)

    def _index(self, identity: str, path: str) -> int:
        index = self._by_identity.get(identity)
        if index is None:
            index = self._by_identity[identity] = len(self._files)
            self._files.append(_File(path))
        return index

    def _settle(self, source: Source, outcome: _Outcome) -> None:
        """Give the records of a batch the fate that it met."""
        log = self._raw[source.partition]
        if not outcome.delivered:
            if outcome.given_up and not outcome.from_letters:
                for first, last in source.stretches():
                    log.raise_to(DEAD_LETTERED, first, last)
            return
        offsets = source.expand() if outcome.refused else []
        refused = [offsets[index] for index in outcome.refused if index < len(offsets)]
        before = [log.fates[log.where(offset, offset)] for offset in refused]
        for first, last in source.stretches():
            log.raise_to(DELIVERED, first, last)
        for offset, fate in zip(refused, before, strict=True):
            log.fates[log.where(offset, offset)] = fate.translate(RAISE[REFUSED])

    def _reject(self, partition: int, offset: int) -> None:
        log = self._raw[partition]
        fate = log.fates[log.where(offset, offset)]
        if fate and fate[0] > REJECTED:
            self._twice.append(("in a batch, and rejected", partition, offset, offset))
        log.raise_to(REJECTED, offset, offset)

    def _runs_by_file(self) -> list[list[Run]]:
        by_file: list[list[Run]] = [[] for _ in self._files]
        for log in self._raw.values():
            for run in log.runs():
                by_file[run.file].append(run)
        for runs in by_file:
            runs.sort(key=lambda run: (run.number, run.start, run.partition, run.offset))
        return by_file

    def _join(self, file: _File, runs: list[Run], tally: Tally) -> None:
        """Prove that a file's runs follow each other without a hole; repeats are merged into the first."""
        number, end, horizon = 1, 0, self._horizon(runs)
        if self._expired and not runs:
            number, end, tally.expired = file.records + 1, file.position, file.records
        kept: list[Run] = []
        for run in runs:
            last = run.number + run.records - 1
            if run.number <= horizon:
                lost = max(run.number - number, 0)
                tally.expired += lost
            else:
                lost = self._lose(file, tally, "not on the raw topic", number, run.number - 1)
            if run.number < number:
                self._merge(run, kept, min(last, number - 1), tally)
            elif not lost and run.start != end:
                tally.missing += 1
                what = f"bytes {end} to {run.start} of the file are in no record"
                self._find(Finding("missing", file.path, what, 1, run.number, run.partition, run.offset))
            if last >= number:
                kept.append(run)
                number, end = last + 1, run.end
        if file.records >= number:
            self._lose(file, tally, "in the checkpoint, but not on the raw topic", number, file.records)
        if file.unpublished:
            after = max(number - 1, file.records)
            self._lose(file, tally, "in the file, but not published", after + 1, after + file.unpublished)

    def _horizon(self, runs: list[Run]) -> int:
        """Up to this number retention may have taken a file's records: where partitions begin that it cut."""
        first: dict[int, int] = {}
        for run in runs:
            first.setdefault(run.partition, run.number)
        return max((number for partition, number in first.items() if self._raw[partition].base), default=0)

    def _lose(self, file: _File, tally: Tally, what: str, first: int, last: int) -> int:
        """Count records ``first`` to ``last`` as missing, but for those too large; gives how many."""
        count = max(last + 1 - first, 0)
        if count:
            count -= sum(first <= number <= last for number in file.too_large)
        if count:
            tally.missing += count
            self._find(Finding("missing", file.path, what, count, first))
        return count

    def _merge(self, run: Run, kept: list[Run], last: int, tally: Tally) -> None:
        """The numbers up to ``last`` of ``run`` were published before: their better fate counts, once."""
        log = self._raw[run.partition]
        for number in range(run.number, last + 1):
            original = kept[bisect_right(kept, number, key=lambda other: other.number) - 1]
            other = self._raw[original.partition]
            at = original.offset + number - original.number - other.base
            again = run.offset + number - run.number - log.base
            other.fates[at] = max(other.fates[at], log.fates[again])
            log.fates[again] = REPEATED
        count = last + 1 - run.number
        tally.duplicates += count
        self._find(
            Finding("duplicate", tally.path, "published twice", count, run.number, run.partition, run.offset)
        )

    def _count(self, runs: list[Run], tally: Tally) -> None:
        for run in runs:
            log = self._raw[run.partition]
            last = run.offset + run.records - 1
            fates = log.fates[log.where(run.offset, last)]
            counts = [fates.count(fate) for fate in range(REPEATED)]
            tally.published += sum(counts)
            tally.validated += sum(counts[BATCHED:])
            tally.rejected += counts[REJECTED] + counts[REFUSED]
            tally.dead_lettered += counts[DEAD_LETTERED]
            tally.delivered += counts[DELIVERED]
            tally.missing += counts[PUBLISHED] + counts[BATCHED]
            for fate, what in (
                (PUBLISHED, "in no batch and no dead letter"),
                (BATCHED, "in a batch without receipt"),
            ):
                for first, end in log.stretches(fate, run.offset, last) if counts[fate] else ():
                    number = run.number + first - run.offset
                    self._find(
                        Finding("missing", tally.path, what, end + 1 - first, number, log.number, first)
                    )

    def _charge(self, tallies: list[Tally], what: str, partition: int, first: int, last: int) -> int:
        """Charge what was taken twice to the files; gives how many records belong to none."""
        left = last + 1 - first
        for run in self._raw[partition].overlapping(first, last):
            start, end = max(first, run.offset), min(last, run.offset + run.records - 1)
            tally, number, count = tallies[run.file], run.number + start - run.offset, end + 1 - start
            left -= count
            tally.duplicates += count
            self._find(Finding("duplicate", tally.path, what, count, number, partition, start))
        if left:
            self._find(Finding("duplicate", "", what, left, 0, partition, first))
        return left

    def _count_batches(self, tallies: list[Tally]) -> None:
        for _, source in self._outcomes:
            log = self._raw[source.partition]
            for file in {run.file for stretch in source.stretches() for run in log.overlapping(*stretch)}:
                tallies[file].batches += 1

    def _find(self, finding: Finding) -> None:
        if len(self._findings) < self.MOST_FINDINGS:
            self._findings.append(finding)
