"""All the files that are being read: found, recognized by their checkpoints, read in turn, let go of."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from schemas.errors import UsageError
from schemas.profile import Profile
from streams import log, paths
from streams.checkpoint import Checkpoint, State
from streams.framing import Framed
from streams.head import Head
from streams.settings import TailSettings
from streams.source import OpenFile, Source

logger = log.get("tail")


class Ownership(Protocol):
    """What is known of files, and how to take one from another tailer."""

    def read(self) -> State: ...

    def end(self, owner: str) -> None: ...

    @property
    def partitions(self) -> int: ...


class _Found(NamedTuple):
    file: OpenFile
    head: Head


class Sources:
    """The files that ``given`` mean. With ``once`` they are taken as they are, to their ends.

    ``refused`` are those that cannot be tailed, with what they were when they were looked at.
    """

    def __init__(self, given: Sequence[str], profile: Profile, settings: TailSettings, *, once: bool) -> None:
        self._given, self._profile, self._settings, self._once = given, profile, settings, once
        self._sources: deque[Source] = deque()
        self.refused: dict[str, tuple[int, ...]] = {}

    def read(self) -> tuple[Source, Framed] | None:
        """The next block, of the files in turn; None when there is nothing new in any of them."""
        for _ in range(len(self._sources)):
            source = self._sources[0]
            self._sources.rotate(-1)
            try:
                framed = source.read(final=self._once)
            except OSError as error:
                self._drop(source, f"cannot be read: {error.strerror}")
                continue
            if framed is not None:
                return source, framed
        return None

    def scan(self, ownership: Ownership) -> None:
        """Let go of files that are lost and begin with those that are new.

        Everything read so far has to be published, so that the checkpoints tell about it. Raises what
        ``ownership`` does; the files that are new are found again the next time.
        """
        for source in list(self._sources):
            if not self._once and (why := source.lost()):
                self._drop(source, why)
        fresh: list[_Found] = []
        try:
            for path in paths.found(self._given):
                if opened := self._open(path, [*(found.file for found in fresh), *self._files()]):
                    fresh.append(opened)
            state = ownership.read() if fresh else None
            while fresh and state:
                state = self._begin(fresh[0], ownership, state)
                del fresh[0]
        finally:
            for found in fresh:
                found.file.close()

    def _files(self) -> list[OpenFile]:
        return [source.file for source in self._sources]

    def _open(self, path: str, others: list[OpenFile]) -> _Found | None:
        """A file that has its header and is none of the ``others`` by another name."""
        try:
            there = Path(path).stat()
        except OSError:
            return None
        if any((there.st_dev, there.st_ino) == (other.device, other.inode) for other in others):
            return None
        signature = (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)
        if self.refused.get(path) == signature:
            return None
        self.refused.pop(path, None)
        file = None
        try:
            file = OpenFile(path)
            if head := file.examine(self._profile, final=self._once):
                return _Found(file, head)
        except UsageError as error:
            self.refused[path] = signature
            # The person needs the reason, not our stack.
            logger.error("file refused", path=path, why=error.what, remedy=error.remedy)  # noqa: TRY400
        if file:
            file.close()
        return None

    def _begin(self, found: _Found, ownership: Ownership, state: State) -> State:
        """Take up a file where its checkpoint says; gives the state, newer after a take-over."""
        file, head = found
        taken = {source.identity for source in self._sources}
        known = state.of(file, taken)
        if known and known.owner != self._settings.name:
            logger.warning("file taken over", path=file.path, owner=known.owner)
            ownership.end(known.owner)
            state = ownership.read()
            known = state.of(file, taken)
        if known:
            _tell_resumed(file, known)
        else:
            _tell_new(file, next((near for near in state.near(file, taken) if near.path == file.path), None))
        self._sources.append(
            Source(file, head, self._profile, self._settings, partitions=ownership.partitions, known=known)
        )
        return state

    def _drop(self, source: Source, why: str) -> None:
        self._sources.remove(source)
        source.file.close()
        logger.error(
            "file given up", path=source.file.path, why=why, position=source.position, unpublished=source.held
        )

    def close(self) -> None:
        """Let go of all of them."""
        while self._sources:
            self._sources.pop().file.close()


def _tell_resumed(file: OpenFile, known: Checkpoint) -> None:
    logger.info("file resumed", path=file.path, position=known.position, records=known.records)
    if known.finished and file.size() > known.position and file.read(known.position - 1, 1) != b"\n":
        logger.error(
            "the last record was taken without its line end and has grown since; its rest is another record",
            path=file.path,
            position=known.position,
            record=known.records,
        )


def _tell_new(file: OpenFile, before: Checkpoint | None) -> None:
    if before is None:
        logger.info("file new", path=file.path)
        return
    logger.error(
        "the file is another one than before, or was truncated; it is read from its start, and what was "
        "written to the one before after its position is lost unless that is tailed under another path",
        path=file.path,
        size=file.size(),
        position=before.position,
        records=before.records,
    )
