"""What only a role's own process knows: the partitions that it has, what it holds back, how Avstar does."""

from collections import deque
from collections.abc import Mapping
from math import isfinite
from time import monotonic
from typing import Any, NamedTuple

from faust.types import TP
from prometheus_client import REGISTRY

from schemas.letter import now
from streams import metrics
from streams.unread import Unread
from topics.transport import App

#: Over how long rates are taken.
_WINDOW_S = 60.0


class _Sample(NamedTuple):
    at: float
    answers: float
    failures: float
    waits: float
    waited_s: float


class AvstarHealth:
    """How Avstar does, as this process sees it. One thread looks, any may ask."""

    def __init__(self) -> None:
        self._state, self._since = "closed", now()
        self._samples: deque[_Sample] = deque()

    def became(self, state: str) -> None:
        """The circuit breaker entered a state."""
        # While it is tried again and again it has been down since it was closed.
        if "closed" in (state, self._state):
            self._since = now()
        self._state = state

    def look(self) -> None:
        """Remember the counters of now."""
        answers = {answer: _value("delivery_attempts_total", answer=answer) for answer in metrics.ANSWERS}
        self._samples.append(
            _Sample(
                monotonic(),
                sum(answers.values()),
                answers["unavailable"],
                _value("limiter_wait_seconds_count"),
                _value("limiter_wait_seconds_sum"),
            )
        )
        while len(self._samples) > 2 and self._samples[1].at <= self._samples[-1].at - _WINDOW_S:
            self._samples.popleft()

    def told(self) -> dict[str, Any]:
        """Breaker, since when; of the last minute requests, failures, and the mean wait for a turn."""
        samples = list(self._samples)
        first, last = (samples[0], samples[-1]) if samples else (None, None)
        known = first is not None and last is not None and last.at > first.at
        waits = last.waits - first.waits if first and last else 0
        token_age_s = _value("token_age_seconds")
        return {
            "breaker": self._state,
            "since": self._since,
            "requests": last.answers - first.answers if first and last and known else 0,
            "failures": last.failures - first.failures if first and last and known else 0,
            "wait_s": (last.waited_s - first.waited_s) / waits if first and last and waits else 0.0,
            "in_flight": _value("requests_in_flight"),
            "limit": _value("requests_limit"),
            "token_age_s": token_age_s if isfinite(token_age_s) else None,
        }


def _value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"spotstream_{name}", labels) or 0.0


class OwnRole:
    """Of one process. ``avstar`` is dispatch's alone."""

    def __init__(self, app: App, name: str, unread: Unread, avstar: AvstarHealth | None = None) -> None:
        self.name, self.avstar = name, avstar
        self._app, self._unread = app, unread

    @property
    def partitions(self) -> set[int]:
        """Those that are owned."""
        return {owned.partition.partition for owned in self._app.ownership.owned}

    def told(self) -> dict[str, Any]:
        """State, owned partitions with position and lag, counters; refreshes the metrics of partitions."""
        partitions = self._partitions()
        told = {
            "role": self.name,
            "state": self._state(partitions),
            "held": metrics.held(),
            "partitions": partitions,
            "counters": _counters(),
        }
        return told | ({"avstar": self.avstar.told()} if self.avstar else {})

    def _state(self, partitions: list[dict[str, Any]]) -> str:
        if self._app.should_stop or self._app.crashed:
            return "stopping"
        return "running" if partitions else "waiting for partitions"

    def _partitions(self) -> list[dict[str, Any]]:
        partitions = []
        metrics.POSITION.clear()
        metrics.LAG.clear()
        for owned in self._app.ownership.owned:
            topic, partition = owned.partition.topic, owned.partition.partition
            fetched = self._app.consumer.highwater(TP(topic, partition)) or 0
            lag = max(0, fetched - owned.position, self._unread.ends.get(partition, 0) - owned.position)
            metrics.POSITION.labels(topic, partition).set(owned.position)
            metrics.LAG.labels(topic, partition).set(lag)
            partitions.append(
                {"topic": topic, "partition": partition, "position": owned.position, "lag": lag}
            )
        return partitions


def _counters() -> Mapping[str, float]:
    return {
        f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value
        for family in REGISTRY.collect()
        if family.name.startswith("spotstream") and family.type == "counter"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
