"""The ownership protocol on a real broker: fence, read the position, consume; nothing lost, nothing twice."""

import asyncio
import ctypes
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaClient, AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.structs import TopicPartition
from chaos.links import Links
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Producer, cimpl
from confluent_kafka import TopicPartition as Offset
from confluent_kafka.admin import AdminClient
from copier import CopyLane, make_app

from schemas.errors import Problem
from streams.lab.kafka import Broker
from topics import provision, transaction
from topics.admin import EARLIEST, LATEST, Asker
from topics.block import _handle
from topics.catalogue import Topic
from topics.connection import KafkaSettings
from topics.ownership import Chunk, Ownership, group_metadata
from topics.transaction import AbandonedError, OwnershipLostError, TransactionalProducer, send_all

pytestmark = pytest.mark.broker
COPIER = Path(__file__).with_name("copier.py")


def fill(bootstrap, topic, partitions, records, start=0):
    """Records ``start``… in turn over the partitions; the value is the number."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for partition in range(partitions):
        send_all(
            producer,
            topic,
            [
                {"key": b"", "value": b"%d" % n}
                for n in range(start, start + records)
                if n % partitions == partition
            ],
            partition,
        )
        producer.flush()


def drain(bootstrap, topic, partitions, wanted, timeout_s=60):
    """Values per partition at read_committed, until ``wanted`` are there and no more come for a moment."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "oracle", "isolation.level": "read_committed"}
    )
    consumer.assign([Offset(topic, partition, 0) for partition in range(partitions)])
    found = {partition: [] for partition in range(partitions)}
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        messages = consumer.consume(10_000, timeout=1.0)
        for message in messages:
            assert message.error() is None
            found[message.partition()].append(int(message.value()))
        if not messages and sum(map(len, found.values())) >= wanted:
            break
    consumer.close()
    return found


def expected(partitions, records):
    return {
        partition: [n for n in range(records) if n % partitions == partition]
        for partition in range(partitions)
    }


@pytest.fixture(autouse=True)
def group_coordinator(broker, unique):
    """A first question to the group's coordinator creates its topic; before that, librdkafka's transactional
    offsets hang (docs/decisions.md)."""
    deadline = time.monotonic() + 15
    while True:
        try:
            committed(broker.bootstrap, unique, "any")
        except KafkaException:  # the broker has just started and does not know yet who coordinates
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def without_lanes(bootstrap, group, kind=Ownership, *, transaction_timeout_s=15, timeout_s=15, made=""):
    """Owns partitions of which the test makes what it likes."""
    return kind(
        KafkaSettings(bootstrap_servers=bootstrap, timeout_s=timeout_s),
        group,
        lane=lambda _: None,
        transaction_timeout_s=transaction_timeout_s,
        session_timeout_s=6,
        drain_s=1,
        made=made,
    )


def committed(bootstrap, group, topic, partition=0):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    (found,) = consumer.committed([Offset(topic, partition)], timeout=10)
    consumer.close()
    return found.offset


