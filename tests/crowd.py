"""Worlds that share a broker, and the broker's death among them."""

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import structlog
from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from rotations import World

from streams.lab.kafka import Broker
from streams.tail.checkpoint import State
from streams.tail.publisher import Publishable, Publisher
from topics.catalogue import CHECKPOINTS, DLQ, FILES, RAW
from topics.connection import KafkaSettings
from topics.transaction import TransactionalProducer

_SETTLED_S = 60.0
_TOLD = 60  #: lines kept of each world


class Gate:
    """Lets many act side by side, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._acting = 0
        self._alone = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._acting += 1
        try:
            yield
        finally:
            with self._changed:
                self._acting -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._acting)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class Interrupted(Publisher):
    """A publisher whose broker dies once, with a transaction of its own open there, records and all."""

    dies_with: Broker | None = None

    def publish(self, batch: Publishable) -> None:
        broker, self.dies_with = self.dies_with, None
        super().publish(_Interrupting(batch, broker) if broker else batch)


class _Interrupting:
    def __init__(self, batch: Publishable, broker: Broker | None) -> None:
        self._batch, self._broker = batch, broker

    def produce(self, producer: Producer) -> None:
        self._batch.produce(producer)
        broker, self._broker = self._broker, None
        if broker:
            producer.flush(30)  # the broker has it
            broker.kill()
            broker.start()

    def is_in(self, state: State) -> bool:
        return self._batch.is_in(state)


class Crowd:
    """The worlds on a broker. They act at the same time; only its death has them all between two actions."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.broker, self.folder = broker, folder
        self.kafka = KafkaSettings(bootstrap_servers=broker.bootstrap, timeout_s=30)
        self.worlds: list[World] = []
        self._gate = Gate()

    def live(self, seed: int, actions: int) -> World:
        """A world of its own from its beginning to its end."""
        (self.folder / f"{seed}").mkdir()
        world = World(self.kafka, self.folder / f"{seed}", seed, self._restart_broker, Interrupted)
        self.worlds.append(world)
        with structlog.contextvars.bound_contextvars(world=seed):
            try:
                with self._gate.together():
                    world.start()
                for name in (world.choose() for _ in range(actions)):
                    with self._gate.alone() if name == "restart_broker" else self._gate.together():
                        world.step(name)
                with self._gate.together():
                    world.finish()
            finally:
                world.drop()
                self.worlds.remove(world)
        return world

    def _restart_broker(self, world: World) -> None:
        """SIGKILL; in half of the cases with a transaction of this world open and its records in it.

        Never with one that is decided and whose markers are not written yet: Kafka 4.4.0 forgets those when
        no other broker is there to lead (docs/decisions.md), whoever wrote the transaction. Nothing of ours
        could be seen behind that: the records are committed, and nobody can read them. What we have to bear
        is that the broker goes while we are in a transaction, and between two; both are had here.
        """
        within = world.chance.random() < 0.5
        self._quieten()
        if within and world.tailer:
            publisher = world.tailer._publisher
            publisher.dies_with = self.broker
            world.step("append")
            world.settle()
            if publisher.dies_with is None:
                return
            publisher.dies_with = None  # there was nothing to publish
        self.broker.kill()
        self.broker.start()

    def _quieten(self) -> None:
        """Wait for what is under way, end what was left open, see that every marker is written."""
        for world in list(self.worlds):
            wait([world.tailer._publishing] if world.tailer and world.tailer._publishing else [], 60)
            for name in world.dead():
                TransactionalProducer(self.kafka, f"spotstream-tail-{name}", timeout_s=15).fence()
        deadline = time.monotonic() + _SETTLED_S
        unmarked: dict[str, tuple[int, int]] | None = None
        while unmarked != {}:
            assert time.monotonic() < deadline, f"transactions stay open: {unmarked}"
            time.sleep(0.05)
            with contextlib.suppress(KafkaException):  # not all leaders may be known yet
                unmarked = self._unmarked()

    def _unmarked(self) -> dict[str, tuple[int, int]]:
        """Partitions with a transaction that is open or not marked: what is committed and what is there."""
        admin = AdminClient(self.kafka.confluent())
        there = admin.list_topics(timeout=30).topics
        parts = [
            TopicPartition(topic.name, partition)
            for topic in (RAW, FILES, CHECKPOINTS, DLQ)
            for partition in there[topic.name].partitions
        ]
        stable, high = (
            {
                f"{part.topic}-{part.partition}": asked.result(30).offset
                for part, asked in admin.list_offsets(
                    dict.fromkeys(parts, OffsetSpec.latest()), isolation_level=level, request_timeout=30
                ).items()
            }
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        )
        return {at: (stable[at], high[at]) for at in high if stable[at] != high[at]}


class Diary:
    """What was done in each world and what its tailers said, in order. The end of it is kept."""

    def __init__(self) -> None:
        self._lines: dict[int | None, deque[str]] = defaultdict(lambda: deque(maxlen=_TOLD))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        before = structlog.get_config()
        stamp = structlog.processors.TimeStamper("%H:%M:%S.%f", utc=True)
        structlog.configure(processors=[structlog.contextvars.merge_contextvars, stamp, self._keep])
        try:
            yield
        finally:
            structlog.configure(**before)

    def _keep(self, _: object, level: str, event: dict[str, object]) -> dict[str, object]:
        world = event.pop("world", None)  # threads that publish belong to none
        head = (event.pop("timestamp"), level, event.pop("event"))
        self._lines[world].append(" ".join((*map(str, head), *(f"{name}={event[name]}" for name in event))))
        raise structlog.DropEvent

    def of(self, world: int | None) -> list[str]:
        return [f"  {line}" for line in self._lines[world]]
