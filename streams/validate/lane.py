"""Validate: windows of raw records, judged, each committed as one transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from schemas.batch import Upload
from schemas.codec import Codec
from schemas.descriptor import Descriptor
from schemas.errors import Unreachable
from schemas.records import Kind, Verdict
from streams import log, metrics, traces
from streams.settings import BatchSettings
from streams.validate.descriptors import Descriptors
from streams.validate.downstream import EVERY_S, Downstream
from streams.validate.flood import Rejections
from streams.validate.outcome import QUARANTINED, Outcome, conclude
from streams.validate.panel import Panel, Seat, identities, verdicts
from streams.validate.trial import Trial
from streams.validate.window import Window
from topics.catalogue import RAW
from topics.ownership import Owned
from topics.record import Record
from topics.transaction import OwnershipLostError

logger = log.get("validate")

#: What stands beside the position while the records behind it are on probation: an owner that finds it knows
#: that the last one died on one of them.
_TRYING = "trying"

#: Of raw records in a window, however few they are: what is made of them has several times as much.
_WINDOW_BYTES = 4_194_304


class Judges:
    """Keeps the files' judges, because each remembers the forms that it has normalized; and the trial."""

    _MOST = 1000
    _AGAIN_S = 1.0

    def __init__(self, descriptors: Descriptors, blocking: Callable[..., Awaitable[Any]]) -> None:
        self._source, self._blocking = descriptors, blocking
        self._seats: dict[bytes, Seat] = {}
        self.trial = Trial()

    async def panel(self, window: Sequence[Record]) -> Panel:
        """The judges of all files in the window; waits for a broker that is away."""
        found: dict[bytes, Seat] = {}
        for file in set(identities(window)) - {b""}:
            seat = self._seats.get(file)
            if seat is None:
                descriptor = await self._descriptor(file)
                if descriptor is None:
                    continue
                seat = Seat.of(descriptor)
                if len(self._seats) >= self._MOST:
                    self._seats.clear()
                self._seats[file] = seat
            found[file] = seat
        return found

    async def _descriptor(self, file: bytes) -> Descriptor | None:
        while True:
            try:
                return cast("Descriptor | None", await self._blocking(self._source.get, file))
            except Unreachable as silence:
                logger.warning("waiting for Kafka", why=str(silence))
                await asyncio.sleep(self._AGAIN_S)


