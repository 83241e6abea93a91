"""Who may work on a partition, and from where: fence, then read the position, then consume.

On every assignment, kept partitions too, the partition's transactional producer is initialized first, which
aborts whatever the last owner left open; only then is the committed position read. The other order does
records twice whenever the old owner's transaction commits in between (the race KIP-447 is about). Each
transaction carries the group generation, so the broker itself refuses one that the group has moved past.
"""

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any, Final, NamedTuple, Protocol, cast

from aiokafka.structs import TopicPartition
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as Offset

from schemas.errors import Problem, Unreachable
from topics.admin import EARLIEST, LATEST, Asker, denial
from topics.connection import KafkaSettings
from topics.oldest import Oldest
from topics.passing import DISCONNECTED, NO_COORDINATOR_YET, NO_LEADER_YET
from topics.record import Fetched
from topics.transaction import AbandonedError, AbortedError, OwnershipLostError, TransactionalProducer


def group_metadata(group: str, generation: int, member: str) -> bytes:
    """The group's generation as confluent-kafka's producer takes it, of a group that aiokafka has joined.

    The layout is librdkafka's serialization (``rd_kafka_consumer_group_metadata_write``): ``CGMDv2:``, the
    generation as little-endian int32, group id and member id NUL-terminated, then 1 for "no instance id".
    """
    return b"CGMDv2:" + struct.pack("<i", generation) + f"{group}\0{member}\0".encode() + b"\1"


#: How much longer than the broker's transaction timeout a commit may take before the process gives up on it.
_GRACE_S = 5.0

_AWAY = NO_COORDINATOR_YET | DISCONNECTED | {KafkaError._TIMED_OUT, KafkaError._WAIT_COORD}
_PASSING = _AWAY | NO_LEADER_YET | {KafkaError._DESTROY_BROKER}
#: How long brokers may be away while partitions are taken over: a role that waits for them goes on at once,
#: one that is started anew comes to its group some ten seconds later.
_PATIENCE_S: Final = 60.0
#: How long the coordinator may take to answer before it is asked again; and of what it is asked. Of one
#: whose last transaction is still being ended it would answer only after that, 100 ms later.
_ASK_S, _NO_PARTITION = 1.0, 2**31 - 1
#: And for how long an answer, or a commit, says that it is there: busy roles need not ask.
_FRESH_S = 0.2

#: How often it is looked whether a commit hangs; and how many may, each with a thread of the pool.
_LOOK_S, _MOST_HUNG = 0.5, 16

logger = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """What one poll brought of one partition: records in order, the ``epoch`` of the assignment that fetched
    them, and the chunk's ``sequence`` number in that epoch, from 0."""

    partition: TopicPartition
    epoch: int
    sequence: int
    records: list[Fetched]


class Lane(Protocol):
    """The work on one owned partition, from one assignment to the next."""

    def feed(self, records: list[Fetched]) -> None:
        """Take the next records, in order. Does not block."""

    async def finish(self) -> None:
        """Commit what is in flight and begin nothing new. May be cancelled when the drain is over."""


def _repeatable(error: BaseException | None) -> str:
    """Why a transaction is to be repeated by another producer; empty where it is not."""
    if isinstance(error, AbortedError):
        return f"it was aborted ({error.args[0].str()})"
    if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.INVALID_TXN_STATE:
        return "its coordinator knows nothing of it"  # as after a restart
    return ""


class _Place(NamedTuple):
    """Where an owner begins; see :class:`Owned`."""

    position: int
    note: str
    end: int