class Copier:
    """A copier process; what it prints goes to a file, so that a test can wait for it."""

    def __init__(self, bootstrap, group, source, target, output):
        self.output = output.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, COPIER, bootstrap, group, source, target, "200"],
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def signal(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        self.process.kill()
        self.process.wait(10)
        self.output.close()


@pytest.mark.timeout(170)
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_stops_joins_and_leaves_lose_and_double_nothing(broker, make_topic, unique, tmp_path, seed):
    """SIGKILL, SIGTERM, SIGSTOP past the session timeout and back, and joins, while records keep coming."""
    partitions, rounds, per_round = 4, 9, 4000
    source, target = make_topic("source", partitions), make_topic("target", partitions)
    choose = random.Random(seed)
    schedule = [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, None] * 2
    choose.shuffle(schedule)
    copiers, ended = [], []

    def start():
        output = tmp_path / f"copier-{len(copiers) + len(ended)}.log"
        copiers.append(Copier(broker.bootstrap, unique, source, target, output))

    start()
    start()
    try:
        for turn in range(rounds):
            fill(broker.bootstrap, source, partitions, per_round, turn * per_round)
            time.sleep(choose.uniform(0.2, 1.5))
            action = schedule[turn] if turn < len(schedule) else None
            if action is None:
                start()
                continue
            victim = copiers.pop(choose.randrange(len(copiers)))
            victim.signal(action)
            ended.append(victim)
            if action == signal.SIGSTOP:
                time.sleep(9)  # past the session timeout of 6 s: its partitions move
                victim.signal(signal.SIGCONT)
            start()
        found = drain(broker.bootstrap, target, partitions, rounds * per_round, 90)
    finally:
        for copier in copiers + ended:
            copier.end()
    assert found == expected(partitions, rounds * per_round)


async def test_the_position_is_read_after_the_fence(broker, make_topic, unique):
    """The interleaving that doubles records: the old owner commits after the new one read the position."""
    topic = make_topic("source")
    fill(broker.bootstrap, topic, 1, 100)
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    outside = group_metadata(unique, -1, "")
    old = TransactionalProducer(kafka, f"{unique}-{topic}-0", timeout_s=15)
    old.fence()
    old.commit(lambda _: None, [Offset(topic, 0, 10)], outside)
    outcome = []

    class Raced(Ownership):
        def _read_places(self, wanted):
            found = super()._read_places(wanted)
            try:
                old.commit(lambda _: None, [Offset(topic, 0, 20)], outside)
                outcome.append("committed")
            except OwnershipLostError:
                outcome.append("fenced")
            return found

    ownership = without_lanes(broker.bootstrap, unique, Raced)
    positions = await ownership.assign([TopicPartition(topic, 0)], -1, "")
    assert outcome == ["fenced"]
    assert (
        positions
        == {TopicPartition(topic, 0): committed(broker.bootstrap, unique, topic)}
        == {TopicPartition(topic, 0): 10}
    )
    ownership._lanes.clear()
    await ownership.close()


async def test_an_open_transaction_of_the_last_owner_is_aborted_by_the_fence(broker, make_topic, unique):
    """What a killed owner left open is neither read nor waited for until its timeout."""
    topic, target = make_topic("source"), make_topic("target")
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    dead = Producer(kafka.confluent(transactional_id=f"{unique}-{topic}-0", transaction_timeout_ms=60_000))
    dead.init_transactions(10)
    dead.begin_transaction()
    dead.produce(target, b"1")
    dead.send_offsets_to_transaction([Offset(topic, 0, 50)], group_metadata(unique, -1, ""), 10)
    dead.flush(10)
    began = time.monotonic()
    ownership = without_lanes(broker.bootstrap, unique, made=target)
    positions = await ownership.assign([TopicPartition(topic, 0)], -1, "")
    assert positions == {TopicPartition(topic, 0): 0}
    assert time.monotonic() - began < 10
    assert committed(broker.bootstrap, unique, topic) == OFFSET_INVALID
    ownership._lanes.clear()
    await ownership.close()


async def test_a_position_that_is_gone_is_no_beginning(broker, make_topic, unique):
    """Brokers forget a group that is away for a week; all that the log still has would be made once more."""
    topic, made = make_topic("source", 2), make_topic("made", 2)
    fill(broker.bootstrap, topic, 2, 100)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    ownership = without_lanes(broker.bootstrap, unique, made=made)
    await ownership.assign([first, second], -1, "")
    await ownership.owned[0].commit(lambda producer: producer.produce(made, b"1", partition=0), 5)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.delete_consumer_groups([unique])[unique].result()
    ownership._lanes.clear()
    assert await ownership.assign([second], -1, "") == {second: 0}
    ownership._lanes.clear()
    with pytest.raises(Problem, match="it would be made twice"):
        await ownership.assign([first, second], -1, "")
    ownership._lanes.clear()
    empty = TopicPartition(make_topic("empty", 2), 0)  # of which nothing can be made, twice or once
    assert await ownership.assign([empty], -1, "") == {empty: 0}
    ownership._lanes.clear()
    await ownership.close()


async def test_the_broker_refuses_a_stale_generation(broker, make_topic, unique):
    """Pins librdkafka's group metadata bytes: the current generation is taken, the one before is not."""
    topic = make_topic("source", 2)
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)

    def member():
        return AIOKafkaConsumer(
            topic,
            bootstrap_servers=broker.bootstrap,
            group_id=unique,
            enable_auto_commit=False,
            heartbeat_interval_ms=300,
        )

    first, second = member(), member()
    await first.start()
    coordinator = first._coordinator
    stale = group_metadata(unique, coordinator.generation, coordinator.member_id)

    async def commit(offset, metadata):
        producer = TransactionalProducer(kafka, unique, timeout_s=15)
        await asyncio.to_thread(producer.fence)
        await asyncio.to_thread(producer.commit, lambda _: None, [Offset(topic, 0, offset)], metadata)

    await commit(1, stale)
    generation = coordinator.generation
    await second.start()
    while coordinator.generation == generation or len(first.assignment()) != 1:
        await asyncio.sleep(0.05)
    current = group_metadata(unique, coordinator.generation, coordinator.member_id)
    with pytest.raises(OwnershipLostError, match="generation"):
        await commit(2, stale)
    await commit(3, current)
    stranger = group_metadata(unique, coordinator.generation, "nobody")
    with pytest.raises(OwnershipLostError, match="member"):
        await commit(4, stranger)
    await second.stop()
    await first.stop()
    assert committed(broker.bootstrap, unique, topic) == 3


