"""Redrive: dead letters sent again, through ``avstar.batches`` and so under the same ceilings as everything.

A batch's letter is sent as it was, under the same key. Records that were rejected one by one are judged
anew, from their original bytes, and those that are right now make new batches. A letter ends when its batch
is settled, in the same transaction; until then it is marked, so that another redrive leaves it alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Producer

from schemas import parts
from schemas import profile as profiles
from schemas.batch import Batch, Upload
from schemas.codec import Codec, schema
from schemas.errors import UsageError
from schemas.letter import DeadLetter, now
from schemas.profile import Profile
from schemas.records import KINDS, Kind
from schemas.registry import Registry
from streams.console import console, safe
from streams.dispatch.message import REDRIVE_OF, REJECTED_BEFORE, REPLAY
from streams.recovery import letters
from streams.recovery.letters import Pen, Stored
from streams.recovery.remake import Sending, remake
from streams.settings import Settings
from streams.validate.descriptors import read_descriptors
from streams.validate.panel import Panel, Seat
from topics.admin import Asker
from topics.block import send_blocks
from topics.catalogue import BATCHES, DLQ, VALIDATED

#: Batches' letters in one transaction: each may have many megabytes.
_AT_ONCE = 10
#: Letters that stay, named one by one.
_SHOWN = 20


class Wanted(NamedTuple):
    """Which letters: by keys or their beginnings, by reason, or all."""

    keys: Sequence[str] = ()
    everything: bool = False
    reason: str = ""

    def check(self) -> None:
        """Raises :class:`UsageError` unless it is exactly one of the three, or for an empty key."""
        if bool(self.keys) + self.everything + bool(self.reason) != 1:
            raise UsageError(
                "give KEYs, or --all, or --reason", remedy="`spotstream dlq list` lists the letters"
            )
        for key in self.keys:
            letters.check_key(key)

    def check_unnamed(self, batches: Sequence[Stored]) -> None:
        """Raises :class:`UsageError` for batches that are named, where records are judged another way."""
        if self.keys and batches:
            raise UsageError(
                "a batch is sent as it was",
                where=batches[0].key,
                remedy="--edit and --profile are for single records",
            )

    def pick(self, stored: Sequence[Stored]) -> list[Stored]:
        """Raises :class:`Problem` for a key that none or several have."""
        if self.keys:
            return list({one.key: one for one in (letters.pick(stored, key) for key in self.keys)}.values())
        return [one for one in stored if self.everything or one.said.get("reason") == self.reason]


class Redrive:
    """One run over the open letters; ``report`` has what came of it."""

    def __init__(
        self, settings: Settings, *, profile: Profile | None, edited: bytes | None, dry_run: bool
    ) -> None:
        self._settings, self._profile, self._edited = settings, profile, edited
        self._pen = None if dry_run else Pen(settings.kafka)
        self.sent = Counter[str]()  #: letters, records and batches
        self.left: dict[str, str] = {}

    def run(self, wanted: Wanted) -> None:
        """Send what can be sent; letters that stay are in ``left``, by key, with the reason.

        Raises :class:`UsageError` for a batch that is named beside a profile or an edit, and
        :class:`Problem` for a key that none or several have.
        """
        chosen = []
        partitions = Asker(self._settings.kafka).topic(BATCHES.name).partitions
        for stored in wanted.pick(letters.index(self._settings.kafka)):
            why = _why_not(stored, self._settings.dlq.max_redrives)
            if not why and _partition(stored) not in partitions:
                why = f"{BATCHES.name} has no partition {_partition(stored)}"
            if why:
                self.left[stored.key] = why
            else:
                chosen.append(stored)
        whole = [stored for stored in chosen if stored.said["kind"] == "batch"]
        if self._profile or self._edited is not None:
            wanted.check_unnamed(whole)
        for some in _cut(whole, _AT_ONCE):
            self._send([_as_it_was(stored, letter) for stored, letter in self._load(some)])
        records = [stored for stored in chosen if stored.said["kind"] == "record"]
        for some in _by_partition(records, self._settings.batch.records):
            self._remake({stored.key: letter for stored, letter in self._load(some)})

    def _load(self, some: Sequence[Stored]) -> Iterator[tuple[Stored, DeadLetter]]:
        loaded = letters.load(self._settings.kafka, some)
        for stored in some:
            if stored.key in loaded:
                yield stored, loaded[stored.key]
            else:
                self.left[stored.key] = "parts of it are missing"

    def _remake(self, found: Mapping[str, DeadLetter]) -> None:
        batching = self._settings.batch
        upload = Upload(batching.upload, batching.multipart_above_bytes)
        made = remake(found, self._panel, self._codecs, upload, now(), edited=self._edited)
        self.left |= made.left
        if made.sending:
            self._send([made.sending])

    def _send(self, sendings: Sequence[Sending]) -> None:
        """Hand over the batches and mark their letters, in one transaction."""

        def produce(producer: Producer) -> None:
            for sending in sendings:
                made = sending.batch
                producer.produce(
                    BATCHES.name, made.body, made.key, partition=sending.partition, headers=sending.headers
                )
                for topic, block in sending.validated.items():
                    send_blocks(producer, topic, [block])
                for part_key in sending.gone:
                    producer.produce(DLQ.name, None, part_key)
                for key, letter in sending.letters.items():
                    letters.write(producer, key, letter)

        if self._pen and sendings:
            self._pen.commit(produce)
        for sending in sendings:
            self.sent.update(letters=len(sending.letters), records=sending.batch.records, batches=1)

    @cached_property
    def _panel(self) -> Panel:
        descriptors = read_descriptors(self._settings.kafka)
        if self._profile:
            update = {"profile": self._profile}
            return {file: Seat.of(found.model_copy(update=update)) for file, found in descriptors.items()}
        return {file: Seat.of(found) for file, found in descriptors.items()}

    @cached_property
    def _codecs(self) -> dict[Kind, Codec]:
        if self._pen is None:
            return {kind: Codec(kind, 0) for kind in KINDS}
        registry = Registry(self._settings.registry)
        return {kind: Codec(kind, registry.register(VALIDATED[kind].name, schema(kind))) for kind in KINDS}


def _partition(stored: Stored) -> int:
    """Of ``avion.raw``, and so of the batch that it goes into."""
    place, source = stored.said["place"], stored.said["source"]
    return int(place["partition"] if place else source[0])


def _is_whole(said: Mapping[str, Any]) -> bool:
    """Whether a letter of a batch says all that a redrive needs."""
    return said["kind"] != "batch" or bool(said["source"] and "batch-id" in said["headers"])


def _why_not(stored: Stored, most: int) -> str:
    """Why a letter cannot be sent again; empty when it can."""
    said = stored.said
    if not said or said["reason"] == "malformed" or not _is_whole(said):
        return "not a batch or a record of spotstream's; look at it with `dlq show --json`, then discard it"
    if said["stage"] == "tail":
        return (
            "only its beginning was kept; raise tail.max_record_bytes and tail the file anew, or discard it"
        )
    if said["under_way"]:
        since = datetime.now(UTC) - datetime.fromisoformat(said["under_way"])
        if since < timedelta(milliseconds=BATCHES.retention_ms):
            return f"a redrive is under way since {said['under_way']}"
    if said["retry_count"] >= most:
        return f"redriven {said['retry_count']} times already; discard it, or raise dlq.max_redrives"
    return ""


def _as_it_was(stored: Stored, letter: DeadLetter) -> Sending:
    """A batch's letter: the same key, body and headers."""
    ours = {REDRIVE_OF, REPLAY, REJECTED_BEFORE}
    headers = [(name, text.encode()) for name, text in letter.headers.items() if name not in ours]
    marked = letter.model_copy(update={"under_way": now()})
    waiting = [part_key for part_key, _ in parts.split(stored.key, marked)]
    headers.append((REDRIVE_OF, ",".join(waiting).encode()))
    made = Batch(letter.idempotency_key, letter.headers["batch-id"], letter.original, letter.records)
    gone = [key for key in stored.messages if letters.text(key) not in waiting]
    partition = letter.source.partition if letter.source else -1
    return Sending(made, headers, partition, {stored.key: marked}, {}, gone)


