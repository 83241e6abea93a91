"""Asking brokers for their topics, and saying why where they do not answer or do not let us.

librdkafka tells why a connection fails to a callback only; the call that waits for it just runs out of time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AclOperation, AdminClient, TopicMetadata

from schemas.errors import Problem, Unreachable
from schemas.redact import hide
from topics.connection import READERS, KafkaSettings
from topics.passing import DISCONNECTED

#: A call's share of the patience, after which it is seen whether the brokers have refused us meanwhile.
_SLICE_S = 1.0

#: How often it is tried before a refusal is final: a broker that has just started may not know all users yet.
_TRIES = 2

_SILENT = DISCONNECTED | {KafkaError._TIMED_OUT, KafkaError._RESOLVE}
_REFUSED = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
}


class Denied(Problem):
    """The broker knows us, and does not let us."""


_REMEDY = "docs/security.md has the ACLs that each command needs"


def denial(error: KafkaError, kafka: KafkaSettings, what: str = "", group: str = READERS) -> Denied | None:
    """What to raise when an ACL is missing, else None; ``what``: the topic or id that it is about."""
    if error.code() not in _DENIED:
        return None
    name = group if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED else what
    resource = f"{_DENIED[error.code()]} {name}".rstrip()
    line = f"{kafka.principal} is not allowed to do that with the {resource} ({error.str()})"
    return Denied(line, where=kafka.bootstrap_servers, remedy=_REMEDY)


def problem(error: KafkaError, kafka: KafkaSettings, what: str = "", said: str = "") -> Problem:
    """What to raise for ``error``: a :func:`denial`, or :class:`Unreachable` when no broker answered.

    ``said``: what was last heard of the connections.
    """
    if denied := denial(error, kafka, what, what):
        return denied
    where = kafka.bootstrap_servers
    if _refuses(error):
        return Problem(
            f"no connection: {hide(error.str(), kafka.secrets())}",
            where=where,
            remedy="check the settings of kafka: security_protocol, ssl_…, sasl_…, oauth_…",
        )
    if error.code() in _SILENT:
        why = f": {hide(said, kafka.secrets())}" if said else ""
        return Unreachable(
            f"no Kafka broker answered within {kafka.timeout_s:g} s{why}",
            where=where,
            remedy="start one (`spotstream up`), or set kafka.bootstrap_servers",
        )
    return Problem(error.str(), where=f"{what} at {where}" if what else where)


def unwritable(kafka: KafkaSettings, topics: Iterable[str]) -> Denied:
    """What to raise when a transaction that writes to ``topics`` is denied: the broker does not say which."""
    wanted = sorted(topics)
    admin = Admin(kafka)  # a client that nobody holds ends, with what it was asked
    asked = admin.describe_topics(
        TopicCollection(wanted), include_authorized_operations=True, request_timeout=kafka.timeout_s
    )
    denied = []
    for name, answer in asked.items():
        try:
            allowed = answer.result(kafka.timeout_s + 1).authorized_operations or ()
        except KafkaException:
            allowed = ()
        if AclOperation.WRITE not in allowed:
            denied.append(name)
    what = f"{kafka.principal} is not allowed to write to {', '.join(denied or wanted)}"
    return Denied(what, where=kafka.bootstrap_servers, remedy=_REMEDY)


def _refuses(error: KafkaError) -> bool:
    """Whether a broker does not take our proof, or we not its: some of TLS comes as a transport's failure."""
    return error.code() in _REFUSED or "SSL routines" in error.str()