async def running(app):
    """Start the app and wait until it owns something."""
    await app.start()
    while not app.ownership._lanes:
        await asyncio.sleep(0.05)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.05)


async def copied(broker, target, partitions, wanted):
    return await asyncio.to_thread(drain, broker.bootstrap, target, partitions, wanted)


async def test_no_plain_offset_commit_is_ever_sent(broker, make_topic, unique, monkeypatch):
    """Beside a transaction's offsets a plain OffsetCommit moves the group back."""
    source, target = make_topic("source", 2), make_topic("target", 2)
    sent = set()
    original = AIOKafkaClient.send

    async def spy(self, node, request, **options):
        sent.add(type(request).__name__)
        return await original(self, node, request, **options)

    monkeypatch.setattr(AIOKafkaClient, "send", spy)
    fill(broker.bootstrap, source, 2, 5000)
    app = make_app(broker.bootstrap, unique, source, target, broker_commit_interval=0.1)
    await running(app)
    assert await copied(broker, target, 2, 5000) == expected(2, 5000)
    await app.stop()
    assert any("Fetch" in name for name in sent), sent
    assert not any("OffsetCommit" in name for name in sent), sent
    assert committed(broker.bootstrap, unique, source) >= 2500


async def test_markers_and_aborted_records_leave_no_holes(broker, make_topic, unique):
    """Offsets have gaps where transactions end; what was aborted is not copied."""
    source, target = make_topic("source"), make_topic("target")
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    producer = Producer(kafka.confluent(transactional_id=unique, linger_ms=0))
    producer.init_transactions(10)
    kept = []
    for turn in range(40):
        producer.begin_transaction()
        for n in range(turn * 3, turn * 3 + 3):
            producer.produce(source, b"%d" % n, partition=0)
        if turn % 4 == 3:
            producer.flush(10)
            producer.abort_transaction(10)
        else:
            producer.commit_transaction(10)
            kept += range(turn * 3, turn * 3 + 3)
    app = make_app(broker.bootstrap, unique, source, target, chunk=7)
    await running(app)
    assert await copied(broker, target, 1, len(kept)) == {0: kept}
    await app.stop()


