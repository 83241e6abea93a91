"""The chunk transport: Faust's aiokafka driver, delivering one event per polled chunk and losing nothing.

Registered under the URL scheme ``chunks``. A stream event's value is a :class:`topics.ownership.Chunk`. Faust
keeps the agents, the consumer group, pausing and the worker's life cycle; offsets travel in the application's
transactions (:mod:`topics.ownership`), so everything in Faust that acks, counts gaps or commits is off here:
each of those paths loses or doubles records in faust-streaming 0.15.3 (docs/decisions.md has the list).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, cast

import aiokafka
import faust
from aiokafka import client
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import NoOffsetForPartitionError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.threads import ServiceThread

from topics import fetched
from topics.connection import KafkaSettings
from topics.ownership import Chunk, Ownership
from topics.token import ClientCredentials

SCHEME = "chunks"

#: What one fetch brings at the most, as it is compressed: 50 MB, the default, is what a worker would hold.
_FETCHED_BYTES = 8_388_608

#: A partition that does not exist: polling it keeps the group's poll clock alive and fetches nothing.
_NOWHERE = frozenset({TP("", -1)})


def _tell_if_alive(thread: ServiceThread) -> None:
    """As mode does it, but for a thread that has ended by an error, and closed its loop: its end would be
    told as an error of its own."""
    with contextlib.suppress(RuntimeError):
        thread.thread_loop.call_soon_threadsafe(thread._stopped.set)


ServiceThread._stopped_set = _tell_if_alive
# To ask about a topic is to have a broker create it, as it likes: aiokafka has no setting for that.
client.MetadataRequest = partial(client.MetadataRequest, allow_auto_topic_creation=False)
fetched.install()


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread. Seeks and fetches run on its loop, so a chunk's epoch is certain: a seek drops
    what was fetched before it, and whatever a fetch returns after it belongs to the new epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sequences: dict[TopicPartition, int] = {}
        self._epoch = 0

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:  # noqa: ARG002
        conf = self.app.conf
        ownership: Ownership = self.app.ownership
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=ownership.group,
            bootstrap_servers=ownership.kafka.bootstrap_servers,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            # Every position is sought; one that the log no longer holds must be an error, never a jump.
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_poll_records=conf.broker_max_poll_records,
            # A message that is larger comes all the same, alone.
            max_partition_fetch_bytes=_FETCHED_BYTES // 4,
            fetch_max_bytes=_FETCHED_BYTES,
            # Faust hard-codes 1500 ms here, which starves busy partitions behind caught-up ones.
            fetch_max_wait_ms=100,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def on_thread_stop(self) -> None:
        """As usual, but that aiokafka lets the cancellation of a fetch out that waits to be tried again, by
        which the thread would end with a traceback."""
        with contextlib.suppress(asyncio.CancelledError):
            await super().on_thread_stop()

    @property
    def member(self) -> str:
        """The id under which the group knows this process."""
        return cast("str", self._ensure_consumer()._coordinator.member_id)

    async def stay(self) -> None:
        """Tell the group that we are there while partitions are taken over: aiokafka would begin only after
        it, and a takeover longer than a session never come to an end."""
        await self.call_thread(self._stay)

    async def _stay(self) -> None:
        self._ensure_consumer()._coordinator._start_heartbeat_task()

    async def begin_epoch(self, epoch: int, positions: Mapping[TopicPartition, int]) -> None:
        """Seek to ``positions``; every chunk from now on belongs to ``epoch``."""
        await self.call_thread(self._begin_epoch, epoch, positions)

    async def _begin_epoch(self, epoch: int, positions: Mapping[TopicPartition, int]) -> None:
        consumer = self._ensure_consumer()
        for tp, position in positions.items():
            consumer.seek(tp, position)
        self._epoch = epoch
        self._sequences = dict.fromkeys(positions, 0)

    async def poll(self, partitions: frozenset[TP], timeout: float) -> list[Chunk]:
        """What has been fetched of ``partitions``, waiting up to ``timeout`` seconds for the first."""
        return cast("list[Chunk]", await self.call_thread(self._poll, partitions, timeout))

    async def _poll(self, partitions: frozenset[TP], timeout: float) -> list[Chunk]:
        consumer = self._ensure_consumer()
        # Where a background task of aiokafka's has failed, nobody keeps us in the group any more.
        consumer._coordinator.check_errors()
        try:
            fetched: dict[TopicPartition, list[Any]] = await self._fetch_records(
                consumer, partitions, timeout=timeout, max_records=consumer._max_poll_records
            )
        except NoOffsetForPartitionError:
            # Under way while partitions are assigned that nothing was ever committed of: the seek is to come.
            return []
        # No await from here on: between the fetch and its epoch no seek can come.
        chunks = []
        for tp, records in fetched.items():
            if tp in self._sequences:
                chunks.append(Chunk(tp, self._epoch, self._sequences[tp], records))
                self._sequences[tp] += 1
        return chunks


class Consumer(driver.Consumer):
    """Faust's consumer without its offset book-keeping: chunk order decides, not offset arithmetic."""

    _thread: ConsumerThread

    def __post_init__(self) -> None:
        super().__post_init__()
        self._resumed = asyncio.Event()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def ownership(self) -> Ownership:
        """The app's; see :class:`topics.transport.App`."""
        return cast("Ownership", self.app.ownership)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Drain and give up before Faust forgets the partitions."""
        await self.ownership.release(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fence, read the positions, seek; only then let Faust resume its streams."""
        ownership = self.ownership
        ownership.flow = self
        try:
            await self._thread.stay()
            positions = await ownership.assign(assigned, generation_id, self._thread.member)
            await self._thread.begin_epoch(ownership.epoch, positions)
        except Exception as exception:  # noqa: BLE001 - whatever it is, this process cannot own its partitions
            if (
                not self.should_stop
            ):  # else what it needs is closed already, and nothing will be done with them
                await self.crash(exception)
            return
        self._read_offset.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield a message per chunk. A chunk that was fetched is always delivered, paused or not: its
        partition's position has moved past it, so dropping it would lose its records."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        self._resumed.clear()
        active = frozenset() if self.ownership.hold() else frozenset(self._get_active_partitions())
        for chunk in await self._thread.poll(active or _NOWHERE, timeout if active else 0):
            yield chunk.partition, self._message(chunk)
        if not active:  # a lane that has room again is not kept waiting
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._resumed.wait(), 0.05)

    def resume_partitions(self, tps: Iterable[Any]) -> None:
        """Fetch again, at once."""
        super().resume_partitions(tps)
        self._resumed.set()

    def _message(self, chunk: Chunk) -> ConsumerMessage:
        last = chunk.records[-1]
        return ConsumerMessage(
            *chunk.partition, last.offset, last.timestamp / 1000, last.timestamp_type,
            (), None, chunk, None, 0, 0, chunk.partition, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def on_stop(self) -> None:
        """Give everything up before the group is left."""
        await self.ownership.close()
        await super().on_stop()

    async def perform_seek(self) -> None:
        """Nothing: each assignment seeks, and to the position read after the fence."""

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Nothing: a plain OffsetCommit beside a transaction's would move the group back."""
        return False

    async def wait_empty(self) -> None:
        """Nothing: the drain is bounded, and ownership's."""

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: gaps are transaction markers."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's livelock detector judges by its own commits, of which there are none."""


class Transport(driver.Transport):
    """Faust's aiokafka transport with the chunk consumer."""

    Consumer = Consumer


TRANSPORTS.aliases[SCHEME] = "topics.transport:Transport"


class ChunkSchema(faust.Schema):
    """Leaves a chunk as it is: records are decoded by the application, never by Faust's serializers."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:  # noqa: ARG002
        return None

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:  # noqa: ARG002
        return message.value


def credentials(kafka: KafkaSettings) -> Any:
    """Faust's form of the Kafka section's credentials; None without any."""
    context = kafka.ssl_context()
    if kafka.security_protocol.startswith("SASL"):
        if kafka.sasl_mechanism == "OAUTHBEARER":
            return faust.auth.OAuthCredentials(oauth_cb=ClientCredentials(kafka), ssl_context=context)
        return faust.SASLCredentials(
            mechanism=kafka.sasl_mechanism,
            username=kafka.sasl_username,
            password=kafka.password(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None


class App(faust.App):
    """A Faust app whose one agent feeds chunks to an :class:`Ownership`."""

    def __init__(self, ownership: Ownership, topic: str, *, max_poll_records: int, **options: Any) -> None:
        self.ownership, self.topic_name = ownership, topic
        servers = [server.strip() for server in ownership.kafka.bootstrap_servers.split(",")]
        super().__init__(
            ownership.group,
            broker=[f"{SCHEME}://{server}" for server in servers],
            broker_credentials=credentials(ownership.kafka),
            broker_session_timeout=ownership.session_timeout_s,
            broker_heartbeat_interval=ownership.session_timeout_s / 4,
            broker_max_poll_records=max_poll_records,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            autodiscover=False,
            # Faust's own pages tell of tables and chunks, in numbers that mislead here.
            web_router_enabled=False,
            web_tables_enabled=False,
            web_graph_enabled=False,
            web_stats_enabled=False,
            web_metrics_enabled=False,
            **options,
        )
        self.agent(self.topic(topic, schema=ChunkSchema(), acks=False), name=f"{ownership.group}")(self._feed)

    def _create_directories(self) -> None:
        """Nothing: there are no tables, whose folders Faust would leave wherever it was started."""

    async def _feed(self, stream: Iterable[Any]) -> None:
        async for event in stream.noack().events():  # type: ignore[attr-defined]
            try:
                self.ownership.feed(event.value)
            except Exception as exception:  # noqa: BLE001 - an agent that raises is restarted by Faust: end instead
                await self.consumer.crash(exception)