class Owned:
    """One partition while it is ours: ``position`` to read from, ``note`` that the last commit left, and the
    ``end`` that the log had at the takeover, beyond which no owner before has read.

    :meth:`commit` moves the position; :meth:`pause` and :meth:`resume` hold back what is fetched.
    """

    def __init__(
        self,
        partition: TopicPartition,
        producer: TransactionalProducer,
        place: _Place,
        owner: "Ownership",
    ) -> None:
        self.partition, (self.position, self.note, self.end) = partition, place
        self._producer, self._owner = producer, owner
        self._group = owner.metadata
        self.next_sequence = 0
        self.lost = self._paused = False

    async def commit(self, produce: Callable[[Producer], None], position: int, note: str = "") -> None:
        """Commit what ``produce`` sends and the new ``position`` in one transaction, or neither.

        ``note`` (the offset's metadata) is what the next owner finds beside the position. Raises
        :class:`OwnershipLostError` when another owner or generation has taken over, :class:`Unreachable`,
        ``KafkaException``.
        """
        await self._owner.await_coordinator(self)
        offset = Offset(self.partition.topic, self.partition.partition, position, metadata=note)
        patience_s = self._owner.transaction_timeout_s + _GRACE_S
        try:
            # librdkafka's calls can outlast their timeouts (docs/decisions.md); the broker has aborted then.
            async with asyncio.timeout(patience_s):
                await self._commit(produce, offset)
        except (OwnershipLostError, AbandonedError):
            self._owner.report_lost(self)
            raise OwnershipLostError(f"{self.partition.topic}-{self.partition.partition}") from None
        except TimeoutError:
            what = f"a transaction has not ended within {patience_s:g} s"
            raise Unreachable(what, where=self._owner.kafka.bootstrap_servers) from None
        self.position, self.note = position, note
        self._owner.heard()

    async def _commit(self, produce: Callable[[Producer], None], offset: Offset) -> None:
        """The same by another producer where the call hangs, or the transaction is aborted or unknown."""
        while True:
            # Begun here and now: whoever asked for it judges next, and lets the loop do nothing meanwhile.
            committing = self._owner.blocking(self._producer.commit, produce, [offset], self._group)
            try:
                while not committing.done():
                    await asyncio.wait([committing], timeout=_LOOK_S)
                    if self._producer.give_up_if_hung():
                        why = self._owner.count_hung()
                        break
                else:
                    why = _repeatable(committing.exception())
                    if not why:
                        committing.result()
                        return
            finally:
                committing.cancel()
            self._producer = await self._owner.replace(self, why)
            # Both are in the transaction: they tell whether that was committed after all.
            place = await self._owner.place(self.partition)
            if (place.position, place.note) == (offset.offset, offset.metadata):
                return

    def pause(self) -> None:
        """Fetch no more for now; what was fetched already still arrives."""
        if not self._paused:
            self._paused = True
            self._owner.flow.pause_partitions({self.partition})

    def resume(self) -> None:
        """Fetch again."""
        if self._paused and not self.lost:
            self._paused = False
            self._owner.flow.resume_partitions({self.partition})

    def abandon(self) -> None:
        """Give up a transaction that may be under way."""
        self.lost = True
        self._producer.abandon()

    def ended(self, task: asyncio.Task[None]) -> None:
        """To be called when the lane's task is done: an error that it did not handle ends the process."""
        if not task.cancelled() and (error := task.exception()):
            self._owner.crash(error)


class Flow(Protocol):
    """What ownership needs of the consumer: to hold a partition back, to let it flow, to end the process."""

    def pause_partitions(self, tps: Iterable[Any]) -> None:
        """Fetch no more for these."""

    def resume_partitions(self, tps: Iterable[Any]) -> None:
        """Fetch again."""

    async def crash(self, reason: BaseException) -> None:
        """End the process with an error."""