class _Client:
    """A client of librdkafka's that knows why no broker answers."""

    list_topics: Callable[..., Any]
    poll: Callable[..., Any]

    def __init__(self, kafka: KafkaSettings, config: dict[str, Any]) -> None:
        self._kafka = kafka
        # Not a method of ours: a cycle through librdkafka keeps its threads until the collector comes by.
        self._said: deque[KafkaError] = deque(maxlen=20)
        self._last = ""
        super().__init__(config | {"error_cb": self._said.append})  # type: ignore[call-arg]

    def topics(self, *names: str) -> dict[str, TopicMetadata]:
        """All topics that we may see, and those of ``names`` that there are.

        Raises :class:`Denied` for one of ``names`` that we may not see, and what :func:`problem` says.
        """
        known = self._ask()
        for name in names:
            if name not in known:
                error = self._ask(name)[name].error
                if error is not None and error.code() in _DENIED:
                    raise problem(error, self._kafka, name)
        return known

    def topic(self, name: str) -> TopicMetadata:
        """One topic. Raises :class:`Problem` when there is none, ``KafkaException`` for what is wrong with it
        at the moment, and as :meth:`topics`."""
        found = self._ask(name)[name]
        if found.error is None:
            return found
        if found.error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise Problem("no such topic", where=name, remedy="create it with `spotstream topics apply`")
        if found.error.code() in _DENIED:
            raise problem(found.error, self._kafka, name)
        raise KafkaException(found.error)

    def _ask(self, *topic: str) -> dict[str, TopicMetadata]:
        give_up_at = monotonic() + self._kafka.timeout_s
        refused, tries = None, 0
        while True:
            left_s = give_up_at - monotonic()
            try:
                found: Any = self.list_topics(*topic, timeout=max(0.0, min(_SLICE_S, left_s)))
            except KafkaException as error:
                refused = self._heard() or refused
                tries += refused is not None
                if refused and tries >= _TRIES:
                    raise problem(refused, self._kafka) from None
                if left_s <= _SLICE_S or error.args[0].code() not in _SILENT:
                    raise problem(error.args[0], self._kafka, said=self._last) from None
            else:
                return dict(found.topics)

    def _heard(self) -> KafkaError | None:
        """A refusal, if one has come since the last time."""
        self._said.clear()
        self.poll(0)
        told = [error.str() for error in self._said if error.code() != KafkaError._ALL_BROKERS_DOWN]
        self._last = told[-1] if told else self._last
        return next((error for error in self._said if _refuses(error)), None)


class Admin(_Client, AdminClient):
    """Alters, and asks for what only an admin client is told; in commands, and at the start of what runs on.

    One question of an admin client that waits for a broker while that goes and comes back may end the process
    by an assertion of librdkafka's. So what is asked again and again is asked by :class:`Asker`.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        super().__init__(kafka, kafka.confluent())

    def committed(self, group: str, asked: Sequence[TopicPartition]) -> list[TopicPartition]:
        """The positions of a group, with their metadata; waits for transactions under way. Raises alike."""
        wanted = ConsumerGroupTopicPartitions(group, list(asked))
        answers = self.list_consumer_group_offsets(
            [wanted], require_stable=True, request_timeout=self._kafka.timeout_s
        )
        try:
            return list(answers[group].result(self._kafka.timeout_s + 1).topic_partitions)
        except KafkaException as error:
            raise problem(error.args[0], self._kafka, group) from None

    def check_membership(self, group: str) -> None:
        """Raise :class:`Denied` if we may not join a group: aiokafka would try for ever.

        Of a group that there is not yet only this much is known, that we may ask about it.
        """
        answers = self.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=min(5.0, self._kafka.timeout_s)
        )
        try:
            allowed = answers[group].result(self._kafka.timeout_s + 1).authorized_operations
        except KafkaException as error:
            if denied := denial(error.args[0], self._kafka, group=group):
                raise denied from None
            return
        if AclOperation.READ not in allowed:
            what = f"{self._kafka.principal} is not allowed to read in the group {group}"
            raise Denied(what, where=self._kafka.bootstrap_servers, remedy=_REMEDY)


#: For :meth:`Asker.offsets`, where others are milliseconds since 1970; the protocol's numbers.
LATEST, EARLIEST = -1, -2


class Asker(_Client, Consumer):
    """Asks where logs begin and end, open transactions included, and where ``group`` stands."""

    def __init__(self, kafka: KafkaSettings, group: str = READERS) -> None:
        options = {"group_id": group, "enable_auto_commit": False, "isolation_level": "read_uncommitted"}
        super().__init__(kafka, kafka.confluent(**options))

    def offsets(self, topic: str, since: Mapping[int, int], timeout_s: float) -> dict[int, int]:
        """By partition, the first offset that is as young as ``since``; -1 where there is none.

        Raises ``KafkaException``: also where a log has neither beginning nor end, as a broker says of one
        that it has just lost with its disk, without calling that an error.
        """
        asked = [TopicPartition(topic, partition, at) for partition, at in since.items()]
        try:
            found = self.offsets_for_times(asked, timeout_s) if asked else []
        except KafkaException as exception:
            if exception.args[0].code() == KafkaError._UNKNOWN_PARTITION:
                # librdkafka believes for minutes what a broker just started said, or one before a topic grew.
                self.list_topics(topic, timeout_s)
            raise
        for at in found:
            if at.error:
                raise KafkaException(at.error)
            if at.offset < 0 and since[at.partition] in {LATEST, EARLIEST}:
                raise KafkaException(KafkaError(KafkaError.OFFSET_NOT_AVAILABLE))
        return {at.partition: at.offset for at in found}

    def positions(self, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, int]:
        """What the group has committed, by partition; below 0 where it has not. Raises ``KafkaException``."""
        found = self.committed([TopicPartition(topic, partition) for partition in partitions], timeout_s)
        for at in found:
            if at.error:
                raise KafkaException(at.error)
        return {at.partition: at.offset for at in found}