async def test_pausing_while_a_fetch_is_under_way_loses_nothing(broker, make_topic, unique):
    """Faust drops what a fetch brings for a partition paused meanwhile; the chunk transport must not."""
    source, target = make_topic("source", 2), make_topic("target", 2)
    fill(broker.bootstrap, source, 2, 40_000)
    app = make_app(broker.bootstrap, unique, source, target, chunk=100)
    await running(app)
    owned = [owned for owned, _ in app.ownership._lanes.values()]

    async def flap():
        while True:
            for one in owned:
                one.pause()
            await asyncio.sleep(0.003)
            for one in owned:
                one.resume()
            await asyncio.sleep(0.003)

    flapping = asyncio.create_task(flap())
    found = await copied(broker, target, 2, 40_000)
    flapping.cancel()
    await app.stop()
    assert found == expected(2, 40_000)


async def test_what_is_held_stays_held_through_assignments(broker, make_topic, unique):
    """Faust resumes everything at an assignment; a hold goes on, and the group stays as it is."""
    source, target = make_topic("source", 4), make_topic("target", 4)
    fill(broker.bootstrap, source, 4, 4000)
    held, shares = True, []
    options = {"hold": lambda: held, "share": lambda owned, total: shares.append((owned, total))}
    app = make_app(broker.bootstrap, unique, source, target, ownership=options)
    await running(app)
    assert shares == [(4, 4)]
    second = make_app(broker.bootstrap, unique, source, target, ownership=options)
    await running(second)
    await until(lambda: shares[-2:] == [(2, 4), (2, 4)])
    await second.stop()
    await until(lambda: shares[-1] == (4, 4))
    assert [lane.pending for _, lane in app.ownership._lanes.values()] == [[]] * 4
    held = False
    assert await copied(broker, target, 4, 4000) == expected(4, 4000)
    await app.stop()


async def test_a_takeover_may_take_longer_than_a_session(broker, make_topic, unique):
    """aiokafka tells the group only after it that its member is there, which was put out meanwhile."""
    source, target = make_topic("source"), make_topic("target")
    fill(broker.bootstrap, source, 1, 100)
    app = make_app(broker.bootstrap, unique, source, target)
    assign, takeovers = app.ownership.assign, []

    async def slow(*given):
        takeovers.append(given)
        await asyncio.sleep(8)
        return await assign(*given)

    app.ownership.assign = slow
    await running(app)
    assert await copied(broker, target, 1, 100) == expected(1, 100)
    assert len(takeovers) == 1
    await app.stop()


class FailingLane(CopyLane):
    """Fails in the middle of its third transaction."""

    async def run(self):
        await self.wake.wait()
        await self.owned.commit(lambda _: None, self.owned.position)

        def produce(producer):
            send_all(producer, self.target, [{"key": b"", "value": b"666"}])
            raise RuntimeError("the lane failed")

        await self.owned.commit(produce, self.pending[-1].offset + 1)


async def test_a_lane_that_raises_ends_the_process_and_commits_nothing(broker, make_topic, unique):
    """Nothing acks or commits for a lane that failed, and no half-alive agent stays behind."""
    source, target = make_topic("source"), make_topic("target")
    fill(broker.bootstrap, source, 1, 100)

    def lane(owned, target):
        made = FailingLane(owned, target)
        made.task.add_done_callback(owned.ended)
        return made

    app = make_app(broker.bootstrap, unique, source, target, lane=lane)
    await running(app)
    await asyncio.wait_for(app._crashed.wait(), 20)
    await app.stop()
    assert committed(broker.bootstrap, unique, source) == 0
    again = make_app(broker.bootstrap, unique, source, target)
    await running(again)
    assert await copied(broker, target, 1, 100) == expected(1, 100)
    await again.stop()


class StuckLane(CopyLane):
    """Never finishes."""

    async def finish(self):
        await asyncio.sleep(3600)


async def test_the_drain_is_bounded(broker, make_topic, unique):
    """Work that does not end is abandoned after the drain time, and the app still stops."""
    source, target = make_topic("source"), make_topic("target")
    app = make_app(broker.bootstrap, unique, source, target, lane=StuckLane)
    await running(app)
    began = time.monotonic()
    await app.stop()
    assert 2 <= time.monotonic() - began < 8


