"""Dispatch: batches to Avstar, several at once; outcomes and positions committed together, in order."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from confluent_kafka import Producer

from schemas.letter import DeadLetter
from streams import log, metrics, traces
from streams.dispatch import halving
from streams.dispatch.answer import Booked
from streams.dispatch.halving import Deliverer
from streams.dispatch.held import Held
from streams.dispatch.message import Message, RawOriginal
from streams.dispatch.settlement import Settlement, malformed, settle
from streams.recovery import letters
from streams.settings import DispatchSettings
from topics.catalogue import RAW
from topics.connection import KafkaSettings
from topics.ownership import Owned
from topics.reader import read_records
from topics.record import Fetched
from topics.transaction import OwnershipLostError

logger = log.get("dispatch")

#: Messages that wait in a lane before its partition is held back, for each that may be in flight.
_WAITING_PER_FLIGHT = 2


class _Flight(NamedTuple):
    offset: int
    since: float  # monotonic
    settlement: asyncio.Task[Settlement]


class DispatchLane:
    """Delivers the batches of one partition.

    Deliveries end in any order; what is committed is always the unbroken run of ended ones at the head, so a
    crash sends again at most what was in flight, under the same keys.
    """

    def __init__(
        self,
        owned: Owned,
        delivery: Deliverer,
        settings: DispatchSettings,
        kafka: KafkaSettings,
        *,
        held: Held,
    ) -> None:
        self._owned, self._delivery, self._kafka, self._held = owned, delivery, kafka, held
        self._most = _WAITING_PER_FLIGHT * settings.per_partition
        self._slots = asyncio.Semaphore(settings.per_partition)
        self._flights: deque[_Flight] = deque()
        self._wake = asyncio.Event()
        self._finishing = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(owned.ended)

    def feed(self, records: Sequence[Fetched]) -> None:
        """Take batches; holds the partition back while more wait than can soon be sent."""
        for record in records:
            size = len(record.value or b"")
            self._held.take(size)
            task = asyncio.create_task(self._deliver(record))
            task.add_done_callback(partial(self._ended, size))
            self._flights.append(_Flight(record.offset, time.monotonic(), task))
        self._hold()
        self._wake.set()

    def _ended(self, size: int, _: asyncio.Task[Settlement]) -> None:
        self._held.give(size)
        self._wake.set()

    def _hold(self) -> None:
        """Hold the partition back, or fetch again. One batch of each may always be there."""
        if self._flights and (len(self._flights) > self._most or self._held.is_full):
            self._owned.pause()
            self._held.tell(self._wake)
        elif len(self._flights) <= self._most // 2:
            self._owned.resume()

    async def finish(self) -> None:
        """Start nothing new, commit what ends while the caller waits."""
        self._finishing = True
        self._wake.set()
        try:
            await self._task
        finally:
            for flight in self._flights:
                flight.settlement.cancel()

    async def _run(self) -> None:
        try:
            while not (self._finishing and not self._under_way()):
                await self._wake.wait()
                self._wake.clear()
                await self._commit_head()
                self._hold()
        except OwnershipLostError as error:
            logger.warning("partition lost", partition=self._owned.partition.partition, error=str(error))
        finally:
            for flight in self._flights:
                flight.settlement.cancel()

    def _under_way(self) -> bool:
        """Whether the head can still end: what waits for a slot never will once we are finishing."""
        return bool(self._flights) and not self._flights[0].settlement.cancelled()

    async def _commit_head(self) -> None:
        """Commit every flight at the head that has ended, in one transaction."""
        ended: list[_Flight] = []
        position = self._owned.position
        while self._flights and self._flights[0].settlement.done():
            if self._flights[0].settlement.cancelled():
                break
            flight = self._flights.popleft()
            ended.append(flight)
            position = flight.offset + 1
        if not ended:
            return
        settlements = [flight.settlement.result() for flight in ended]

        def produce(producer: Producer) -> None:
            for settlement in settlements:
                settlement.produce(producer)

        await self._owned.commit(produce, position)
        for flight, settlement in zip(ended, settlements, strict=True):
            _count(settlement, time.monotonic() - flight.since)

    async def _deliver(self, record: Fetched) -> Settlement:
        try:
            message = Message.read(record.key, record.value, dict(record.headers))
        except ValueError as error:
            logger.warning("not a batch", offset=record.offset, error=str(error))
            return malformed(record.key, record.value, str(error))
        batch_id = message.batch.batch_id
        with log.about(batch_id=batch_id), traces.batch("dispatch", batch_id) as span:
            settlement = await self._settled(message)
            if settlement.receipt:
                span.set_attribute("spotstream.outcome", settlement.receipt.status)
            return settlement

    async def _settled(self, message: Message) -> Settlement:
        async with self._slots:
            if self._finishing:
                raise asyncio.CancelledError
            ended = await halving.deliver(self._delivery, message.batch)
        answer = ended.delivered.answer
        if not isinstance(answer, Booked):
            return settle(message, ended, {}, await self._renewed(message))
        originals = await self._originals(message, [rejection["index"] for rejection in answer.rejected])
        return settle(message, ended, originals, await self._renewed(message) if answer.rejected else {})

    async def _renewed(self, message: Message) -> dict[str, DeadLetter]:
        """The dead letters whose redrive failed."""
        if not message.redrives:
            return {}
        return await asyncio.to_thread(letters.read, self._kafka, message.redrives)

    async def _originals(self, message: Message, rejected: list[int]) -> dict[int, RawOriginal]:
        """The raw records that Avstar rejects or did, read where they came from: dead letters show those."""
        indices = {*rejected, *message.rejected_before}
        if not indices:
            return {}
        offsets = message.source.expand()
        wanted = [offsets[index] for index in indices]
        found = await asyncio.to_thread(read_records, self._kafka, RAW.name, message.source.partition, wanted)
        return {offset: RawOriginal(raw.key() or b"", raw.value() or b"") for offset, raw in found.items()}


def _count(settlement: Settlement, seconds: float) -> None:
    """Count and log what is committed; ``seconds``: since its batch arrived."""
    receipt = settlement.receipt
    logger.debug(
        "batch ended",
        batch_id=receipt.batch_id if receipt else "",
        key=settlement.key,
        outcome=receipt.status if receipt else "malformed",
        attempts=receipt.attempts if receipt else 0,
        seconds=round(seconds, 3),
        letters=len(settlement.letters),
    )
    metrics.count_letters("dispatch", (letter.reason for _, letter in settlement.letters))
    metrics.BATCHES.labels(receipt.status if receipt else "malformed").inc()
    if receipt:
        metrics.BATCH_SECONDS.observe(seconds)
        metrics.BATCH_ATTEMPTS.observe(receipt.attempts)
        new, known = receipt.booked
        metrics.BOOKED.labels("new").inc(new)
        metrics.BOOKED.labels("known").inc(known)
        metrics.BOOKED.labels("rejected").inc(len(receipt.rejected))
    if settlement.appended_ms is not None:
        # Clocks differ between machines, and nothing is booked before it is appended.
        metrics.BOOKING_SECONDS.observe(max(0.0, time.time() - settlement.appended_ms / 1000))
