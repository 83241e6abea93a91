"""The batches that wait: how many of their spots air in which hour, from their headers."""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing

from confluent_kafka import Message

from schemas import airing
from streams.dispatch.message import REPLAY
from topics.admin import Asker
from topics.catalogue import BATCHES
from topics.connection import KafkaSettings
from topics.reader import read_between
from topics.standing import Place

#: What is younger is about to be booked. So nothing is read while Avstar keeps up.
_GRACE_S = 30.0

_STABLE_S = 1.0


class Backlog:
    """Reads each batch that waits for longer than half a minute, once. Its calls block; one at a time."""

    def __init__(self, kafka: KafkaSettings, asker: Asker, timeout_s: float) -> None:
        self._kafka, self._asker, self._timeout_s = kafka, asker, timeout_s
        self._airs: dict[int, dict[int, Counter[str]]] = {}
        self._read: dict[int, int] = {}

    def look(self, places: Mapping[int, Place]) -> None:
        """Read on. ``places``: where dispatch stands on the partitions that are wanted.

        Raises ``KafkaException``, ``TimeoutError``, :class:`Problem`.
        """
        for partition, place in places.items():
            waiting = self._airs.setdefault(partition, {})
            for offset in [offset for offset in waiting if offset < place.position]:
                del waiting[offset]
        begins = {at: max(place.position, self._read.get(at, 0)) for at, place in places.items()}
        young = self._young({at: place for at, place in places.items() if place.end > begins[at]})
        ends = {at: end for at, end in young.items() if end > begins[at]}
        if ends:
            wanted = {at: begins[at] for at in ends}
            with closing(read_between(self._kafka, BATCHES.name, wanted, dict(ends), _STABLE_S)) as messages:
                for message in messages:
                    self._take(message)
            self._read |= ends

    def _young(self, places: Mapping[int, Place]) -> dict[int, int]:
        """By partition, the first offset that is too young to count."""
        if not places:
            return {}
        since = int((time.time() - _GRACE_S) * 1000)
        found = self._asker.offsets(BATCHES.name, dict.fromkeys(places, since), self._timeout_s)
        return {at: places[at].end if offset < 0 else offset for at, offset in found.items()}

    def _take(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        self._read[partition] = offset + 1
        headers = dict(message.headers() or ())
        try:
            airs = airing.read((headers.get(airing.HEADER) or b"").decode())
        except ValueError:
            return
        if airs and not headers.get(REPLAY):  # what a replay sends again is booked
            self._airs[partition][offset] = airs

    def airing(self, partitions: Collection[int] | None = None) -> Counter[str]:
        """How many spots that wait air in which hour; of these partitions, None: of all."""
        found: Counter[str] = Counter()
        for partition, waiting in self._airs.items():
            if partitions is None or partition in partitions:
                for airs in waiting.values():
                    found.update(airs)
        return found