async def test_an_error_is_told_once(broker, make_topic, unique, caplog, monkeypatch):
    """The app's threads end by it, too, and the app still stops; also when aiokafka's consumer cannot."""
    source, target = make_topic("source"), make_topic("target")

    async def cancelled(_):
        raise asyncio.CancelledError

    app = make_app(broker.bootstrap, unique, source, target)
    await running(app)
    monkeypatch.setattr(AIOKafkaConsumer, "stop", cancelled)
    ended = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    await app.consumer.crash(ValueError("the reason"))
    await until(app.consumer._thread.thread_loop.is_closed)
    await asyncio.wait_for(app.stop(), 10)
    assert "the reason" in caplog.text
    assert "Event loop is closed" not in caplog.text
    assert not ended


async def test_a_process_that_cannot_keep_its_membership_ends(broker, make_topic, unique, monkeypatch):
    """Whatever fails in aiokafka's heartbeats: it would own nothing for ever, and say nothing."""
    source, target = make_topic("source"), make_topic("target")
    app = make_app(broker.bootstrap, unique, source, target)
    await running(app)

    async def failing(_):
        raise OSError(28, "No space left on device")

    app.ownership.owned[0].pause()  # a fetch that waits would be told
    await asyncio.sleep(1)
    monkeypatch.setattr(GroupCoordinator, "_do_heartbeat", failing)
    await asyncio.wait_for(app._crashed.wait(), 20)
    await app.stop()
    assert "No space left" in str(app.crash_reason)


async def test_a_missing_chunk_is_an_error(broker, make_topic, unique):
    """If anything between fetch and lane ever dropped a chunk, going on would lose its records."""
    topic = make_topic("source")
    tp = TopicPartition(topic, 0)
    fed = []

    class Recorder:
        feed = fed.append

        async def finish(self):
            pass

    ownership = Ownership(
        KafkaSettings(bootstrap_servers=broker.bootstrap),
        unique,
        lane=lambda _: Recorder(),
        transaction_timeout_s=15,
        session_timeout_s=6,
        drain_s=1,
    )
    await ownership.assign([tp], -1, "")
    ownership.feed(Chunk(tp, 1, 0, ["a"]))
    with pytest.raises(Problem, match="chunk 2 arrived where 1 was due"):
        ownership.feed(Chunk(tp, 1, 2, ["c"]))
    await ownership.assign([tp], -1, "")
    ownership.feed(Chunk(tp, 1, 1, ["of the assignment before"]))
    ownership.feed(Chunk(tp, 2, 0, ["a"]))
    assert fed == [["a"], ["a"]]
    await ownership.close()


async def test_a_partition_is_taken_over_while_it_changes_its_leader(broker, make_topic, unique, monkeypatch):
    """Fence and questions are repeated: of a cluster's brokers one may not lead any more, or not yet."""
    topic = make_topic("source")
    refused = [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._DESTROY_BROKER]
    unheard, fence = [KafkaError._TRANSPORT], TransactionalProducer.fence

    def fenced(producer, timeout_s):
        if unheard:
            raise KafkaException(KafkaError(unheard.pop()))
        fence(producer, timeout_s)

    monkeypatch.setattr(TransactionalProducer, "fence", fenced)

    offsets = Asker.offsets

    def changing(self, *asked):
        if refused:
            raise KafkaException(KafkaError(refused.pop()))
        return offsets(self, *asked)

    monkeypatch.setattr(Asker, "offsets", changing)
    ownership = without_lanes(broker.bootstrap, unique)
    partition = TopicPartition(topic, 0)
    assert await ownership.assign([partition], -1, "") == {partition: 0}
    ownership._lanes.clear()
    await ownership.close()


