"""What a replay sends: every batch that holds a match, by what the topics still tell of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from confluent_kafka import Message as KafkaMessage

from schemas.batch import Source
from schemas.errors import Problem
from schemas.letter import Receipt
from streams.dispatch.message import Message
from streams.recovery import receipts
from streams.recovery.span import Spans
from streams.validate.descriptors import read_descriptors
from topics.catalogue import BATCHES, RAW
from topics.connection import KafkaSettings
from topics.reader import beginnings, read_all


class Wanted(NamedTuple):
    """The match: raw records of ``spans``, of a file (its path, or the end of it), of a kind; empty: any.

    ``since``: the time that the spans begin at, to tell of batches whose raw records are gone.
    """

    spans: Spans
    file: str = ""
    kind: str = ""
    since: datetime | None = None


@dataclass
class Row:
    """A batch to send. ``kept``: its offset on ``avstar.batches``, -1 when only its raw records can tell."""

    key: str
    source: Source
    records: int
    kept: int = -1
    from_letters: bool = False
    rejected_before: frozenset[int] = frozenset()

    @property
    def place(self) -> tuple[int, str]:
        """In the order that a partition's batches are sent in."""
        return self.source.first, self.key


@dataclass
class Selection:
    """``rows`` by raw partition, in order; how many batches are left out, by the reason."""

    files: frozenset[str] | None  #: descriptor ids of the wanted file; None: any
    rows: dict[int, list[Row]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    refused: list[tuple[Row, str]] = field(default_factory=list)  #: what can be sent no more, and why

    def leave(self, why: str) -> None:
        """Count a batch that is not sent."""
        self.left[why] = self.left.get(why, 0) + 1

    def __iter__(self) -> Iterator[Row]:
        return (row for rows in self.rows.values() for row in rows)


@dataclass
class _Outcome:
    """How a batch ended so far, by its receipts in order."""

    records: int
    from_letters: bool
    at: str = ""
    status: Literal["", "delivered", "dead_lettered", "discarded"] = ""
    rejected: frozenset[int] = frozenset()

    def learn(self, receipt: Receipt) -> None:
        self.at = receipt.at
        if receipt.status in ("delivered", "redriven"):
            rejected = frozenset(rejection["index"] for rejection in receipt.rejected)
            self.rejected = self.rejected & rejected if self.status == "delivered" else rejected
            self.status = "delivered"
        elif self.status != "delivered":
            self.status = "discarded" if receipt.status == "discarded" else "dead_lettered"


def select(kafka: KafkaSettings, wanted: Wanted, dispatched: dict[int, int]) -> Selection:
    """Find the batches; ``dispatched``: by partition, the position that dispatch has committed.

    A file and a kind are looked for in what a batch's headers say; of a batch that is only to be rebuilt from
    its raw records, whoever rebuilds it has to look. Raises what :func:`topics.reader.read_all` does, and
    :class:`Problem` when a file is wanted that was not tailed.
    """
    files = _files(kafka, wanted.file)
    outcomes = _outcomes(kafka, wanted)
    selection = Selection(files)
    rows: dict[tuple[str, Source], Row] = {}
    others: set[tuple[str, Source]] = set()
    for message in read_all(kafka, BATCHES.name):
        sent = _read(message)
        if sent is None or not wanted.spans.hold(sent.source):
            continue
        at = sent.batch.key, sent.source
        if not is_of(
            sent.headers.get("files", "").split(","),
            sent.headers.get("kinds", "").split(","),
            files,
            wanted.kind,
        ):
            others.add(at)
        elif message.offset() >= dispatched.get(message.partition(), 0) and at not in outcomes:
            others.add(at)
            selection.leave("waits for dispatch already")
        else:
            rows[at] = Row(*at, sent.batch.records, message.offset(), sent.from_letters)
    for at, outcome in outcomes.items():
        if at not in rows and at not in others:
            rows[at] = Row(*at, outcome.records, from_letters=outcome.from_letters)
    _arrange(selection, rows, outcomes)
    return selection


def _arrange(
    selection: Selection, rows: dict[tuple[str, Source], Row], outcomes: dict[tuple[str, Source], _Outcome]
) -> None:
    for at, row in rows.items():
        outcome = outcomes.get(at)
        if outcome and outcome.status == "dead_lettered":
            selection.leave("is a dead letter: redrive it")
        elif outcome and outcome.status == "discarded":
            selection.leave("was discarded")
        else:
            row.rejected_before = outcome.rejected if outcome else frozenset()
            selection.rows.setdefault(row.source.partition, []).append(row)
    for of_partition in selection.rows.values():
        of_partition.sort(key=lambda row: row.place)


def _outcomes(kafka: KafkaSettings, wanted: Wanted) -> dict[tuple[str, Source], _Outcome]:
    """How the batches ended that hold a match, or may have held one whose raw record is gone."""
    begins = beginnings(kafka, RAW.name)
    found: dict[tuple[str, Source], _Outcome] = {}
    for key, receipt in receipts.read(kafka):
        source = receipt.source
        if receipt.place or not receipt.records:
            continue
        if not wanted.spans.hold(source):
            # A time before the oldest record that is kept has no offset any more; a receipt has a time.
            gone = source.last < begins.get(source.partition, 0)
            if not gone or not wanted.since or datetime.fromisoformat(receipt.at) < wanted.since:
                continue
        outcome = found.setdefault(
            (key.decode(errors="replace"), source), _Outcome(receipt.records, receipt.from_letters)
        )
        outcome.learn(receipt)
    return found


def _read(message: KafkaMessage) -> Message | None:
    try:
        return Message.read(message.key(), message.value(), dict(message.headers() or ()))
    except ValueError:
        return None  # a stranger's


def _files(kafka: KafkaSettings, path: str) -> frozenset[str] | None:
    """The descriptors of the file, as headers have them; None when any will do."""
    if not path:
        return None
    end = "/" + path.lstrip("./")
    found = {
        key.hex()
        for key, descriptor in read_descriptors(kafka).items()
        if descriptor.path == path or descriptor.path.endswith(end)
    }
    if not found:
        raise Problem("no such file was tailed", where=path, remedy="`spotstream audit` lists all")
    return frozenset(found)


def is_of(
    batch_files: Sequence[str], batch_kinds: Sequence[str], files: frozenset[str] | None, kind: str
) -> bool:
    """Whether a batch holds records of the wanted file and of the wanted kind."""
    return (files is None or not files.isdisjoint(batch_files)) and (not kind or kind in batch_kinds)
