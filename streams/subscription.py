"""Validated records for programs: those of one kind, decoded, as they are committed."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple

from confluent_kafka import Message

from schemas.codec import Codec, schema_id
from schemas.hashes import Canonical
from schemas.records import Kind, kind_named
from schemas.registry import Registry, UnknownSchema
from streams import log
from streams.settings import Settings
from topics.catalogue import VALIDATED
from topics.reader import follow as read_on
from topics.reader import read_since

logger = log.get("subscription")


class Record(NamedTuple):
    """A validated record, and where it stands on its topic."""

    record: Canonical  #: field → value as in docs/subscribing.md; empty fields are left out
    placement_hash: str  #: 64 hexadecimal digits; the same record, exported again, has the same
    key: str  #: the record's id
    partition: int
    offset: int
    timestamp: datetime  #: when it was written to the topic; UTC


async def subscribe(
    settings: Settings, kind: str, *, since: datetime | None = None, follow: bool = False
) -> AsyncGenerator[Record, None]:
    """The records of :func:`chunks`, one by one; reading and decoding are done in a thread.

    Leave it in the middle only inside of ``contextlib.aclosing``, so that the consumer is closed at once.
    """
    found = chunks(settings, kind, since=since, follow=follow)
    loop = asyncio.get_running_loop()
    # One thread: what is to be closed is closed after the step that is under way.
    with ThreadPoolExecutor(1, "subscription") as thread:
        try:
            while (chunk := await loop.run_in_executor(thread, next, found, None)) is not None:
                for record in chunk:
                    yield record
        finally:
            await loop.run_in_executor(thread, found.close)


def chunks(
    settings: Settings, kind: str, *, since: datetime | None = None, follow: bool = False
) -> Generator[list[Record], None, None]:
    """Committed records of ``kind`` (spot, avail, billing, makegood, or its plural), at most 1000 at once.

    ``since`` (aware): only what was written to the topic then or later; None: all that retention has kept.
    It ends at what was committed when it began, or with ``follow`` never: then a chunk, which may be empty,
    comes twenty times a second. In order within a partition. A value that is none of our records is logged
    as a warning and left out.

    Raises :class:`schemas.errors.UsageError` for another kind, :class:`schemas.errors.Unreachable` when
    the broker or the registry is not there, :class:`schemas.errors.Problem` when there is no such topic.
    """
    decoder = _Decoder(kind_named(kind), Registry(settings.registry))
    return _decoded(decoder, settings, since, follow)


def _decoded(
    decoder: "_Decoder", settings: Settings, since: datetime | None, follow: bool
) -> Generator[list[Record], None, None]:
    read = read_on if follow else read_since
    with closing(read(settings.kafka, VALIDATED[decoder.kind].name, since)) as messages:
        for chunk in messages:
            yield [record for message in chunk if (record := decoder.record(message)) is not None]


class _Decoder:
    """Reads messages by the schema that the registry has for each."""

    def __init__(self, kind: Kind, registry: Registry) -> None:
        self.kind: Kind = kind
        self._registry = registry
        self._codecs: dict[int, Codec | str] = {}  # by schema id; or why its records are not ours

    def record(self, message: Message) -> Record | None:
        """The record; None, and a warning, when it is none of ours. Raises what the registry does."""
        try:
            value = message.value() or b""
            record, placement_hash = self._codec(schema_id(value)).decode(value)
        except ValueError as error:
            self._warn(message, str(error))
            return None
        timestamp = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        key = (message.key() or b"").decode(errors="replace")
        return Record(record, placement_hash, key, message.partition(), message.offset(), timestamp)

    def _codec(self, number: int) -> Codec:
        found = self._codecs.get(number)
        if found is None:
            found = self._codecs[number] = self._ask(number)
        if isinstance(found, str):
            raise ValueError(found)  # noqa: TRY004 - it is the value that is wrong
        return found

    def _ask(self, number: int) -> Codec | str:
        try:
            return Codec(self.kind, number, self._registry.schema(number))
        except (UnknownSchema, ValueError) as error:
            return f"schema {number}: {error}"

    def _warn(self, message: Message, why: str) -> None:
        logger.warning(
            "left out what is no record of ours",
            topic=VALIDATED[self.kind].name,
            partition=message.partition(),
            offset=message.offset(),
            why=why,
        )