async def test_commits_and_takeovers_wait_for_a_broker_that_is_away(kafka, unique):
    """For longer than a transaction or a question may take: none is begun before the coordinator answers."""
    ownership = without_lanes(kafka.bootstrap, unique, transaction_timeout_s=1)
    await ownership.assign([TopicPartition("avion.raw", 0)], -1, "")
    (owned,) = ownership.owned
    await owned.commit(lambda _: None, 5)
    await asyncio.to_thread(kafka.stop)
    committing = asyncio.create_task(owned.commit(lambda _: None, 10))
    newcomer = without_lanes(kafka.bootstrap, f"{unique}-new", timeout_s=1)
    taking = asyncio.create_task(newcomer.assign([TopicPartition("avion.raw", 0)], -1, ""))
    ended, _ = await asyncio.wait([committing, taking], timeout=8)
    assert not ended
    await asyncio.to_thread(kafka.start)
    await asyncio.wait_for(asyncio.gather(committing, taking), 60)
    assert committed(kafka.bootstrap, unique, "avion.raw") == 10
    for one in (ownership, newcomer):
        one._lanes.clear()
        await one.close()


async def test_a_commit_is_under_way_when_the_loop_is_taken(broker, make_topic, unique):
    """As by a lane that judges the next window meanwhile: else each would wait for the other."""
    topic = make_topic("source")
    ownership = without_lanes(broker.bootstrap, unique)
    await ownership.assign([TopicPartition(topic, 0)], -1, "")
    (owned,) = ownership.owned
    await owned.commit(lambda _: None, 5)
    began = threading.Event()
    committing = asyncio.ensure_future(owned.commit(lambda _: began.set(), 10))
    await asyncio.sleep(0)
    assert began.wait(10)
    await committing
    ownership._lanes.clear()
    await ownership.close()


class Slow:
    """A librdkafka producer whose ``send_offsets_to_transaction`` returns when it is told to."""

    def __init__(self):
        self.may_return, self.commits = threading.Event(), 0

    def begin_transaction(self):
        pass

    def send_offsets_to_transaction(self, *_):
        self.may_return.wait(20)

    def commit_transaction(self, *_):
        self.commits += 1


async def test_a_transaction_that_was_given_up_is_never_committed(broker, unique, monkeypatch):
    """Its call may return after all, when another producer does the same again."""
    monkeypatch.setattr(transaction, "_LOOKS", 2)
    producer = TransactionalProducer(KafkaSettings(bootstrap_servers=broker.bootstrap), unique, timeout_s=15)
    slow = producer._producer = Slow()
    committing = asyncio.create_task(
        asyncio.to_thread(producer.commit, lambda _: None, [Offset("any", 0, 1)], b"")
    )
    await until(producer.give_up_if_hung)
    slow.may_return.set()
    with pytest.raises(AbandonedError):
        await committing
    assert not slow.commits
    other = TransactionalProducer(KafkaSettings(bootstrap_servers=broker.bootstrap), unique, timeout_s=15)
    slow = other._producer = Slow()
    slow.may_return.set()
    other.commit(lambda _: None, [Offset("any", 0, 1)], b"")
    assert slow.commits
    assert not other.give_up_if_hung()


#: Of librdkafka's own stand-in for brokers.
_mock = ctypes.CDLL(cimpl.__file__)
_mock.rd_kafka_handle_mock_cluster.argtypes = [ctypes.c_void_p]
_mock.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
_mock.rd_kafka_mock_push_request_errors_array.argtypes = [
    ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int),
]  # fmt: skip
_ADD_PARTITIONS, _ADD_OFFSETS, _OFFSET_COMMIT = 24, 25, 28


