"""A tailer's or a feed's publisher: one name, one transactional id, one process at a time."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import Problem, Unreachable
from streams import log
from streams.settings import Settings
from streams.tail import checkpoint
from streams.tail.checkpoint import Checkpoint, State
from topics import provision
from topics.catalogue import CHECKPOINTS, DLQ, FILES, RAW
from topics.reader import Compacted
from topics.transaction import LOST, AbandonedError, OwnershipLostError, TransactionalProducer, send_all

logger = log.get("tail")

#: How often a name is taken before it is left to another that takes it as often.
_TRIES = 5


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
        self._checkpoints = Compacted(settings.kafka, CHECKPOINTS.name, checkpoint.parsed)
        self.partitions = 0  #: of the raw topic, once started

    def start(self) -> None:
        """Take the name, ending whoever has it. Raises :class:`Unreachable` and other Problems."""
        self.partitions = _partitions(self._settings)
        self._producer = self._claim(self._name)

    def read(self) -> State:
        """The checkpoints as they are now."""
        return checkpoint.state(self._checkpoints.refresh())

    def check(self) -> State:
        """As :meth:`read`; raises :class:`Problem` when another tailer has taken the name."""
        state = self.read()
        if state.claims.get(self._name) != self._instance:
            raise _taken_over(self._name)
        return state

    def take_over(self, owner: str, theirs: Callable[[State], Sequence[Checkpoint]]) -> None:
        """End the tailer called ``owner``: what it has open is aborted, and it publishes no more.

        Of what it left, ``theirs`` makes checkpoints of this one's. They are committed under its name, not
        ours: if it comes back in between it fences just that, and afterwards it reads whose they are.
        """
        self._claim(owner, theirs)

    def _claim(
        self, name: str, theirs: Callable[[State], Sequence[Checkpoint]] = lambda _: ()
    ) -> TransactionalProducer:
        """Write under a name that it is ours; gives the producer that did. The last one to do so has it."""
        claim = [checkpoint.claim(name, self._instance)]
        problem = _taken_over(name)
        for _ in range(_TRIES):
            producer = self._new(name)
            try:
                producer.fence()
                producer.commit(lambda inner: send_all(inner, CHECKPOINTS.name, claim))
                if moved := [checkpoint.message(known) for known in theirs(self.read())]:
                    producer.commit(partial(send_all, topic=CHECKPOINTS.name, messages=moved))
            except (OwnershipLostError, KafkaException) as error:
                problem = _problem(self._settings, name, error)
                if isinstance(problem, Unreachable):
                    raise problem from None
                # The one before fences in turn, to see whether it was another that fenced it.
                logger.debug("failed to take a name", name=name, error=str(error))
            else:
                return producer
        raise problem

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
            with contextlib.suppress(KafkaException, OwnershipLostError, Unreachable):
                self.check()  # not to disturb whoever has it
                self._producer = self._new(self._name)
                self._producer.fence()
                return batch.is_in(self.check())

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
    standing = provision.require(settings.kafka, (RAW, FILES, CHECKPOINTS, DLQ))
    for line in standing.weak:
        logger.warning("less safe than the settings say", why=line)
    return standing.partitions[RAW.name]


def _problem(settings: Settings, name: str, failed: OwnershipLostError | KafkaException) -> Problem:
    """Why a name cannot be taken; :class:`Unreachable` where another try would end like this one."""
    where = settings.kafka.bootstrap_servers
    error: KafkaError | None = None if isinstance(failed, OwnershipLostError) else failed.args[0]
    if error is None or (error.fatal() and error.code() in LOST):
        return _taken_over(name)
    if error.fatal():
        return Problem(f"the broker refuses our transactions: {error.str()}", where=where)
    return Unreachable(
        f"the broker cannot be reached: {error.str()}",
        where=where,
        remedy="check kafka.bootstrap_servers and that the broker runs",
    )