class ValidateLane:
    """Validates one partition: gathers a window, judges it, commits it while the next one is judged."""

    def __init__(
        self,
        owned: Owned,
        settings: BatchSettings,
        judges: Judges,
        codecs: Mapping[Kind, Codec],
        rejections: Rejections,
        *,
        downstream: Downstream,
    ) -> None:
        self._owned, self._judges, self._codecs = owned, judges, codecs
        self._early_s = settings.early_seconds
        self._downstream = downstream
        self._rejections = rejections
        self._upload = Upload(settings.upload, settings.multipart_above_bytes)
        self._window: Window[Record] = Window(settings.records, settings.seconds, _WINDOW_BYTES, _size)
        self._wake = asyncio.Event()
        self._finishing = False
        # One window is judged while the one before is committed, so whoever died left the position at most
        # one window before that of the record it died of: two windows are suspect, as far as there was a log.
        self._suspects = 2 * settings.records
        self._apart = owned.note == _TRYING
        self._committing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._committing.set_result(None)
        self._clock = asyncio.get_running_loop().time
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(owned.ended)

    def feed(self, records: Sequence[Record]) -> None:
        """Take records; holds the partition back while a window waits."""
        self._window.add(records, self._clock())
        if self._window.is_full:
            self._owned.pause()
        self._wake.set()

    async def finish(self) -> None:
        """Commit what is being committed; a window that is only gathered is left to the next owner."""
        self._finishing = True
        self._wake.set()
        await self._task
        if self._owned.note == _TRYING and not self._owned.lost:
            await self._owned.commit(lambda _: None, self._owned.position)

    async def _run(self) -> None:
        try:
            while window := await self._next_window():
                outcome = await self._outcome(window)
                await self._committing
                await self._let_pass(outcome)
                if self._finishing:
                    return
                note = _TRYING if self._on_probation(outcome.end) else ""
                self._committing = asyncio.ensure_future(self._commit(outcome, note))
                self._committing.add_done_callback(lambda _: self._wake.set())
                del window, outcome  # a partition that waits holds nothing of its last one
                await asyncio.sleep(0)  # begin it before the next window is judged, which takes this thread
            await self._committing
        except OwnershipLostError as error:
            logger.warning("partition lost", partition=self._owned.partition.partition, error=str(error))
        finally:
            self._committing.cancel()

    async def _let_pass(self, outcome: Outcome) -> None:
        """Hold the partition, until the worker ends, rather than turn nearly all of it into dead letters."""
        if not self._rejections.flooded(outcome.records, len(outcome.letters)):
            return
        partition, found = self._owned.partition.partition, self._rejections
        metrics.FLOOD_GUARD.labels(RAW.name, partition).set(1)
        logger.error(
            "flood guard",
            why=f"{found.rejected} of the last {found.records} records rejected: the partition is held",
            remedy="mend what is wrong and start again; with dlq.flood_share = 1 they are all rejected",
            partition=partition,
            offset=self._owned.position,
            reasons=[letter.reasons for _, letter in outcome.letters[:3]],
        )
        try:
            while not self._finishing:
                self._wake.clear()
                await self._wake.wait()
        finally:
            metrics.FLOOD_GUARD.remove(RAW.name, str(partition))

    async def _next_window(self) -> list[Record]:
        """The next window when it is due; empty when there will be none."""
        while not self._finishing:
            self._wake.clear()
            if self._committing.done():
                self._committing.result()  # a commit that failed is not left until the next window comes
            due = self._due_in()
            if due == 0.0:
                window = self._window.take()
                if not self._window.is_full:
                    self._owned.resume()
                return window
            try:
                await asyncio.wait_for(self._wake.wait(), due)
            except TimeoutError:
                continue
        return []

    def _due_in(self) -> float | None:
        """Seconds until the next window is due, or until it is worth to ask again whether it may be."""
        if not self._early_s:
            return self._window.due_in(self._clock())
        idle = self._downstream.is_idle(self._owned.partition.partition)
        if idle and self._committing.done():
            return self._window.due_in(self._clock(), self._early_s)
        due = self._window.due_in(self._clock())
        return None if due is None else min(due, EVERY_S)

    async def _outcome(self, window: Sequence[Record]) -> Outcome:
        panel = await self._judges.panel(window)
        on_probation = self._on_probation(window[0].offset)
        found = await self._on_trial(window, panel) if on_probation else verdicts(window, panel)
        self._suspects -= len(window)
        descriptors = {file: seat.descriptor for file, seat in panel.items()}
        partition = self._owned.partition.partition
        return conclude(window, found, partition, self._codecs, descriptors, upload=self._upload)

    def _on_probation(self, offset: int) -> bool:
        """Whether the last owner may have died of what lies there."""
        return self._suspects > 0 and offset < self._owned.end

    async def _on_trial(self, window: Sequence[Record], panel: Panel) -> list[Verdict]:
        """Judge a window that the last owner may have died of.

        A note is committed before, so a death here is known to the next owner; that one judges the window
        in a process of its own first and sets aside the records that end it.
        """
        if self._owned.note != _TRYING:
            await self._owned.commit(lambda _: None, self._owned.position, _TRYING)
        if not self._apart:
            return verdicts(window, panel)
        logger.warning("the last worker died: judging apart", offset=window[0].offset, records=len(window))
        descriptors = {file: seat.descriptor for file, seat in panel.items()}
        alive = await self._judges.trial.survivors(window, descriptors)
        lived = iter(verdicts([raw for raw, lives in zip(window, alive, strict=True) if lives], panel))
        return [next(lived) if lives else QUARANTINED for lives in alive]

    async def _commit(self, outcome: Outcome, note: str) -> None:
        partition = self._owned.partition.partition
        await self._owned.commit(lambda producer: outcome.produce(producer, partition), outcome.end, note)
        if outcome.batch:
            self._downstream.expect(partition)
        logger.debug(
            "batch made",
            batch_id=outcome.batch.batch_id if outcome.batch else "",
            records=outcome.records,
            rejected=len(outcome.letters),
            partition=partition,
            end=outcome.end,
        )
        _count(outcome)
        if outcome.batch:
            found = {"spotstream.records": outcome.records, "spotstream.rejected": len(outcome.letters)}
            traces.tell("validate", outcome.batch.batch_id, outcome.appended_ms / 1000, found)


def _size(raws: Sequence[Record]) -> int:
    return sum([len(raw.value or b"") for raw in raws])


def _count(outcome: Outcome) -> None:
    letters = [letter for _, letter in outcome.letters]
    metrics.RECORDS.labels("rejected").inc(len(letters))
    metrics.RECORDS.labels("accepted").inc(outcome.records - len(letters))
    metrics.count_letters("validate", (letter.reason for letter in letters))
    metrics.count_rejections((letter.reason, why["field"]) for letter in letters for why in letter.reasons)
