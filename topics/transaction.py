"""The transactional producer: one transactional id, one owner, each transaction whole or not at all.

Calls block and are made from one thread at a time; the librdkafka underneath sends in threads of its own.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from schemas.errors import Problem
from topics.admin import denial, unwritable
from topics.catalogue import DLQ
from topics.connection import KafkaSettings

#: What a new owner's fence, or the group's next generation, does to the one before.
LOST = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)

#: A broker that refuses a record so will refuse it again.
_REFUSED = frozenset({KafkaError.INVALID_RECORD, KafkaError.MSG_SIZE_TOO_LARGE})

#: After which the broker aborts the transaction of a command that was killed in it. It looks for such every
#: 10 s by default, and readers wait no longer for one that is open than :data:`topics.reader.STABLE_S`.
COMMAND_S = 25.0

#: Messages that may wait to be sent.
QUEUE = 1_000_000

#: How long one call blocks before it looks whether it was abandoned.
_SLICE_S = 1.0

#: A call that has a slice's time and is seen under way so often, half a second apart, will never return. Not
#: a time: a process that was stopped for a while would take a call for hung that is not.
_LOOKS = 6


class OwnershipLostError(Exception):
    """Another owner has taken over; whatever was in the transaction is aborted and is not ours to repeat."""


class AbortedError(KafkaException):
    """The transaction had to be aborted, and is; it may be repeated by another producer, never by this one.

    librdkafka (2.16) purges what waits to be sent again, and gives the next messages the same sequence
    numbers: where a broker has the first ones, it takes these for them, and they are committed nowhere.
    """

    @property
    def told(self) -> str:
        """What happened, for a person."""
        return f"a transaction had to be aborted: {self.args[0].str()}"


class AbandonedError(Exception):
    """:meth:`TransactionalProducer.abandon` was called while a transaction was under way."""


class TransactionalProducer:
    """A producer that only writes in transactions. Make it, :meth:`fence`, then :meth:`commit` at will."""

    def __init__(
        self, kafka: KafkaSettings, transactional_id: str, *, timeout_s: float, reports: bool = False
    ) -> None:
        """``reports``: tell ``on_delivery`` of what arrived, too, which takes a tenth of a tailer's time."""
        self.transactional_id = transactional_id
        self._kafka = kafka
        self._abandoned = threading.Event()
        self._lock = threading.Lock()
        self._sending, self._looks = False, 0
        self._producer = Producer(
            kafka.confluent(
                transactional_id=transactional_id,
                transaction_timeout_ms=int(timeout_s * 1000),
                message_timeout_ms=int(timeout_s * 1000),
                compression_type="lz4",
                linger_ms=5,
                delivery_report_only_error=not reports,
                batch_size=1_000_000,
                message_max_bytes=25_165_824,
                queue_buffering_max_messages=QUEUE,
                # Java's default, so that Kafka Streams and Connect find equal keys in equal partitions.
                partitioner="murmur2_random",
                # While the markers of the last transaction are being written the coordinator answers
                # CONCURRENT_TRANSACTIONS; the default of 100 ms would be most of a transaction's time.
                retry_backoff_ms=10,
                retry_backoff_max_ms=100,
            )
        )

    def fence(self, timeout_s: float = 0) -> None:
        """End every earlier owner of this id and abort what it left open.

        Raises ``KafkaException`` when the broker cannot be reached in time (0: ``kafka.timeout_s``); that may
        be tried again. ``Denied`` for want of an ACL.
        """
        timeout_s = timeout_s or self._kafka.timeout_s
        try:
            # librdkafka rests half a second when it looks for the coordinator without a connection. The first
            # one, to a bootstrap address, is given up once the brokers are known; the next is to one of them.
            for _ in ("bootstrap", "broker"):
                self._producer.list_topics(DLQ.name, timeout=timeout_s)
            self._producer.init_transactions(timeout_s)
        except KafkaException as exception:
            self._raise_if_denied(exception.args[0])
            raise

    def commit(
        self,
        produce: Callable[[Producer], None],
        offsets: Sequence[TopicPartition] = (),
        group: bytes = b"",
    ) -> None:
        """Commit what ``produce`` sends together with the ``offsets`` of ``group`` (its metadata, as bytes).

        Raises :class:`OwnershipLostError`, :class:`AbandonedError`, :class:`AbortedError`, ``Denied`` where
        an ACL is missing, ``Problem`` where a topic does not take a record, or ``KafkaException`` for what is
        beyond repair.
        """
        try:
            self._producer.begin_transaction()
            produce(self._producer)
            if offsets:
                self._send_offsets(list(offsets), group)
            self._patiently(lambda: self._producer.commit_transaction(_SLICE_S))
        except KafkaException as told:
            exception = self._reason(told)
            self._raise_if_denied(exception.args[0], produce)
            aborted = self._aborted(exception)
            raise self._refused(exception.args[0], produce) or aborted from None

    def _send_offsets(self, offsets: list[TopicPartition], group: bytes) -> None:
        def send() -> None:
            with self._lock:
                self._sending, self._looks = True, 0
            try:
                self._producer.send_offsets_to_transaction(offsets, group, _SLICE_S)
            finally:
                with self._lock:
                    self._sending = False

        self._patiently(send)
        if self._abandoned.is_set():  # whoever found it to hang may have done all of it anew
            raise AbandonedError(self.transactional_id)

    def give_up_if_hung(self) -> bool:
        """Whether sending offsets hangs, as it may while their coordinator is away (docs/decisions.md).

        To be asked each half second. The transaction is abandoned then, and certain never to be committed.
        Thread-safe.
        """
        with self._lock:
            self._looks += 1
            hung = self._sending and self._looks > _LOOKS
            if hung:
                self._abandoned.set()
        return hung

    def _patiently(self, call: Callable[[], None]) -> None:
        while True:
            try:
                call()
            except KafkaException as exception:
                if not exception.args[0].retriable():
                    raise
                if self._abandoned.is_set():
                    raise AbandonedError(self.transactional_id) from None
            else:
                return

    def _reason(self, exception: KafkaException) -> KafkaException:
        """Of a producer that failed meanwhile, produce says no more than that; the transaction's calls do."""
        if exception.args[0].code() == KafkaError._FATAL:
            try:
                self._producer.abort_transaction(_SLICE_S)
            except KafkaException as reason:
                return reason
        return exception

    def _raise_if_denied(self, error: KafkaError, produce: Callable[[Any], None] = lambda _: None) -> None:
        """An ACL that is missing stays missing: to try again would take for ever."""
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise unwritable(self._kafka, _written(produce))
        ours = f"of {self.transactional_id}"
        if denied := denial(error, self._kafka, ours, ours):
            raise denied

    def _refused(self, error: KafkaError, produce: Callable[[Any], None]) -> Problem | None:
        """What to raise where another try would end as this one did; None where it may end otherwise."""
        if error.code() not in _REFUSED:
            return None
        return Problem(
            f"a record is refused, and would be again ({error.str()})",
            where=", ".join(sorted(_written(produce))),
            remedy="see whether `spotstream topics plan` finds the topics to differ",
        )

    def _aborted(self, exception: Exception) -> Exception:
        """What to raise for it, the transaction aborted where that is what it wants."""
        error: KafkaError = exception.args[0]
        if error.code() in LOST:
            return OwnershipLostError(f"{self.transactional_id}: {error.str()}")
        if self._abandoned.is_set():
            return AbandonedError(self.transactional_id)
        if not error.txn_requires_abort():
            return exception
        try:
            self._patiently(lambda: self._producer.abort_transaction(_SLICE_S))
        except KafkaException as failed:
            return self._aborted(failed)
        return AbortedError(error)

    def abandon(self) -> None:
        """Give up a transaction that may be under way; the next owner's fence aborts it. Thread-safe."""
        self._abandoned.set()
        self._producer.purge()


def _written(produce: Callable[[Any], None]) -> set[str]:
    """The topics that ``produce`` writes to."""
    topics = _Topics()
    produce(topics)
    return topics.names


class _Topics:
    """Takes what a producer takes, and keeps no more of it than the topics' ``names``."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def produce(self, topic: str, *_: Any, **__: Any) -> None:
        self.names.add(topic)

    def produce_batch(self, topic: str, messages: Sequence[Any], *_: Any, **__: Any) -> int:
        self.names.add(topic)
        return len(messages)


def send_all(producer: Producer, topic: str, messages: list[dict[str, bytes]], partition: int = -1) -> None:
    """Queue ``messages`` (``key``, ``value``) in one call; raises ``KafkaException`` if one is not taken."""
    if producer.produce_batch(topic, messages, partition) != len(messages):
        failed = next(message for message in messages if "_error" in message)
        raise KafkaException(failed["_error"])
