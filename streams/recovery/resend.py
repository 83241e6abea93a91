"""Batches sent again, as they were: read where they are kept, or rebuilt from their raw records.

A batch goes back onto its partition of ``avstar.batches``, so dispatch sends it under the same ceilings as
everything. Only a few wait there at a time, so that live batches do not queue behind a whole day.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import NamedTuple

from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as KafkaMessage

from schemas.batch import Upload
from streams import log
from streams.dispatch.message import REJECTED_BEFORE, REPLAY
from streams.recovery.bookmark import Bookmark, Marks
from streams.recovery.rebuild import rebuild
from streams.recovery.selection import Row, Selection, is_of
from streams.settings import Settings
from streams.validate.descriptors import read_descriptors
from streams.validate.panel import Panel, Seat
from topics.catalogue import BATCHES, RAW
from topics.reader import read_records

logger = log.get("replay")

#: Batches of one replay that wait on a partition at a time.
_AHEAD = 4
_PAUSE_S = 0.2
_SILENT_S = 30.0


class Sending(NamedTuple):
    """A batch as it goes onto the topic; ``row`` is what it is of."""

    row: Row
    body: bytes
    headers: list[tuple[str, bytes]]


class Resend:
    """Sends the rows of ``selection`` that the ``marks`` have not passed; only records of ``kind``, if any.

    ``batches`` and ``records`` count what was handed over.
    """

    def __init__(
        self, settings: Settings, selection: Selection, kind: str, bookmark: Bookmark, marks: Marks
    ) -> None:
        self._settings, self._selection, self._kind = settings, selection, kind
        self._bookmark, self._marks = bookmark, marks
        self._under_way: dict[int, list[int]] = defaultdict(list)  # offsets on avstar.batches
        self.left = {
            partition: [row for row in rows if not marks.passed(partition, row.place)]
            for partition, rows in selection.rows.items()
        }
        self.batches = self.records = 0

    @property
    def waiting(self) -> int:
        """Batches that dispatch has not settled yet."""
        return sum(map(len, self._under_way.values()))

    def run(self, progress: Callable[[], None]) -> None:
        """Send all, wait until dispatch has settled them; ``progress`` is called again and again.

        Raises :class:`Problem` when the same replay is started elsewhere.
        """
        moved_at = time.monotonic()
        while any(self.left.values()) or self.waiting:
            before = self.waiting
            self._settle(self._bookmark.dispatched())
            if self._send_some() or self.waiting < before:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > _SILENT_S:
                moved_at = time.monotonic()
                logger.warning(
                    "no batch was taken for a while: does a dispatch worker run?", waiting=self.waiting
                )
            progress()
            time.sleep(_PAUSE_S)
        self._bookmark.end(self._marks)

    def try_out(self) -> None:
        """Count what :meth:`run` would send; batches that are not kept are rebuilt, to know."""
        for rows in self.left.values():
            for row in rows:
                if row.kept >= 0 or self.read(row):
                    self.batches += 1
                    self.records += row.records

    def _settle(self, dispatched: Mapping[int, int]) -> None:
        for partition, offsets in self._under_way.items():
            end = dispatched.get(partition, 0)
            self._under_way[partition] = [offset for offset in offsets if offset >= end]

    def _send_some(self) -> int:
        """Hand over as many as may wait, in one transaction with the bookmark; gives how many."""
        taken: list[Row] = []
        for partition, rows in self.left.items():
            room = max(0, _AHEAD - len(self._under_way[partition]))
            taken += rows[:room]
            self.left[partition] = rows[room:]
        if not taken:
            return 0
        told = len(self._selection.refused)
        sendings = [sending for row in taken if (sending := self.read(row))]
        for row in taken:
            self._marks.places[row.source.partition] = row.place
        for row, why in self._selection.refused[told:]:
            # Told and counted now: who goes on after an interruption does not come to it any more.
            self._marks.refused[row.source.partition] += 1
            source = row.source
            logger.error(
                "cannot be sent again", key=row.key, partition=source.partition, first=source.first, why=why
            )
        placed: list[tuple[int, int]] = []

        def produce(producer: Producer) -> None:
            placed.clear()
            for one in sendings:
                producer.produce(
                    BATCHES.name,
                    one.body,
                    one.row.key,
                    partition=one.row.source.partition,
                    headers=one.headers,
                    on_delivery=partial(_note, placed),
                )
            producer.flush(self._settings.kafka.timeout_s)  # tells where they are

        self._bookmark.commit(produce, self._marks)
        for partition, offset in placed:
            self._under_way[partition].append(offset)
        self.batches += len(sendings)
        self.records += sum(one.row.records for one in sendings)
        return len(taken)

    def read(self, row: Row) -> Sending | None:
        """The batch as it was, from where it is kept or rebuilt; None when it is not to be sent."""
        kafka, partition = self._settings.kafka, row.source.partition
        added = [(REPLAY, self._marks.name.encode())]
        if row.rejected_before:
            added.append((REJECTED_BEFORE, ",".join(map(str, sorted(row.rejected_before))).encode()))
        if row.kept >= 0:
            message = read_records(kafka, BATCHES.name, partition, [row.kept]).get(row.kept)
            if message is not None:
                ours = (REPLAY, REJECTED_BEFORE)
                headers = [(name, value) for name, value in message.headers() or () if name not in ours]
                return Sending(row, message.value() or b"", headers + added)
        found = read_records(kafka, RAW.name, partition, row.source.expand())
        rebuilt = rebuild(
            row.key, row.source, found, self._panel, self._upload, from_letters=row.from_letters
        )
        if isinstance(rebuilt, str):
            self._selection.refused.append((row, rebuilt))
            return None
        if not is_of(rebuilt.files, rebuilt.kinds, self._selection.files, self._kind):
            return None
        return Sending(row, rebuilt.batch.body, rebuilt.headers + added)

    @cached_property
    def _panel(self) -> Panel:
        descriptors = read_descriptors(self._settings.kafka)
        return {file: Seat.of(descriptor) for file, descriptor in descriptors.items()}

    @property
    def _upload(self) -> Upload:
        return Upload(self._settings.batch.upload, self._settings.batch.multipart_above_bytes)


def _note(placed: list[tuple[int, int]], error: KafkaError | None, message: KafkaMessage) -> None:
    if error is None:
        placed.append((message.partition(), message.offset()))
