"""How a topic at the broker differs from its declaration, and what may be done about it. Pure.

What adds is altered at once. What takes something away, or cannot be undone, is done only when it is asked
for by name; what would break a promise of the flow, or what Kafka has no call for, is shown and left.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from topics.catalogue import Topic

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000))


class Allowed(StrEnum):
    """What ``apply`` alters only when it is allowed by name."""

    PARTITIONS = "partitions"
    RETENTION = "retention.ms"
    CLEANUP = "cleanup.policy"


class Action(StrEnum):
    """What ``apply`` does about a difference."""

    CREATE = "create"
    ALTER = "alter"
    ASK = "ask"
    LEAVE = "leave"


_SIGNS = {Action.CREATE: "+", Action.ALTER: "~", Action.ASK: "!", Action.LEAVE: "="}


class Change(NamedTuple):
    """One difference: ``setting`` of ``topic`` is ``actual`` at the broker; a missing topic is one, too.

    ``why``: the reason not to alter it unasked.
    """

    action: Action
    topic: str
    setting: str
    actual: str
    declared: str
    why: str = ""

    def __str__(self) -> str:
        sign = _SIGNS[self.action]
        if self.action is Action.CREATE:
            return f"{sign} {self.topic}: {self.declared}"
        line = (
            f"{sign} {self.topic}: {self.setting} {self._shown(self.actual)} -> {self._shown(self.declared)}"
        )
        if self.action is Action.ASK:
            return f"{line} (only with --allow {self.setting}: {self.why})"
        return f"{line} (left as it is: {self.why})" if self.action is Action.LEAVE else line

    @property
    def forgets(self) -> bool:
        """Whether Kafka would delete what the flow keeps for good, so that the flow refuses the topic."""
        return self.setting == Allowed.CLEANUP and self.declared == "compact"

    def _shown(self, value: str) -> str:
        if self.setting != "retention.ms":
            return value
        if value == "-1":
            return f"{value} (for ever)"
        unit, size = next((one for one in _UNITS if int(value) % one[1] == 0), ("ms", 1))
        return f"{value} ({int(value) // size} {unit})"


class Found(NamedTuple):
    """A topic as it is: ``replicas`` and ``in_sync`` of the partition that has the fewest of them.

    ``empty``: whether it certainly holds no record.
    """

    partitions: int
    replicas: int
    in_sync: int
    config: Mapping[str, str]
    empty: bool = False


class Safety(NamedTuple):
    """What production asks of every topic at the least."""

    replicas: int = 1
    min_in_sync: int = 1


def missing(topic: Topic, safety: Safety) -> Change:
    """A topic that is to be created."""
    config = ", ".join(f"{name}={value}" for name, value in created_with(topic, safety).items())
    size = f"{topic.partitions} partitions, {safety.replicas} replicas"
    return Change(Action.CREATE, topic.name, "", "", f"{size}, {config}")


def created_with(topic: Topic, safety: Safety) -> dict[str, str]:
    """The broker-side settings of a new topic."""
    # Said always: a broker's default above the replication factor makes a topic that takes no records.
    return topic.config | {"min.insync.replicas": str(safety.min_in_sync)}


def differing(topic: Topic, found: Found, safety: Safety) -> Iterator[Change]:
    """What of ``found`` is not as declared, or not as safe as ``safety`` demands."""
    for name, value in topic.config.items():
        if found.config[name] != value:
            action, why = _alteration(name, found, value)
            yield Change(action, topic.name, name, found.config[name], value, why)
    if found.partitions != topic.partitions:
        action, why = _resizing(topic, found.partitions)
        yield Change(action, topic.name, "partitions", str(found.partitions), str(topic.partitions), why)
    yield from _unsafe(topic, found, safety)


def _alteration(setting: str, found: Found, declared: str) -> tuple[Action, str]:
    if setting == "cleanup.policy":
        return _other_cleanup(declared, empty=found.empty)
    if setting == "message.timestamp.type":
        return Action.ALTER, ""  # what lies there keeps its stamps
    if _size(found.config[setting]) < _size(declared):
        return Action.ALTER, ""
    if setting == "retention.ms":
        return Action.ASK, "a shorter retention deletes records"
    return Action.LEAVE, "more than is needed does no harm"


def _other_cleanup(declared: str, *, empty: bool) -> tuple[Action, str]:
    if declared != "compact":
        return Action.ASK, "what the other policy takes away is gone"
    if empty:
        return Action.ALTER, ""
    return Action.ASK, "of each key only the last value stays; tail and worker refuse it until then"


def _resizing(topic: Topic, actual: int) -> tuple[Action, str]:
    if actual > topic.partitions:
        return Action.LEAVE, "Kafka takes no partitions away"
    if topic.cleanup == "compact":
        return Action.LEAVE, "a key's next value would not replace the last one"
    return Action.ASK, "it cannot be undone, and new files and keys go elsewhere; see docs/operate.md"


def _unsafe(topic: Topic, found: Found, safety: Safety) -> Iterator[Change]:
    if found.replicas < safety.replicas:
        yield Change(
            Action.LEAVE,
            topic.name,
            "replication factor",
            str(found.replicas),
            str(safety.replicas),
            "move it with kafka-reassign-partitions, see docs/operate.md",
        )
    actual = found.config["min.insync.replicas"]
    if int(actual) < safety.min_in_sync:
        enough = found.replicas >= safety.min_in_sync
        yield Change(
            Action.ALTER if enough else Action.LEAVE,
            topic.name,
            "min.insync.replicas",
            actual,
            str(safety.min_in_sync),
            "" if enough else f"with a replication factor of {found.replicas} nothing could be written",
        )


def _size(value: str) -> float:
    return float("inf") if value == "-1" else float(value)