def whose_transaction_is_unknown(asked):
    """A producer in a world of its own, whose coordinator knows of no transaction when it is ``asked``."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "any", "transactional.id": "any"})
    producer.init_transactions(15)
    errors = (ctypes.c_int * 1)(KafkaError.INVALID_TXN_STATE)
    cluster = _mock.rd_kafka_handle_mock_cluster(_handle(producer))
    _mock.rd_kafka_mock_push_request_errors_array(cluster, asked, 1, errors)
    return producer


class Forgetful:
    """A producer that commits, and is told that there was no transaction."""

    def __init__(self, producer):
        self._producer = producer

    def __getattr__(self, name):
        return getattr(self._producer, name)

    def commit_transaction(self, *timeout):
        self._producer.commit_transaction(*timeout)
        raise KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE))


@pytest.mark.parametrize("asked", [_ADD_PARTITIONS, _ADD_OFFSETS, _OFFSET_COMMIT, None])
async def test_a_transaction_that_its_coordinator_does_not_know(broker, make_topic, unique, asked):
    """It is committed by another producer, unless it was committed after all (None): the position tells."""
    source, target = make_topic("source"), make_topic("target")
    ownership = without_lanes(broker.bootstrap, unique)
    await ownership.assign([TopicPartition(source, 0)], -1, "")
    (owned,) = ownership.owned
    producer = owned._producer
    fails = whose_transaction_is_unknown(asked) if asked else Forgetful(producer._producer)
    producer._producer = fails

    def produce(inner):
        inner.produce(target, b"1", partition=0)
        if inner is fails and asked == _ADD_PARTITIONS:
            while True:  # until the coordinator's answer is there: produce does not tell what it was
                inner.produce(target, b"1", partition=0)
                time.sleep(0.01)

    await owned.commit(produce, 10)
    assert owned._producer is not producer
    await owned.commit(lambda inner: inner.produce(target, b"2", partition=0), 20)
    assert committed(broker.bootstrap, unique, source) == 20
    assert await copied(broker, target, 1, 2) == {0: [1, 2]}
    ownership._lanes.clear()
    await ownership.close()


async def test_a_note_alone_is_committed_by_another_producer(broker, make_topic, unique):
    """The position stands where it stood, so it does not tell whether the note was committed."""
    partition = TopicPartition(make_topic("source"), 0)
    ownership = without_lanes(broker.bootstrap, unique)
    await ownership.assign([partition], -1, "")
    (owned,) = ownership.owned
    await owned.commit(lambda _: None, 5)
    owned._producer._producer = whose_transaction_is_unknown(_OFFSET_COMMIT)
    await owned.commit(lambda _: None, 5, "a note")
    ownership._lanes.clear()
    await ownership.assign([partition], -1, "")
    assert [(one.position, one.note) for one in ownership.owned] == [(5, "a note")]
    ownership._lanes.clear()
    await ownership.close()


async def test_what_is_given_up_is_not_fenced_any_more(broker, make_topic, unique, monkeypatch):
    """A transaction is to be repeated by another producer, and the partition goes: the next owner has it."""
    ownership = without_lanes(broker.bootstrap, unique)
    await ownership.assign([TopicPartition(make_topic("source"), 0)], -1, "")
    (owned,) = ownership.owned
    owned._producer._producer = whose_transaction_is_unknown(_OFFSET_COMMIT)
    tries = []

    def silent(*_):
        tries.append(threading.current_thread())
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(TransactionalProducer, "fence", silent)
    committing = asyncio.create_task(owned.commit(lambda _: None, 5))
    await until(lambda: tries)
    owned.abandon()
    with pytest.raises(OwnershipLostError):
        await asyncio.wait_for(committing, 10)
    ownership._lanes.clear()
    await ownership.close()


class Behind(Broker):
    """A broker that is told to be reached by a link."""

    def __init__(self, folder, links):
        super().__init__(folder)
        self._links = links

    def _write_settings(self):
        super()._write_settings()
        self._links.lead("broker", int(self.bootstrap.rpartition(":")[2]))
        file = self._dir / "server.properties"
        linked = f"advertised.listeners=PLAINTEXT://127.0.0.1:{self._links.port('broker')}"
        file.write_text(re.sub("(?m)^advertised.listeners=.*$", linked, file.read_text()))


async def test_a_transaction_that_was_aborted_is_repeated_whole(tmp_path, unique):
    """Of a message that arrived, and whose answer did not, librdkafka gives the sequence number to another:
    the producer may not go on after an abort."""
    with Links("broker") as links, Behind(tmp_path, links) as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
        topics = [Topic(f"{unique}.{name}", "", "", "", "delete", partitions=1) for name in "ab"]
        provision.apply(kafka, topics)
        source, target = (topic.name for topic in topics)
        ownership = without_lanes(broker.bootstrap, unique)
        await ownership.assign([TopicPartition(source, 0)], -1, "")
        (owned,) = ownership.owned
        log, tries = tmp_path / "topics" / f"{target}-0" / f"{0:020}.log", []

        def produce(inner):
            tries.append(inner)
            inner.produce(target, b"1", partition=0)
            inner.flush(15)
            if len(tries) > 1:
                inner.produce(target, b"2", partition=0)
                return
            before = log.stat().st_size
            links.hold_answers("broker", held=True)
            inner.produce(target, b"2", partition=0)
            while log.stat().st_size == before:
                time.sleep(0.01)
            links.cut("broker", cut=True)
            links.hold_answers("broker", held=False)
            time.sleep(0.5)  # librdkafka notices, and will send it again
            threading.Timer(1, links.cut, ["broker"], {"cut": False}).start()
            raise KafkaException(KafkaError(KafkaError._FAIL, "any", False, False, True))

        await owned.commit(produce, 10)
        assert await copied(broker, target, 1, 2) == {0: [1, 2]}
        ownership._lanes.clear()
        await ownership.close()


async def test_records_deleted_before_they_were_read_are_an_error(broker, make_topic, unique):
    """Retention that passes a group's position must stop it, not let it jump."""
    topic = make_topic("source")
    fill(broker.bootstrap, topic, 1, 100)
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    producer = TransactionalProducer(kafka, unique, timeout_s=15)
    producer.fence()
    producer.commit(lambda _: None, [Offset(topic, 0, 10)], group_metadata(unique, -1, ""))
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.delete_records([Offset(topic, 0, 50)]).values():
        future.result(10)
    ownership = without_lanes(broker.bootstrap, unique)
    with pytest.raises(Problem, match="records 10 to 49 were deleted"):
        await ownership.assign([TopicPartition(topic, 0)], -1, "")
    await ownership.close()