def _by_partition(records: Sequence[Stored], most: int) -> Iterator[list[Stored]]:
    """Records of one raw partition together, in their order there."""
    found: dict[int, list[Stored]] = defaultdict(list)
    for stored in records:
        found[_partition(stored)].append(stored)
    for _, some in sorted(found.items()):
        some.sort(key=lambda stored: int(stored.said["place"]["raw_offset"]))
        yield from _cut(some, most)


def _cut(some: list[Stored], most: int) -> Iterator[list[Stored]]:
    for start in range(0, len(some), most):
        yield some[start : start + most]


def run(settings: Settings, wanted: Wanted, *, profile: str, edit: Path | None, dry_run: bool) -> int:
    """Redrive and tell what came of it; the exit status is 1 when a letter that was named stays."""
    wanted.check()
    if edit and len(wanted.keys) != 1:
        raise UsageError("--edit goes with one KEY", remedy="the file has the bytes of one record")
    redrive = Redrive(
        settings,
        profile=profiles.load(profile) if profile else None,
        edited=_bytes(edit) if edit else None,
        dry_run=dry_run,
    )
    redrive.run(wanted)
    _tell(redrive, dry_run=dry_run)
    return int(bool(wanted.keys) and bool(redrive.left))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _tell(redrive: Redrive, *, dry_run: bool) -> None:
    screen = console()
    sent, would = redrive.sent, "would go" if dry_run else "went"
    screen.print(
        f"{sent['letters']:,} letters {would} to dispatch:"
        f" {sent['records']:,} records in {sent['batches']:,} batches"
    )
    for why, times in Counter(redrive.left.values()).most_common(_SHOWN):
        keys = [key for key, reason in redrive.left.items() if reason == why]
        screen.print(safe(f"{times:,} stay, {keys[0][:16]}{'…' if times > 1 else ''}: {why}"))
