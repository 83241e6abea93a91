"""Validate: windows of raw records, judged, each committed as one transaction."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from schemas.codec import Codec
from schemas.descriptor import Descriptor
from schemas.records import Kind
from streams import log, metrics
from streams.descriptors import Descriptors
from streams.judge import Judge
from streams.outcome import QUARANTINED, UNDESCRIBED, Outcome, Raw, Verdict, conclude
from streams.settings import BatchSettings
from streams.trial import survivors
from streams.window import Window
from topics.ownership import Owned
from topics.transaction import OwnershipLostError

logger = log.get("validate")

#: What a commit leaves beside the position before a first window is tried: the next owner that finds it
#: knows that the last one died there.
_TRYING = "trying"


class Judges:
    """A judge per file; they are kept, because each remembers the forms it has normalized."""

    _MOST = 1000

    def __init__(self, descriptors: Descriptors, blocking: Callable[..., Awaitable[Any]]) -> None:
        self._source, self._blocking = descriptors, blocking
        self._judges: dict[bytes, Judge] = {}
        #: Of the files whose judges are ready, by descriptor id.
        self.descriptors: dict[bytes, Descriptor] = {}

    async def prepare(self, window: Sequence[Raw]) -> None:
        """Have the judges of all files in the window ready."""
        if len(self._judges) > self._MOST:
            self._judges.clear()
            self.descriptors.clear()
        for identity in {(raw.key or b"")[:16] for raw in window}.difference(self._judges):
            descriptor = await self._blocking(self._source.get, identity)
            if descriptor:
                self._judges[identity] = Judge(descriptor)
                self.descriptors[identity] = descriptor

    def judge(self, window: Sequence[Raw]) -> list[Verdict]:
        """One verdict per record, in order."""
        by_file: dict[bytes, list[int]] = defaultdict(list)
        for index, raw in enumerate(window):
            by_file[(raw.key or b"")[:16]].append(index)
        verdicts: list[Verdict] = [UNDESCRIBED] * len(window)
        for identity, indices in by_file.items():
            judge = self._judges.get(identity)
            if judge is not None:
                values = [window[index].value or b"" for index in indices]
                for index, verdict in zip(indices, judge.judge(values), strict=True):
                    verdicts[index] = verdict
        return verdicts


class ValidateLane:
    """Validates one partition: gathers a window, judges it, commits it while the next one is judged."""

    def __init__(
        self, owned: Owned, settings: BatchSettings, judges: Judges, codecs: Mapping[Kind, Codec]
    ) -> None:
        self._owned, self._judges, self._codecs = owned, judges, codecs
        self._limit = settings.records
        self._window: Window[Raw] = Window(settings.records, settings.seconds)
        self._wake = asyncio.Event()
        self._finishing = self._paused = False
        self._died_here = owned.note == _TRYING
        self._clock = asyncio.get_running_loop().time
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(owned.ended)

    def feed(self, records: Sequence[Raw]) -> None:
        """Take records; holds the partition back while more than two windows wait."""
        self._window.add(records, self._clock())
        if len(self._window) > 2 * self._limit and not self._paused:
            self._paused = True
            self._owned.pause()
        self._wake.set()

    async def finish(self) -> None:
        """Commit what is being committed; a window that is only gathered is left to the next owner."""
        self._finishing = True
        self._wake.set()
        await self._task

    async def _run(self) -> None:
        commit = asyncio.get_running_loop().create_future()
        commit.set_result(None)
        first = True
        try:
            while window := await self._next_window():
                outcome = await self._outcome(window, first)
                first = False
                await commit
                if self._finishing:
                    return
                commit = asyncio.ensure_future(self._commit(outcome))
            await commit
        except OwnershipLostError as error:
            logger.warning("partition lost", partition=self._owned.partition.partition, error=str(error))

    async def _next_window(self) -> list[Raw]:
        """The next window when it is due; empty when there will be none."""
        while not self._finishing:
            self._wake.clear()
            due = self._window.due_in(self._clock())
            if due == 0.0:
                window = self._window.take()
                if self._paused and len(self._window) <= self._limit:
                    self._paused = False
                    self._owned.resume()
                return window
            try:
                await asyncio.wait_for(self._wake.wait(), due)
            except TimeoutError:
                continue
        return []

    async def _outcome(self, window: Sequence[Raw], first: bool) -> Outcome:
        partition = self._owned.partition.partition
        await self._judges.prepare(window)
        if first:
            verdicts = await self._first_verdicts(window)
        else:
            verdicts = self._judges.judge(window)
        return conclude(window, verdicts, partition, self._codecs, self._judges.descriptors)

    async def _first_verdicts(self, window: Sequence[Raw]) -> list[Verdict]:
        """Judge the first window since the assignment, which the last owner may have died of.

        The note is committed before, so a death here is known to the next owner; that one judges the window
        in a process of its own first and sets aside the records that end it.
        """
        if not self._died_here:
            await self._owned.commit(lambda _: None, self._owned.position, _TRYING)
            return self._judges.judge(window)
        logger.warning(
            "the last worker died here: judging apart", offset=window[0].offset, records=len(window)
        )
        alive = await survivors(window, self._judges.descriptors)
        verdicts = iter(self._judges.judge([raw for raw, lives in zip(window, alive, strict=True) if lives]))
        return [next(verdicts) if lives else QUARANTINED for lives in alive]

    async def _commit(self, outcome: Outcome) -> None:
        partition = self._owned.partition.partition
        await self._owned.commit(lambda producer: outcome.produce(producer, partition), outcome.end)
        metrics.RECORDS.labels("rejected").inc(len(outcome.letters))
        metrics.RECORDS.labels("accepted").inc(outcome.records - len(outcome.letters))