@pytest.mark.parametrize("read", [0, 10])
async def test_a_log_that_was_lost_with_its_disk_is_not_taken_for_empty(
    broker, make_topic, unique, monkeypatch, read
):
    """A broker says offset -1, and no error, of one that it has just lost; the next leader has it all."""
    topic = make_topic("source")
    fill(broker.bootstrap, topic, 1, 100)
    if read:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
        producer = TransactionalProducer(kafka, unique, timeout_s=15)
        producer.fence()
        producer.commit(lambda _: None, [Offset(topic, 0, read)], group_metadata(unique, -1, ""))
    lost = [EARLIEST, LATEST]
    offsets_for_times = Asker.offsets_for_times

    def losing(self, asked, *more):
        if asked[0].offset in lost:
            lost.remove(asked[0].offset)
            return [Offset(at.topic, at.partition, -1) for at in asked]
        return offsets_for_times(self, asked, *more)

    monkeypatch.setattr(Asker, "offsets_for_times", losing)
    ownership = without_lanes(broker.bootstrap, unique)
    partition = TopicPartition(topic, 0)
    assert await ownership.assign([partition], -1, "") == {partition: read}
    assert not lost
    assert ownership.owned[0].end == 100
    ownership._lanes.clear()
    await ownership.close()


def test_a_second_owner_fences_the_first(broker, unique):
    """Two producers of one transactional id: the older one cannot commit."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    first = TransactionalProducer(kafka, unique, timeout_s=15)
    first.fence()
    second = TransactionalProducer(kafka, unique, timeout_s=15)
    second.fence()
    with pytest.raises(OwnershipLostError):
        first.commit(lambda _: None, [Offset("any", 0, 1)], group_metadata(unique, -1, ""))
