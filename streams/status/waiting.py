"""What waits on a topic: how much, and since when, whoever owns its partitions."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from topics.catalogue import Topic
from topics.connection import KafkaSettings
from topics.oldest import Oldest
from topics.standing import Place

#: How often records are looked at: each costs a fetch.
_EVERY_S = 5.0


class _Oldest(NamedTuple):
    place: Place
    appended_ms: int | None  #: None: there is nothing but markers and what was aborted


class Waiting:
    """Asks about the partitions that are behind, again only where something has moved. Its calls block."""

    def __init__(
        self, kafka: KafkaSettings, topic: Topic, timeout_s: float, count: Callable[[int], int]
    ) -> None:
        """``count``: how many messages so many offsets are, markers left out."""
        self._kafka, self._topic, self._timeout_s, self._count = kafka, topic, timeout_s, count
        self._asking: Oldest | None = None  # until somebody looks: it keeps connections
        self._known: dict[int, _Oldest] = {}
        self._looked = -_EVERY_S

    def look(self, places: Mapping[int, Place]) -> None:
        """See since when what is behind waits. Raises what :class:`topics.oldest.Oldest` does."""
        behind = {at: place for at, place in places.items() if place.behind}
        self._known = {at: known for at, known in self._known.items() if at in behind}
        asked = {at: place for at, place in behind.items() if not self._knows(at, place)}
        settled = all(at not in self._known for at in asked)
        if not asked or (not settled and time.monotonic() - self._looked < _EVERY_S):
            return
        self._looked = time.monotonic()
        self._asking = self._asking or Oldest(self._kafka, self._topic.name, self._timeout_s)
        found = self._asking.appended_ms({at: place.position for at, place in asked.items()})
        in_time = time.monotonic() - self._looked < self._timeout_s
        self._known |= {
            at: _Oldest(place, found.get(at)) for at, place in asked.items() if at in found or in_time
        }

    def _knows(self, partition: int, place: Place) -> bool:
        known = self._known.get(partition)
        if known is None or known.place.position != place.position:
            return False
        return known.appended_ms is not None or known.place.end == place.end

    def count(self, places: Mapping[int, Place]) -> int:
        """How many messages wait, as nearly as offsets tell."""
        return sum(self._count(place.behind) for at, place in places.items() if not self._is_empty(at, place))

    def _is_empty(self, partition: int, place: Place) -> bool:
        known = self._known.get(partition)
        return not place.behind or (known == _Oldest(place, None))

    def oldest_s(self) -> float | None:
        """How long the oldest record has waited; None when none waits, as far as was looked."""
        appended = [known.appended_ms for known in self._known.values() if known.appended_ms is not None]
        return max(0.0, time.time() - min(appended) / 1000) if appended else None
