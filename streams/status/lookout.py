"""The lookout: reads from Kafka what the whole flow is doing, so that any role's page answers for all of it.

It reads the offsets of both groups, the letters, receipts and checkpoints, all of them by itself: nothing is
asked of the workers, so it tells the truth about those that hang, too.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

from confluent_kafka import KafkaException, Message

from schemas import airing
from schemas.errors import Problem
from streams import metrics
from streams.settings import Settings
from streams.status.backlog import Backlog
from streams.status.bookings import SPAN, Bookings
from streams.status.files import Files
from streams.status.letters import Letters
from streams.status.role import OwnRole
from streams.status.trend import OFFSETS_A_BATCH, Sample, Trend, caught_up_in_s
from streams.status.waiting import Waiting
from topics.admin import Asker
from topics.catalogue import BATCHES, CHECKPOINTS, DISPATCHING, DLQ, FILES, RAW, RECEIPTS, VALIDATING
from topics.reader import follow_all
from topics.standing import Place, standing

#: How often it looks while somebody looks at the page, and while nobody does.
_WATCHED_S, _UNWATCHED_S = 0.25, 10.0

#: How long the page counts as looked at after its last question.
_ATTENTION_S = 15.0

#: How long reading may go on before what is known is shown.
_READING_S = 0.5

_TIMEOUT_S = 3.0
_CAUSES = 100

#: Little is asked for at a time. The broker may wait a little with its answer, but on that connection all
#: other questions wait with it.
_SPARING = {"fetch_wait_max_ms": 100, "queued_max_messages_kbytes": 4096, "queued_min_messages": 1000}


class Lookout:
    """Looks from a thread of its own; :meth:`view` gives what it saw last."""

    def __init__(self, settings: Settings, role: OwnRole) -> None:
        self._settings, self._role = settings, role
        self._stop, self._wake = Event(), Event()
        self._watched_at = -_ATTENTION_S
        self._seen: dict[str, Any] = {"looked": ""}
        self._error = ""
        self._trend = Trend()
        kafka = settings.kafka
        self._validating, self._dispatching = Asker(kafka, VALIDATING), Asker(kafka, DISPATCHING)
        self._backlog = Backlog(kafka, self._dispatching, _TIMEOUT_S)
        # A transaction ends with a marker: one closes the log, one follows each batch.
        self._raw = Waiting(kafka, RAW, _TIMEOUT_S, lambda behind: behind - 1)
        self._batches = Waiting(kafka, BATCHES, _TIMEOUT_S, lambda behind: behind // OFFSETS_A_BATCH)
        self._begin()

    def _begin(self) -> None:
        self.letters = Letters(self._settings.dlq.max_redrives)
        self.files = Files()
        self._bookings = Bookings()
        self._reading = True

    async def run(self) -> None:
        """Look until cancelled."""
        thread = Thread(target=self._run, name="lookout", daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stop.set()
            self._wake.set()

    @property
    def watched(self) -> bool:
        """Whether somebody looks at the page."""
        return time.monotonic() - self._watched_at < _ATTENTION_S

    @property
    def _needed(self) -> bool:
        """Whether anybody asks for what is seen: dispatch's metrics do, of validate's nobody but the page."""
        return self.watched or self._role.avstar is not None

    def view(self) -> dict[str, Any]:
        """What was seen last: ``looked`` says when, empty before the first time. Asks for the next look."""
        waited_for = not self.watched
        self._watched_at = time.monotonic()
        if waited_for:
            self._wake.set()
        return self._seen | {"error": self._error, "reading": self._reading}

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look_on()
            except (KafkaException, TimeoutError, Problem) as error:
                self._error = _said(error)
                self._stop.wait(_WATCHED_S if self.watched else _UNWATCHED_S)

    def _look_on(self) -> None:
        """Until stopped; what ends it makes everything be read anew."""
        since = {CHECKPOINTS: None, FILES: None, DLQ: None, RECEIPTS: datetime.now(UTC) - SPAN}
        self._begin()
        topics = {topic.name: at for topic, at in since.items()}
        with closing(follow_all(self._settings.kafka, topics, **_SPARING)) as chunks:
            while not self._stop.is_set():
                answered = self._needed and self._look()
                if answered:
                    self._reading = self._read_on(chunks)
                if self._role.avstar:
                    self._role.avstar.look()
                if not (answered and self._reading):
                    self._wake.wait(_WATCHED_S if self.watched else _UNWATCHED_S)
                    self._wake.clear()

    def _read_on(self, chunks: Generator[list[Message], None, None]) -> bool:
        """Take what is there; whether there is more."""
        until = time.monotonic() + _READING_S
        while chunk := next(chunks):
            for message in chunk:
                self._take(message)
            if time.monotonic() > until:
                return True
        return False

    def _take(self, message: Message) -> None:
        key, value, topic = message.key() or b"", message.value(), message.topic()
        if topic == DLQ.name:
            place = message.partition(), message.offset()
            self.letters.take(key, value, place)
        elif topic == RECEIPTS.name:
            self._bookings.take(value)
        elif topic == CHECKPOINTS.name:
            self.files.take(key, value)
        else:
            self.files.describe(key, value)

    def _look(self) -> bool:
        """Whether the broker answered; else the view stays as it is, and says so."""
        try:
            raw = standing(self._validating, RAW.name, _TIMEOUT_S)
            batches = standing(self._dispatching, BATCHES.name, _TIMEOUT_S)
            if self.watched:
                self._raw.look(raw)
                self._batches.look(batches)
            own = self._role.partitions if self._role.avstar else set()
            self._backlog.look({at: place for at, place in batches.items() if self.watched or at in own})
        except (KafkaException, TimeoutError, Problem) as error:
            self._error = _said(error)
            return False
        self._error = ""
        if self._role.avstar:
            self._measure(own)
        self._trend.learn(Sample(time.monotonic(), *_sums(raw), *_sums(batches)))
        self._seen = self._put_together(raw, batches)
        return True

    def _measure(self, own: set[int]) -> None:
        dead = [airs for partition, airs in self.letters.airing() if partition in own]
        airs = sum(dead, self._backlog.airing(own))
        for within, hours in metrics.AIRING_WITHIN.items():
            spots = airing.between(airs, datetime.now(UTC), hours)
            metrics.AIRING_UNBOOKED.labels(within).set(spots)

    def _put_together(self, raw: Mapping[int, Place], batches: Mapping[int, Place]) -> dict[str, Any]:
        now, speed, size = datetime.now(UTC), self._trend.speed, self._bookings.batch_records
        records, to_book = self._raw.count(raw), self._batches.count(batches)
        dead = sum((airs for _, airs in self.letters.airing()), Counter[str]())
        waits = self._backlog.airing()
        return {
            "looked": now.isoformat(timespec="milliseconds"),
            "files": self.files.published()._asdict(),
            "validate": {
                "waiting": records,
                "oldest_s": self._raw.oldest_s(),
                "a_second": speed.validated,
            },
            "dispatch": {
                "waiting": to_book,
                "records": round(to_book * size),
                "oldest_s": self._batches.oldest_s(),
                "a_second": speed.batches * size,
            },
            "caught_up_s": caught_up_in_s(records, to_book, size, speed),
            "airing": [
                {
                    "within": within,
                    "waiting": airing.between(waits, now, hours),
                    "dead": airing.between(dead, now, hours),
                }
                for within, hours in metrics.AIRING_WITHIN.items()
            ],
            "booked": self._bookings.booked(now)._asdict() | {"last": self._bookings.last},
            "rejected": {
                "letters": len(self.letters),
                "records": self.letters.records,
                "forgotten": self.letters.forgotten,
                "causes": list(self._causes()),
            },
        }

    def _causes(self) -> Iterator[dict[str, Any]]:
        for cause, letters, records in self.letters.causes(_CAUSES):
            yield cause._asdict() | {"letters": letters, "records": records}


def _sums(places: Mapping[int, Place]) -> tuple[int, int]:
    return sum(place.end for place in places.values()), sum(place.position for place in places.values())


def _said(error: BaseException) -> str:
    if isinstance(error, KafkaException):
        return str(error.args[0].str())
    return str(error) or "no answer in time"
