"""Feeds: a program's own records, each published exactly once, whatever becomes of the program."""

import asyncio
import contextlib
import json
import re
from codecs import lookup
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schemas.descriptor import Descriptor
from schemas.errors import UsageError
from schemas.profile import Profile
from schemas.profile import load as load_profile
from streams.feed.outbox import Outbox
from streams.feed.parcel import Bookmark, Parcel
from streams.feed.writer import Row, Writer
from streams.settings import Settings
from streams.tail.publisher import Publisher
from topics.catalogue import CHECKPOINTS
from topics.reader import read_compacted

#: What may lie between two positions: it is committed in one piece, so it is held in memory in one piece.
_MOST_BYTES, _MOST_RECORDS = 67_108_864, 500_000

#: A position's length as JSON, in bytes.
_MOST_GIVEN = 65_536

#: How long a feed that is left by an exception goes on committing what it was given.
_STOP_S = 3.0

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Base:
    """What both kinds of feed have in common."""

    def __init__(
        self, settings: Settings, name: str, *, profile: str | Path = "", header: Iterable[str] = ()
    ) -> None:
        """A feed of that name, whose records are as a file's would be that has this profile and header.

        ``name`` is the source's: the position is kept under it, and one process at a time has it. Raises
        :class:`UsageError` for a profile, a header or a name that cannot be used.
        """
        self._name = f"feed:{name}"
        if not _NAME.fullmatch(name):
            what = "a name has 1 to 64 letters, digits, dots, hyphens and underscores"
            raise UsageError(what, where=self._name)
        self._settings = settings
        self._descriptor = _described(self._name, load_profile(profile or settings.tail.profile), header)
        self._writer = Writer(self._descriptor)
        self._publisher = Publisher(settings, feed=name)
        self._outbox: Outbox | None = None

    @property
    def position(self) -> Any:
        """The last one that is committed, by this process or the one before; None when there is none yet."""
        given = self._begun.committed.given
        return json.loads(given) if given else None

    @property
    def records(self) -> int:
        """How many records are committed in all, by this process and those before."""
        return self._begun.committed.records

    @property
    def _begun(self) -> Outbox:
        if self._outbox is None:
            raise RuntimeError("a feed is used in a with statement")
        return self._outbox

    def _start(self) -> None:
        self._publisher.start()
        known = read_compacted(self._settings.kafka, CHECKPOINTS.name).get(self._name.encode())
        partitions = self._publisher.partitions
        bookmark = (
            Bookmark.model_validate_json(known) if known else Bookmark.first(self._descriptor, partitions)
        )
        first = Parcel(bookmark, self._descriptor, self._settings.tail, partitions)
        self._outbox = Outbox(self._publisher, first, bookmark)

    def _written(self, rows: Iterable[Row]) -> list[bytes]:
        """All of the rows as records, or none."""
        records: list[bytes] = []
        size = 0
        for record in self._writer.write(rows):
            records.append(record)
            size += len(record)
            if size > _MOST_BYTES or len(records) > _MOST_RECORDS:
                what = f"more than {_MOST_RECORDS} records or {_MOST_BYTES} bytes for one position"
                raise UsageError(what, where=self._name, remedy="give fewer at once")
        return records

    def _dumped(self, position: object) -> str:
        """A position as JSON, which gives back just what was given."""
        what = ""
        try:
            given = json.dumps(position, allow_nan=False)
            if len(given) > _MOST_GIVEN:
                what = f"a position of {len(given)} bytes is too long"
            elif position is None or json.loads(given) != position:
                what = f"{position!r:.80} would not come back as it is"
        except (TypeError, ValueError) as error:
            what = f"{position!r:.80} is not JSON: {error}"
        if what:
            remedy = f"a position is text, a number, a list or an object of these, up to {_MOST_GIVEN} bytes"
            raise UsageError(what, where=self._name, remedy=remedy)
        return given

    def _end(self, error: BaseException | None) -> None:
        """Commit what was given, for a while only when an exception goes on from here; then let go."""
        try:
            if error is None:
                self._begun.wait_until_sent()
            else:
                with contextlib.suppress(Exception):
                    self._begun.wait_until_sent(_STOP_S)
        finally:
            self._publisher.abandon()
            self._outbox = None


class Feed(_Base):
    """A feed for programs that block: ``with Feed(…) as feed``, then go on from ``feed.position``.

    What was given is committed in order, soon, in the background; leaving the ``with`` waits for the rest.
    Entering raises :class:`Unreachable`, and :class:`Problem` when topics are missing; everything else
    :class:`Problem` when another process has taken the name. To be used from one thread.
    """

    def publish(self, rows: Iterable[Row], position: Any) -> None:
        """Publish ``rows``, after which a later run goes on from ``position`` (anything that JSON has).

        Both are committed together, so no record is ever lost or there twice, if the program gives the same
        rows again after the same position. Waits while two rounds are on their way. Raises
        :class:`UsageError`, and publishes none of the rows, when one of them cannot be written.
        """
        records, given = self._written(rows), self._dumped(position)
        self._begun.wait_for_room()
        self._begun.put(records, given)

    def flush(self) -> None:
        """Return when everything given so far is committed."""
        self._begun.wait_until_sent()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)


class AsyncFeed(_Base):
    """Like :class:`Feed`, for programs with an event loop: ``async with AsyncFeed(…) as feed``."""

    async def publish(self, rows: Iterable[Row], position: Any) -> None:
        """As :meth:`Feed.publish`. Tasks that call it at the same time take turns."""
        async with self._turn:
            records, given = self._written(rows), self._dumped(position)
            while not self._begun.has_room():
                await asyncio.to_thread(self._begun.wait_for_room)
            self._begun.put(records, given)

    async def flush(self) -> None:
        """Return when everything given so far is committed."""
        await asyncio.to_thread(self._begun.wait_until_sent)

    async def __aenter__(self) -> Self:
        self._turn = asyncio.Lock()
        await asyncio.to_thread(self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._end, error)


def _described(name: str, profile: Profile, header: Iterable[str]) -> Descriptor:
    headings = tuple(header)
    if isinstance(header, str) or not all(isinstance(heading, str) for heading in headings):
        raise UsageError("a header is a list of texts, the headings", where=name)
    if profile.header != bool(headings):
        what = "has columns of its own" if headings else "maps headings"
        remedy = "give no header" if headings else "give the header"
        raise UsageError(f"the profile {profile.name} {what}", where=name, remedy=remedy)
    encoding = lookup(profile.encoding).name
    if encoding == "utf-16":
        raise UsageError(
            "records have no byte order mark",
            where=name,
            remedy='its profile has to say encoding = "utf-16-le" or "utf-16-be"',
        )
    try:
        profile.layout(headings)
    except UsageError as error:
        raise UsageError(error.what, where=name, remedy=error.remedy) from None
    return Descriptor(
        path=name,
        identity=name,
        format=profile.format,
        encoding=encoding.removesuffix("-sig"),  # no record has the mark of a file's beginning
        header=headings,
        profile=profile,
    )