class Ownership:
    """All partitions that this process owns in one consumer group. Lives on one event loop."""

    flow: Flow  #: set by the transport before the first assignment
    metadata: bytes = b""  #: of the current generation

    def __init__(
        self,
        kafka: KafkaSettings,
        group: str,
        *,
        lane: Callable[[Owned], Lane],
        transaction_timeout_s: float,
        session_timeout_s: float,
        drain_s: float,
        share: Callable[[int, int], None] = lambda *_: None,
        hold: Callable[[], bool] = lambda: False,
        made: str = "",
    ) -> None:
        """``made``: the topic that has, partition by partition, what positions were committed with.

        ``share`` is told at each assignment how many of the topic's partitions are ours, and of how many;
        while ``hold()`` is true, nothing is fetched, whatever an assignment resumes.
        """
        self.kafka, self.group = kafka, group
        self._share, self.hold, self._made = share, hold, made
        self.session_timeout_s = session_timeout_s
        self.epoch = 0
        self.joined = False  #: whether an assignment has been taken over yet, be it an empty one
        self._lane = lane
        self.transaction_timeout_s, self._drain_s = transaction_timeout_s, drain_s
        self._lanes: dict[TopicPartition, tuple[Owned, Lane]] = {}
        self._threads = ThreadPoolExecutor(32, "kafka")
        self._positions = Consumer(
            kafka.confluent(group_id=group, enable_auto_commit=False, isolation_level="read_committed")
        )
        self._asker = Asker(kafka, group)
        self._hung, self._answered = 0, -inf
        self._watches: set[asyncio.Task[None]] = set()

    @property
    def owned(self) -> list[Owned]:
        """The partitions that are ours now, in order."""
        return [owned for _, (owned, _) in sorted(self._lanes.items())]

    async def reachable(self, topic: str, timeout_s: float) -> bool:
        """Whether a broker tells of ``topic`` within that time."""
        try:
            await self.blocking(self._positions.list_topics, topic, timeout_s)
        except (KafkaException, RuntimeError):  # the latter: closed
            return False
        return True

    def heard(self) -> None:
        """The group's coordinator has just answered."""
        self._answered = time.monotonic()

    async def await_coordinator(self, owned: Owned) -> None:
        """Return once the group's coordinator answers, however long it is away: a transaction that is begun
        before may never end (docs/decisions.md). Raises :class:`OwnershipLostError` when ``owned`` is.
        """
        topic, partition = owned.partition
        if time.monotonic() < self._answered + _FRESH_S:
            return
        while not owned.lost:
            try:
                await self.blocking(self._asker.positions, topic, [_NO_PARTITION], _ASK_S)
            except KafkaException as exception:
                if exception.args[0].code() not in _AWAY:
                    return  # the commit will say what is wrong
                await asyncio.sleep(0.1)
            else:
                self.heard()
                return
        raise OwnershipLostError(f"{topic}-{partition}")

    async def replace(self, owned: Owned, why: str) -> TransactionalProducer:
        """Another producer in the place of one that is of no use any more. Raises as :meth:`assign`."""
        logger.warning("a transaction is begun anew by another producer, %s: %s", why, owned.partition)
        await self.await_coordinator(owned)
        return cast("TransactionalProducer", await self._demand(self._fence, owned.partition, owned))

    def count_hung(self) -> str:
        """One more thread that is lost until this process ends. Raises :class:`Unreachable` at too many."""
        self._hung += 1
        if self._hung > _MOST_HUNG:
            raise Unreachable(f"{_MOST_HUNG} transactions hung", where=self.kafka.bootstrap_servers)
        return "it hangs"

    async def place(self, partition: TopicPartition) -> _Place:
        """What the group has committed of a partition, no transaction under way."""
        (place,) = await self._demand(self._read_places, [partition])
        return cast("_Place", place)

    async def _demand(self, call: Callable[..., Any], *args: Any) -> Any:
        """What is needed to own a partition. Raises :class:`Unreachable`, ``Denied``."""
        try:
            return await self.blocking(call, *args)
        except KafkaException as exception:
            if denied := denial(exception.args[0], self.kafka, group=self.group):
                raise denied from None
            what = f"the broker does not hand partitions over: {exception.args[0].str()}"
            raise Unreachable(what, where=self.kafka.bootstrap_servers) from exception

    def blocking(self, call: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run a blocking Kafka call in a thread of its own, from now on."""
        return asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def transactional_id(self, partition: TopicPartition) -> str:
        """One id per group and partition, whoever owns it."""
        return f"{self.group}-{partition.topic}-{partition.partition}"

    async def assign(
        self, partitions: Iterable[TopicPartition], generation: int, member: str
    ) -> Mapping[TopicPartition, int]:
        """Take over ``partitions``: fence each, then read each position; returns the positions to seek to.

        Raises :class:`Unreachable` when the broker does not answer in time, :class:`Problem` when records
        were deleted before they were read, ``Denied`` for want of an ACL.
        """
        await self.release(list(self._lanes))
        self.epoch += 1
        self.metadata = group_metadata(self.group, generation, member)
        wanted = sorted(partitions)
        producers = await asyncio.gather(*(self._demand(self._fence, tp) for tp in wanted))
        found = await self._demand(self._read_places, wanted) if wanted else []
        total = await self._demand(self._partitions_of, wanted[0].topic) if wanted else 0
        if wanted:
            self._share(len(wanted), total)
        for tp, producer, place in zip(wanted, producers, found, strict=True):
            owned = Owned(tp, producer, place, self)
            self._lanes[tp] = owned, self._lane(owned)
        self.joined = True
        return {tp: place.position for tp, place in zip(wanted, found, strict=True)}

    def _fence(self, tp: TopicPartition, owned: Owned | None = None) -> TransactionalProducer:
        """``owned``: what is owned already. Once it is given up, to fence would end whoever has it next."""
        producer = TransactionalProducer(
            self.kafka, self.transactional_id(tp), timeout_s=self.transaction_timeout_s
        )

        def fence(timeout_s: float) -> None:
            if owned and owned.lost:
                raise AbandonedError(producer.transactional_id)
            producer.fence(min(timeout_s, _ASK_S) if owned else timeout_s)

        self._answer(fence)
        return producer

    def _read_places(self, wanted: list[TopicPartition]) -> list[_Place]:
        # librdkafka asks with require_stable, so this waits for a transaction that is still being ended.
        committed = self._answer(self._positions.committed, [Offset(*tp) for tp in wanted])
        begins, ends = (self._ends(wanted, which) for which in (EARLIEST, LATEST))
        return [self._place(at, begins[at.partition], ends[at.partition]) for at in committed]

    def _ends(self, wanted: list[TopicPartition], which: int) -> dict[int, int]:
        numbers = dict.fromkeys((tp.partition for tp in wanted), which)
        found: dict[int, int] = self._answer(self._asker.offsets, wanted[0].topic, numbers)
        return found

    def _answer(self, question: Callable[..., Any], *about: Any) -> Any:
        """Ask again while brokers are away, or find out who coordinates and leads."""
        give_up_at = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return question(*about, self.kafka.timeout_s)
            except KafkaException as exception:
                if exception.args[0].code() not in _PASSING or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.1)

    def _partitions_of(self, topic: str) -> int:
        return len(self._positions.list_topics(topic, self.kafka.timeout_s).topics[topic].partitions)

    def _place(self, committed: Offset, low: int, high: int) -> _Place:
        if committed.offset == OFFSET_INVALID:
            if low < high:
                self._check_beginning(committed)
            return _Place(low, "", high)
        # One offset is a marker: the position stands before that of the transaction that was read last, and
        # on a quiet partition retention takes it, too.
        if committed.offset < low - 1:
            raise Problem(
                f"records {committed.offset} to {low - 1} were deleted before {self.group} read them",
                where=f"{committed.topic}, partition {committed.partition}",
                remedy="lengthen the retention; to go on without them, set the group's offset by hand",
            )
        return _Place(max(committed.offset, low), committed.metadata or "", high)

    def _check_beginning(self, at: Offset) -> None:
        """Brokers forget a group that is away for longer than ``offsets.retention.minutes``, a week."""
        number = at.partition
        if not self._made or not self._answer(self._asker.offsets, self._made, {number: LATEST})[number]:
            return
        if Oldest(self.kafka, self._made, self.kafka.timeout_s).appended_ms({number: OFFSET_BEGINNING}):
            raise Problem(
                f"{self.group} has no position, but {self._made} has what it made: it would be made twice",
                where=f"{at.topic}, partition {number}",
                remedy="brokers forget a group that is away for offsets.retention.minutes; set its offset by"
                f" hand, behind the source-last of the last message of {self._made}, partition {number}",
            )

    def feed(self, chunk: Chunk) -> None:
        """Hand a chunk to its lane. One that an earlier assignment fetched is dropped: it is read again.

        Raises :class:`Problem` when a chunk is missing before this one: going on would lose its records.
        """
        owned, lane = self._lanes.get(chunk.partition, (None, None))
        if chunk.epoch != self.epoch or owned is None or lane is None or owned.lost:
            return
        if chunk.sequence != owned.next_sequence:
            raise Problem(
                f"chunk {chunk.sequence} arrived where {owned.next_sequence} was due",
                where=f"{chunk.partition.topic}, partition {chunk.partition.partition}",
                remedy="this is a defect; the process ends so that Kafka delivers again",
            )
        owned.next_sequence += 1
        lane.feed(chunk.records)

    async def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Give ``partitions`` up: what is in flight may finish within the drain time, or is abandoned."""
        leaving = [self._lanes.pop(tp) for tp in partitions if tp in self._lanes]
        if not leaving:
            return
        tasks = [asyncio.create_task(lane.finish()) for _, lane in leaving]
        _, late = await asyncio.wait(tasks, timeout=self._drain_s)
        for owned, _ in leaving:
            owned.abandon()
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Give everything up and close what reads positions."""
        await self.release(list(self._lanes))
        for watch in self._watches:
            watch.cancel()
        await self.blocking(self._positions.close)
        self._threads.shutdown(wait=False)

    def report_lost(self, owned: Owned) -> None:
        """Note that another owner has ``owned``; ends the process if the group does not confirm it soon."""
        if not owned.lost:
            owned.lost = True
            self._watch(self._await_rebalance(self.epoch, owned))

    async def _await_rebalance(self, epoch: int, owned: Owned) -> None:
        await asyncio.sleep(2 * self.session_timeout_s)
        if self.epoch == epoch:
            name = self.transactional_id(owned.partition)
            await self.flow.crash(OwnershipLostError(f"{name} was taken over outside this group"))

    def crash(self, error: BaseException) -> None:
        """End the process: Kafka delivers again to whoever comes next."""
        self._watch(self.flow.crash(error))

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        watch = asyncio.get_running_loop().create_task(work)
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
