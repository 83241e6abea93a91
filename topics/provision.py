"""Makes the broker's topics what the catalogue declares, and takes nothing away unasked.

Missing topics are created and settings that differ are altered; :mod:`topics.drift` says what is not.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from schemas.errors import Problem
from topics.admin import Admin, Denied, denial, problem
from topics.catalogue import BATCHES, CATALOGUE, RAW, VALIDATED, Topic
from topics.connection import KafkaSettings
from topics.drift import Action, Allowed, Change, Found, Safety, created_with, differing, missing
from topics.reader import beginnings, ends

#: What Kafka keeps transactions and groups in: exactly once is no safer than these.
_INTERNAL = ("__transaction_state", "__consumer_offsets")


def declared(settings: KafkaSettings) -> list[Topic]:
    """The catalogue, with the numbers of partitions that the settings say."""
    sizes = {topic.name: settings.validated_partitions for topic in VALIDATED.values()}
    sizes |= dict.fromkeys((RAW.name, BATCHES.name), settings.partitions)
    return [topic._replace(partitions=sizes.get(topic.name, topic.partitions)) for topic in CATALOGUE]


def plan(settings: KafkaSettings, catalogue: Iterable[Topic] | None = None) -> list[Change]:
    """The differences between what is declared (or ``catalogue``) and the broker's topics.

    Raises :class:`Unreachable` when no broker answers within ``settings.timeout_s``, :class:`Problem` when it
    refuses.
    """
    return _Broker(settings).differences(list(catalogue or declared(settings)))


def apply(
    settings: KafkaSettings, catalogue: Iterable[Topic] | None = None, allow: Collection[Allowed] = ()
) -> list[Change]:
    """Create and alter what :func:`plan` says; returns that plan once it is done. Raises like it.

    ``allow`` names the settings of which also those differences go that are altered only when asked for.
    """
    broker, topics = _Broker(settings), {topic.name: topic for topic in catalogue or declared(settings)}

    def differences() -> list[Change]:
        found = broker.differences(list(topics.values()))
        return [
            change._replace(action=Action.ALTER, why="")
            if change.action is Action.ASK and change.setting in allow
            else change
            for change in found
        ]

    changes = differences()
    altered = [change for change in changes if change.action is Action.ALTER]
    broker.create([topics[change.topic] for change in changes if change.action is Action.CREATE])
    broker.alter([change for change in altered if change.setting != "partitions"])
    # The raw topic last: a raw partition without one for its batches would have nowhere to put them.
    for change in sorted(altered, key=lambda change: change.topic == RAW.name):
        if change.setting == "partitions":
            broker.grow(change)
    broker.settle(lambda: all(change.action not in (Action.CREATE, Action.ALTER) for change in differences()))
    return changes


class Standing(NamedTuple):
    """Topics that can be worked with: the ``partitions`` of each, and a line for what makes one ``weak``."""

    partitions: dict[str, int]
    weak: list[str]


def require(settings: KafkaSettings, topics: Sequence[Topic] = CATALOGUE) -> Standing:
    """How these topics stand; what is less safe than the settings say is ``weak``.

    Raises :class:`Problem` for what the flow cannot work with: a declared topic is missing, a raw partition
    has none for batches, a topic demands more replicas in sync than it has, or one that is kept for good is
    not compacted.
    """
    broker = _Broker(settings)
    where = settings.bootstrap_servers
    known = broker.topics(topics)
    if lacking := [topic.name for topic in topics if topic.name not in known]:
        raise Problem(
            f"no such topic: {', '.join(lacking)}",
            where=where,
            remedy="create them with `spotstream topics apply`",
        )
    if BATCHES in topics:
        raw, batches = len(known[RAW.name].partitions), len(known[BATCHES.name].partitions)
        if batches < raw:
            raise Problem(
                f"{BATCHES.name} has {batches} partitions and {RAW.name} {raw}; each of these needs its own",
                where=where,
                remedy="give it as many with `spotstream topics apply --allow partitions`",
            )
    configs: dict[str, dict[str, str]] = {}
    with contextlib.suppress(Denied):  # who may not ask what they are cannot be warned
        configs = broker.settings_of(topics)
    _check_kept(topics, configs, where)
    weak = [
        line
        for topic in topics
        for line in _weaknesses(topic.name, _found(known[topic.name], configs.get(topic.name, {})), settings)
    ]
    for name in _INTERNAL:
        if name in known:
            weak += _weaknesses(name, _found(known[name], {}), settings)
    return Standing({topic.name: len(known[topic.name].partitions) for topic in topics}, weak)


def _check_kept(topics: Iterable[Topic], configs: dict[str, dict[str, str]], where: str) -> None:
    """Raise :class:`Problem` for topics that are to be compacted and are not, as those that a broker made."""
    kept = [topic.name for topic in topics if topic.cleanup == "compact" and topic.name in configs]
    if forgetting := [name for name in kept if configs[name]["cleanup.policy"] != "compact"]:
        raise Problem(
            f"{', '.join(forgetting)}: cleanup.policy is not compact, Kafka deletes what is needed for good",
            where=where,
            remedy="alter that with `spotstream topics apply --allow cleanup.policy`",
        )


def _weaknesses(name: str, found: Found, settings: KafkaSettings) -> list[str]:
    demanded = int(found.config.get("min.insync.replicas", 0))
    if demanded > found.replicas:
        raise Problem(
            f"min.insync.replicas is {demanded} and the replication factor {found.replicas}: "
            "nothing can be written",
            where=f"topic {name} at {settings.bootstrap_servers}",
            remedy="lower the one or raise the other, see docs/operate.md",
        )
    weak = []
    if found.replicas < settings.replication_factor:
        weak.append(
            f"{name} has {found.replicas} replicas, kafka.replication_factor is {settings.replication_factor}"
        )
    if demanded and demanded < settings.min_insync_replicas:
        weak.append(
            f"{name} has min.insync.replicas {demanded}, kafka.min_insync_replicas is "
            f"{settings.min_insync_replicas}"
        )
    if found.in_sync < demanded:
        weak.append(
            f"{name} has {found.in_sync} replicas in sync and takes no records with less than {demanded}"
        )
    return weak


class _Broker:
    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._safety = Safety(settings.replication_factor, settings.min_insync_replicas)
        self._admin = Admin(settings)

    def topics(self, declared: Iterable[Topic] = ()) -> dict[str, TopicMetadata]:
        return self._admin.topics(*(topic.name for topic in declared))

    def differences(self, declared: list[Topic]) -> list[Change]:
        known = self.topics(declared)
        settings = self.settings_of([topic for topic in declared if topic.name in known])
        changes = [missing(topic, self._safety) for topic in declared if topic.name not in settings]
        for topic in [topic for topic in declared if topic.name in settings]:
            found = _found(known[topic.name], settings[topic.name])
            if found.config["cleanup.policy"] != topic.cleanup:
                found = found._replace(empty=self._is_empty(topic))
            changes += differing(_beside_raw(topic, known), found, self._safety)
        return changes

    def _is_empty(self, topic: Topic) -> bool:
        return beginnings(self._settings, topic.name) == ends(self._settings, topic.name)

    def create(self, topics: list[Topic]) -> None:
        if not topics:
            return
        timeout_s = self._settings.timeout_s
        new = [
            NewTopic(
                topic.name, topic.partitions, self._safety.replicas, config=created_with(topic, self._safety)
            )
            for topic in topics
        ]
        created = self._admin.create_topics(new, operation_timeout=timeout_s, request_timeout=timeout_s)
        for name, outcome in created.items():
            self._wait(name, outcome, but=KafkaError.TOPIC_ALREADY_EXISTS)  # another `apply` was quicker

    def alter(self, changes: list[Change]) -> None:
        if not changes:
            return
        resources: dict[str, ConfigResource] = {}
        for change in changes:
            resource = resources.setdefault(change.topic, ConfigResource(ResourceType.TOPIC, change.topic))
            resource.add_incremental_config(
                ConfigEntry(change.setting, change.declared, incremental_operation=AlterConfigOpType.SET)
            )
        altered = self._admin.incremental_alter_configs(
            list(resources.values()), request_timeout=self._settings.timeout_s
        )
        for resource, outcome in altered.items():
            self._wait(resource.name, outcome)

    def grow(self, change: Change) -> None:
        """Add partitions, and wait until they are there."""
        total = int(change.declared)
        grown = self._admin.create_partitions(
            [NewPartitions(change.topic, total)], request_timeout=self._settings.timeout_s
        )
        self._wait(change.topic, grown[change.topic])
        self.settle(lambda: len(self.topics()[change.topic].partitions) == total)

    def settle(self, done: Callable[[], bool]) -> None:
        """Wait until the broker shows what its controller has done: it follows a moment later."""
        deadline = time.monotonic() + self._settings.timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise Problem(
                    "the changes did not take effect in time", where=self._settings.bootstrap_servers
                )
            time.sleep(0.05)

    def settings_of(self, topics: Sequence[Topic]) -> dict[str, dict[str, str]]:
        """Without those of a topic that was just created: the broker that is asked may not know it yet."""
        if not topics:
            return {}
        described = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics],
            request_timeout=self._settings.timeout_s,
        )
        settings = {}
        for resource, outcome in described.items():
            entries = self._wait(resource.name, outcome, but=KafkaError.UNKNOWN_TOPIC_OR_PART)
            if entries is not None:
                settings[resource.name] = {name: entry.value for name, entry in entries.items()}
        return settings

    def _wait(self, topic: str, outcome: "Future[Any]", but: int | None = None) -> Any:
        try:
            return outcome.result()
        except KafkaException as error:
            if error.args[0].code() == but:
                return None
            cause = error.args[0]
            raise (
                denial(cause, self._settings, topic) or problem(cause, self._settings, f"topic {topic}")
            ) from error


def _beside_raw(topic: Topic, known: dict[str, TopicMetadata]) -> Topic:
    """A batch's partition has the number of its raw partition, however many were declared."""
    if topic.name != BATCHES.name or RAW.name not in known:
        return topic
    return topic._replace(partitions=max(topic.partitions, len(known[RAW.name].partitions)))


def _found(topic: TopicMetadata, config: dict[str, str]) -> Found:
    partitions = topic.partitions.values()
    return Found(
        len(partitions),
        min((len(partition.replicas) for partition in partitions), default=0),
        min((len(partition.isrs) for partition in partitions), default=0),
        config,
    )
