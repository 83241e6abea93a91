"""How far the flow is, told cheaply: from offsets and status pages, not from what the topics hold."""

from collections.abc import Collection
from http.client import HTTPException
from typing import Any, NamedTuple

import orjson
from confluent_kafka import KafkaException

from schemas.errors import Unreachable
from streams.lab.service import fetch
from streams.settings import Settings
from topics.admin import Asker
from topics.catalogue import FILES, RAW, RECEIPTS, VALIDATING, Topic
from topics.passing import NO_COORDINATOR_YET
from topics.reader import ends, read_all

_PAGE_S = 1.0


class Reading(NamedTuple):
    """Records that came as far. ``published`` may count a few transaction markers, too."""

    published: int = 0
    validated: int = 0  #: judged, whatever the judgement
    rejected: int = 0
    booked: int = 0


class Gauge:
    """Reads how far the flow on ``settings.kafka`` is, whose roles have their status pages at ``pages``.

    The calls raise :class:`Unreachable` when the broker does not answer, :class:`Problem` when it refuses.
    """

    def __init__(self, settings: Settings, pages: dict[str, str]) -> None:
        self._kafka, self._pages = settings.kafka, pages
        self._askers: dict[str, Asker] = {}
        self._counters: dict[str, dict[str, float]] = {}

    def ready(self) -> bool:
        """Whether every role owns partitions."""
        return all((self._page(role) or {}).get("partitions") for role in self._pages)

    def read(self) -> Reading:
        """Where things stand; a role that is too busy to answer stands where it was."""
        for role in self._pages:
            if page := self._page(role):
                self._counters[role] = page["counters"]
        accepted = self._count("spotstream_records_total accepted")
        rejected = self._count("spotstream_records_total rejected")
        booked = self._count("spotstream_booked_records_total new", "spotstream_booked_records_total known")
        refused = self._count("spotstream_booked_records_total rejected")
        return Reading(self.published(), accepted + rejected, rejected + refused, booked)

    def published(self) -> int:
        """The offsets of the raw topic that are taken."""
        return sum(self._ends(RAW).values())

    def caught_up(self, topic: Topic, group: str) -> bool:
        """Whether ``group`` has committed all that ``topic`` held when this was called.

        The last offset of a partition is the marker of its last transaction, which nobody commits.
        """
        held = {partition: end for partition, end in self._ends(topic).items() if end}
        done = self._committed(topic, group, held)
        return all(end - done[partition] <= 1 for partition, end in held.items())

    def seconds(self) -> float:
        """From the first record published to the last receipt of a booking, by the messages' time stamps."""
        first, last = self._times(FILES), self._times(RECEIPTS)
        return (max(last) - min(first)) / 1000 if first and last else 0.0

    def _times(self, topic: Topic) -> list[int]:
        return [message.timestamp()[1] for message in read_all(self._kafka, topic.name)]

    def _ends(self, topic: Topic) -> dict[int, int]:
        return ends(self._kafka, topic.name, self._asker(VALIDATING))

    def _committed(self, topic: Topic, group: str, partitions: Collection[int]) -> dict[int, int]:
        """By partition; negative where nothing is committed, or nobody knows it yet."""
        if not partitions:
            return {}
        try:
            return self._asker(group).positions(topic.name, partitions, self._kafka.timeout_s)
        except KafkaException as error:
            if error.args[0].code() in NO_COORDINATOR_YET:
                return dict.fromkeys(partitions, -1)
            what = f"the broker does not answer: {error.args[0].str()}"
            raise Unreachable(what, where=self._kafka.bootstrap_servers) from None

    def _asker(self, group: str) -> Asker:
        if group not in self._askers:
            self._askers[group] = Asker(self._kafka, group)
        return self._askers[group]

    def _page(self, role: str) -> dict[str, Any] | None:
        try:
            return dict(orjson.loads(fetch(f"{self._pages[role]}role", _PAGE_S)))
        except (OSError, HTTPException, ValueError):
            return None

    def _count(self, *names: str) -> int:
        # Every process has every counter, those of the other roles with 0.
        return sum(int(counters.get(name, 0)) for counters in self._counters.values() for name in names)
