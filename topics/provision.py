"""Makes the broker's topics what the catalogue declares, and never takes anything away.

Missing topics are created and settings that differ are altered. What would shrink a topic (a shorter
retention, smaller messages) or cannot be undone (partitions) is reported and left to the operator.
"""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from schemas.errors import Problem, Unreachable
from topics.catalogue import BATCHES, CATALOGUE, RAW, Topic
from topics.connection import KafkaSettings


class Action(StrEnum):
    """What ``apply`` does about a difference."""

    CREATE = "create"
    ALTER = "alter"
    LEAVE = "leave"


class Change(NamedTuple):
    """One difference: ``setting`` of ``topic`` is ``actual`` at the broker; a missing topic is one, too."""

    action: Action
    topic: str
    setting: str
    actual: str
    declared: str

    def __str__(self) -> str:
        if self.action is Action.CREATE:
            return f"+ {self.topic}: {self.declared}"
        sign = "~" if self.action is Action.ALTER else "="
        line = f"{sign} {self.topic}: {self.setting} {self.actual} -> {self.declared}"
        return line if self.action is Action.ALTER else f"{line} (left as it is)"


def plan(settings: KafkaSettings, catalogue: Iterable[Topic] = CATALOGUE) -> list[Change]:
    """The differences between ``catalogue`` and the broker's topics.

    Raises :class:`Unreachable` when no broker answers within ``settings.timeout_s``, :class:`Problem` when it
    refuses.
    """
    return _Broker(settings).differences(list(catalogue))


def apply(settings: KafkaSettings, catalogue: Iterable[Topic] = CATALOGUE) -> list[Change]:
    """Create and alter what :func:`plan` says; returns that plan once it is done. Raises like it."""
    broker, topics = _Broker(settings), {topic.name: topic for topic in catalogue}
    changes = broker.differences(list(topics.values()))
    broker.create([topics[change.topic] for change in changes if change.action is Action.CREATE])
    broker.alter([change for change in changes if change.action is Action.ALTER])
    broker.settle(list(topics.values()))
    return changes


def require(settings: KafkaSettings) -> None:
    """Raise :class:`Problem` when a declared topic is missing, or a raw partition has none for batches."""
    broker = _Broker(settings)
    missing = [
        change.topic for change in broker.differences(list(CATALOGUE)) if change.action is Action.CREATE
    ]
    if missing:
        raise Problem(
            f"no such topic: {', '.join(missing)}",
            where=settings.bootstrap_servers,
            remedy="create them with `spotstream topics apply`",
        )
    raw, batches = broker.partitions(RAW), broker.partitions(BATCHES)
    if batches < raw:
        raise Problem(
            f"{BATCHES.name} has {batches} partitions and {RAW.name} {raw}; each raw partition needs its own",
            where=settings.bootstrap_servers,
            remedy=f"add partitions to {BATCHES.name}",
        )


class _Broker:
    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = AdminClient(settings.confluent())

    def differences(self, declared: list[Topic]) -> list[Change]:
        try:
            actual = self._admin.list_topics(timeout=self._settings.timeout_s).topics
        except KafkaException as error:
            raise self._problem(error) from error
        changes = [_missing(topic) for topic in declared if topic.name not in actual]
        present = [topic for topic in declared if topic.name in actual]
        settings = self._settings_of(present)
        for topic in present:
            changes += _differing(topic, actual[topic.name], settings[topic.name])
        return changes

    def partitions(self, topic: Topic) -> int:
        try:
            return len(
                self._admin.list_topics(topic.name, self._settings.timeout_s).topics[topic.name].partitions
            )
        except KafkaException as error:
            raise self._problem(error) from error

    def create(self, topics: list[Topic]) -> None:
        if not topics:
            return
        replicas, timeout_s = self._settings.replication_factor, self._settings.timeout_s
        new = [NewTopic(topic.name, topic.partitions, replicas, config=topic.config) for topic in topics]
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

    def settle(self, declared: list[Topic]) -> None:
        """Wait until the broker shows what its controller has done: it follows a moment later."""
        deadline = time.monotonic() + self._settings.timeout_s
        while any(change.action is not Action.LEAVE for change in self.differences(declared)):
            if time.monotonic() > deadline:
                raise Problem(
                    "the changes did not take effect in time", where=self._settings.bootstrap_servers
                )
            time.sleep(0.05)

    def _settings_of(self, topics: list[Topic]) -> dict[str, dict[str, str]]:
        if not topics:
            return {}
        described = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics],
            request_timeout=self._settings.timeout_s,
        )
        settings = {}
        for resource, outcome in described.items():
            entries = self._wait(resource.name, outcome)
            settings[resource.name] = {name: entry.value for name, entry in entries.items()}
        return settings

    def _wait(self, topic: str, outcome: "Future[Any]", but: int | None = None) -> Any:
        try:
            return outcome.result()
        except KafkaException as error:
            if error.args[0].code() == but:
                return None
            raise self._problem(error, topic) from error

    def _problem(self, error: KafkaException, topic: str = "") -> Problem:
        cause: KafkaError = error.args[0]
        where = self._settings.bootstrap_servers
        if cause.code() in _SILENT:
            return Unreachable(
                f"no Kafka broker answered within {self._settings.timeout_s:g} s",
                where=where,
                remedy="start one (`spotstream up`), or set kafka.bootstrap_servers",
            )
        return Problem(cause.str(), where=f"topic {topic} at {where}" if topic else where)


_SILENT = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE}


def _missing(topic: Topic) -> Change:
    settings = ", ".join(f"{name}={value}" for name, value in topic.config.items())
    return Change(Action.CREATE, topic.name, "", "", f"{topic.partitions} partitions, {settings}")


def _differing(topic: Topic, actual: TopicMetadata, settings: dict[str, str]) -> list[Change]:
    changes = [
        Change(_action(name, settings[name], value), topic.name, name, settings[name], value)
        for name, value in topic.config.items()
        if settings[name] != value
    ]
    if len(actual.partitions) != topic.partitions:
        partitions = str(len(actual.partitions)), str(topic.partitions)
        changes.append(Change(Action.LEAVE, topic.name, "partitions", *partitions))
    return changes


def _action(setting: str, actual: str, declared: str) -> Action:
    if setting in ("retention.ms", "max.message.bytes") and _size(actual) > _size(declared):
        return Action.LEAVE
    return Action.ALTER


def _size(value: str) -> float:
    return float("inf") if value == "-1" else float(value)
