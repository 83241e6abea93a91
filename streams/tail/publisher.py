"""A tailer's or a feed's publisher: one name, one transactional id, one process at a time."""

import contextlib
from typing import Protocol
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from schemas.errors import Problem, Unreachable
from streams import log
from streams.settings import Settings
from streams.tail import checkpoint
from streams.tail.checkpoint import State
from topics.catalogue import CHECKPOINTS, DLQ, FILES, RAW
from topics.reader import Compacted
from topics.transaction import AbandonedError, OwnershipLostError, TransactionalProducer, send_all

logger = log.get("tail")


class Publishable(Protocol):
    """What one transaction publishes, the checkpoints included."""

    def produce(self, producer: Producer) -> None:
        """Queue all of it, as often as it takes; raises ``KafkaException``."""
        ...

    def is_in(self, state: State) -> bool:
        """Whether it has been committed, when nobody else writes these checkpoints."""
        ...


class Publisher:
    """Publishes batches. Calls block and are made from one thread at a time; :meth:`abandon` from any.

    A fenced producer does not tell whether another tailer took the name over or the broker ended a
    transaction of ours that was open for too long. So each process claims the name in its first transaction,
    and one that is fenced fences in turn, then reads the claim: still its own, it goes on, else it ends.
    """

    def __init__(self, settings: Settings, feed: str = "") -> None:
        self._settings = settings
        self._name = f"feed:{feed}" if feed else settings.tail.name
        self._instance = uuid4().hex
        self._abandoned = False
        self._producer = self._new(self._name)
        self._checkpoints = Compacted(settings.kafka, CHECKPOINTS.name)
        self.partitions = 0  #: of the raw topic, once started

    def start(self) -> None:
        """Take the name, ending whoever has it. Raises :class:`Unreachable` and other Problems."""
        self.partitions = _partitions(self._settings)
        self._claim(self._name, self._producer)

    def read(self) -> State:
        """The checkpoints as they are now."""
        return checkpoint.state(self._checkpoints.refresh())

    def check(self) -> None:
        """Raise :class:`Problem` when another tailer has taken the name."""
        if self.read().claims.get(self._name) != self._instance:
            raise _taken_over(self._name)

    def end(self, owner: str) -> None:
        """End the tailer called ``owner``: what it has open is aborted, and it publishes no more."""
        self._claim(owner, self._new(owner))

    def _claim(self, name: str, producer: TransactionalProducer) -> None:
        claim = [checkpoint.claim(name, self._instance)]
        try:
            producer.fence()
            producer.commit(lambda inner: send_all(inner, CHECKPOINTS.name, claim))
        except OwnershipLostError:
            raise _taken_over(name) from None
        except KafkaException as error:
            raise _unreachable(self._settings, error) from None

    def publish(self, batch: Publishable) -> None:
        """Commit the batch, exactly once, however long the broker is away.

        Raises :class:`Problem` when another tailer has taken the name, ``AbandonedError`` when abandoned.
        """
        while True:
            try:
                self._producer.commit(batch.produce)
            except (OwnershipLostError, KafkaException) as error:
                logger.warning("transaction failed", error=str(error))
                if self._regained(batch):
                    return
            else:
                return

    def _regained(self, batch: Publishable) -> bool:
        """Fence, then see whether the name is still ours; gives whether the batch had been committed."""
        while True:
            if self._abandoned:
                raise AbandonedError(self._name)
            with contextlib.suppress(KafkaException, Unreachable):
                self._producer = self._new(self._name)
                self._producer.fence()
                state = self.read()
                break
        if state.claims.get(self._name) != self._instance:
            raise _taken_over(self._name)
        return batch.is_in(state)

    def abandon(self) -> None:
        """Make a call that is under way give up soon; what it had open is aborted by the next tailer."""
        self._abandoned = True
        self._producer.abandon()

    def _new(self, name: str) -> TransactionalProducer:
        timeout_s = self._settings.tail.transaction_timeout_s
        return TransactionalProducer(self._settings.kafka, f"spotstream-tail-{name}", timeout_s=timeout_s)


def _taken_over(name: str) -> Problem:
    if name.startswith("feed:"):
        return Problem(
            "another process took over", where=name, remedy="run only one of a name, or give each its own"
        )
    return Problem(
        f"another tailer named {name} took over", remedy="give each a tail.name of its own, or run only one"
    )


def _partitions(settings: Settings) -> int:
    try:
        known = AdminClient(settings.kafka.confluent()).list_topics(timeout=settings.kafka.timeout_s).topics
    except KafkaException as error:
        raise _unreachable(settings, error) from None
    for topic in (RAW, FILES, CHECKPOINTS, DLQ):
        if topic.name not in known:
            raise Problem(
                "no such topic", where=topic.name, remedy="create it with `spotstream topics apply`"
            )
    return len(known[RAW.name].partitions)


def _unreachable(settings: Settings, exception: KafkaException) -> Unreachable:
    error: KafkaError = exception.args[0]
    return Unreachable(
        f"the broker cannot be reached: {error.str()}",
        where=settings.kafka.bootstrap_servers,
        remedy="check kafka.bootstrap_servers and that the broker runs",
    )
