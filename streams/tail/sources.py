"""All the files that are being read: found, recognized, read in turn, seen to their ends."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Protocol

from schemas.errors import UsageError
from schemas.profile import Profile
from streams import log
from streams.formats.framing import Framed
from streams.formats.gzipped import DamagedError
from streams.settings import TailSettings
from streams.tail import paths
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.disposal import Disposal
from streams.tail.recognition import Found
from streams.tail.source import OpenFile, OverwrittenError, PassingError, Source
from streams.tail.takeup import TakeUp

logger = log.get("tail")

Inode = tuple[int, int]

#: In place of what a file was when it was refused: it is to be tried again whatever it is.
_TRIED_AGAIN = (0,)


class Ownership(Protocol):
    """What is known of files, and how to make and take claims to them."""

    def read(self) -> State: ...

    def claim(self, sources: Sequence[Source], withdrawn: Sequence[str]) -> None: ...

    def take_over(self, owner: str, theirs: Callable[[State], Sequence[Checkpoint]]) -> None: ...

    @property
    def partitions(self) -> int: ...


class Loss(NamedTuple):
    """Bytes that were, or may have been, destroyed before they could be read: from ``position`` on.

    ``known`` are those that had been seen; how many more there were nobody can tell.
    """

    path: str
    position: int
    known: int
    why: str


class _Overwritten(NamedTuple):
    source: Source
    since: float


class Suspect(NamedTuple):
    """What a file was when it was found to be equal to the beginnings of the files ``originals``."""

    signature: tuple[int, ...]
    since: float
    originals: list[str]


class Sources:
    """The files that ``given`` mean. With ``once`` they are taken as they are, to their ends.

    ``refused`` are those that cannot be tailed, with what they were when they were looked at; ``losses``
    what was destroyed. ``scan_due`` is set when something has changed that only a scan settles.
    """

    def __init__(
        self,
        given: Sequence[str],
        profile: Profile,
        settings: TailSettings,
        *,
        once: bool,
        disposal: Disposal | None = None,
    ) -> None:
        self.given, self.profile, self.settings, self.once = given, profile, settings, once
        self._dispose = disposal or Disposal()
        self.open: dict[str, Source] = {}  # by identity
        self._hot: deque[Source] = deque()  # those that may have something new, in turn
        self._ending: deque[Source] = deque()
        self.overwritten: dict[str, _Overwritten] = {}
        self._suspects: dict[Inode, Suspect] = {}
        self._ended: dict[Inode, tuple[int, ...]] = {}  # files read to their end, with what they were then
        self.facts: deque[Checkpoint] = deque()
        self.scanned = False
        #: Names of tailers whose files are ours: this one's, and of those that it ended.
        self.owners = {settings.name}
        self.refused: dict[str, tuple[int, ...]] = {}
        self._damaged: dict[str, tuple[int, ...]] = {}
        self.losses: list[Loss] = []
        self.scan_due = True

    # -- reading

    def touch(self, touched: frozenset[str] | None = None) -> None:
        """Look at these files again, or at all. Those that were moved are always looked at."""
        if touched is not None and not touched and not self.unsettled:
            return  # a thousand idle files cost nothing
        hot = set(self._hot)
        for source in self.open.values():
            seen = touched is None or source.rotated or touched & {source.file.path, source.real_path}
            if seen and source not in hot:
                self._hot.append(source)

    def read(self) -> tuple[Source, Framed] | None:
        """The next block, of the files in turn; None when there is nothing new in any of them."""
        while self._ending:
            source = self._ending.popleft()
            if not (source.finished or self._is_cut(source)):
                return source, source.finish()
        while self._hot:
            source = self._hot.popleft()
            framed = self._read(source)
            if framed is not None:
                self._hot.append(source)
                return source, framed
        return None

    def _read(self, source: Source) -> Framed | None:
        if self.open.get(source.identity) is not source:
            return None  # let go of meanwhile
        try:
            return source.read(final=self.once)
        except OverwrittenError:
            self._overwrite(source)
        except OSError as error:
            self._give_up(source, error)
        self.scan_due = True
        return None

    def _is_cut(self, source: Source) -> bool:
        """Whether a file that grows no more ends too early; what was read of a record is none then."""
        try:
            source.file.check(final=True)
        except DamagedError as error:
            if source.identity in self.open:
                self._give_up(source, error, final=True)
            elif overwritten := self.overwritten.pop(source.identity, None):
                overwritten.source.file.close()
                self.facts.append(source.checkpoint())
            return True
        return False

    def _give_up(self, source: Source, error: OSError, *, final: bool = False) -> None:
        """Let go of a file that cannot be read. Once more it is begun with: there may be another by now."""
        path, signature = source.file.path, _signature(source.file.path)
        if final or self.once or (isinstance(error, DamagedError) and self._damaged.get(path) == signature):
            self.refused[path] = _signature(path, changed=True)
        self._damaged[path] = signature
        logger.error(
            "file cannot be read" + ("" if path in self.refused else "; it is tried again"),
            path=path,
            why=error.strerror,
            position=source.position,
            unpublished=source.held,
        )
        del self.open[source.identity]
        source.file.close()

    def _overwrite(self, source: Source) -> None:
        del self.open[source.identity]
        self.overwritten[source.identity] = _Overwritten(source, monotonic())

    def take_facts(self) -> list[Checkpoint]:
        """Last checkpoints of files that are gone, and of copies, to be committed."""
        facts = list(self.facts)
        self.facts.clear()
        return facts

    def settle(self, checkpoints: Iterable[Checkpoint]) -> None:
        """These checkpoints are committed: let go of the files that ended, and dispose of them."""
        for done in checkpoints:
            if not done.finished:
                continue
            if source := self.open.pop(done.identity, None):
                self.end(source.file, done.position)
            elif overwritten := self.overwritten.pop(done.identity, None):
                overwritten.source.file.close()

    def add(self, source: Source) -> None:
        """Read this file, too."""
        self.open[source.identity] = source
        self._hot.append(source)

    def finish(self, source: Source) -> None:
        """Nothing follows what was read of this file."""
        source.ending = True
        self._ending.append(source)

    def end(self, file: OpenFile, position: int) -> None:
        """This file is published to its end at ``position``, unless somebody still writes to it."""
        signature = _signature(file.path)  # before it is looked at, so that what comes later changes it
        is_published = file.is_at_end(position) and file.written() == file.modified
        if is_published and self._dispose(file, position):
            self._ended[file.device, file.inode] = signature
        else:
            self.scan_due = True
        if file.is_unlinked and not file.is_at_end(position):
            late = 0 if file.is_gzip else file.size() - position
            self.lose(file.path, position, late, "written when it was being removed")
        file.close()

    def lose(self, path: str, position: int, known: int, why: str) -> None:
        """Tell and count what was destroyed."""
        self.losses.append(Loss(path, position, known, why))
        logger.error(
            "bytes may have been destroyed before they could be read",
            path=path,
            position=position,
            unread=known or "unknown",
            why=why,
        )

    def suspect(self, file: OpenFile) -> Suspect | None:
        """What was found out about a file the last time, if it is what it was then."""
        inode, signature = (file.device, file.inode), _signature(file.path)
        suspect = self._suspects.get(inode)
        if suspect and suspect.signature != signature and file.is_gzip:
            # Being compressed. To look into it costs as much as there is of it, so it has to rest first.
            suspect = self._suspects[inode] = Suspect(signature, monotonic(), suspect.originals)
        return suspect if suspect and suspect.signature == signature else None

    def is_suspect(self, file: OpenFile, originals: list[str]) -> bool:
        """Whether a file that equals the beginnings of ``originals`` may still turn out to be a copy."""
        suspect = self.suspect(file)
        since = suspect.since if suspect else monotonic()
        self._suspects[file.device, file.inode] = Suspect(_signature(file.path), since, originals)
        return monotonic() - since < self.settings.copy_wait_s

    def forget_suspects(self, but: Collection[Inode]) -> None:
        """All that are not waiting any more."""
        self._suspects = {inode: suspect for inode, suspect in self._suspects.items() if inode in but}

    @property
    def unsettled(self) -> bool:
        """Whether something is to be decided soon without anything happening to a file."""
        return bool(self.overwritten or self._suspects) or any(s.rotated for s in self.open.values())

    # -- looking around

    def scan(self, ownership: Ownership) -> None:
        """See what became of the files that are read, and begin with those that are new.

        Everything read so far has to be published, so that the checkpoints tell about it. Raises what
        ``ownership`` does; the files that are new are found again the next time.
        """
        self.scan_due = False
        for source in list(self.open.values()):
            if source.is_overwritten() and not source.ending:
                self._overwrite(source)
        found = {inode: path for path in paths.found(self.given) if (inode := _inode(path))}
        if not self.once:
            for source in list(self.open.values()):
                self._follow(source, found.get((source.file.device, source.file.inode), ""))
        fresh: list[Found] = []
        try:
            reading = self.inodes()
            new = ((inode, path) for inode, path in found.items() if inode not in reading)
            fresh += filter(None, (self._fresh(inode, path) for inode, path in new))
            fresh += self._removed(reading | found.keys())
            if fresh or self.overwritten or self._suspects or not self.scanned:
                self.scanned, before = True, self.scanned
                TakeUp(self, ownership, fresh, first=not before).run()
        finally:
            for one in fresh:
                one.file.close()

    def _removed(self, elsewhere: Collection[Inode]) -> Iterator[Found]:
        """Files that were written anew in place and then removed, before either was seen."""
        for source, _ in self.overwritten.values():
            if (source.file.device, source.file.inode) in elsewhere:
                continue
            file, head = source.file.again(), None
            # What is no file to be tailed is nothing that was lost.
            with contextlib.suppress(UsageError):
                head = file.examine(self.profile, final=self.once)
            if head:
                yield Found(file, head)
            else:
                file.close()

    def _follow(self, source: Source, path: str) -> None:
        """Note where a file is now, and end with it when it was rotated away, is read and nothing comes."""
        file = source.file
        is_there = file.is_at(file.path)
        if not is_there:
            file.path = path or paths.with_inode(file.path, file.inode) or file.path
        is_home = is_there and file.path == source.home
        source.rotated = not is_home and self.was_rotated(file, source.home)
        quiet_s = monotonic() - source.grown_at
        limit_s = self.settings.rotated_after_s if source.rotated else self.settings.complete_after_s
        if limit_s and quiet_s >= limit_s and file.is_at_end(source.end) and not source.ending:
            self.finish(source)

    def was_rotated(self, file: OpenFile, home: str) -> bool:
        """Whether a file was moved away from ``home``, where it was written.

        By itself: with its folder, or merely given by another path, it may be written on.
        """
        if file.is_at(home):
            return False
        if file.is_unlinked or os.path.basename(home) != os.path.basename(file.path):  # noqa: PTH119 - of thousands
            return True
        try:
            os.stat(home)  # noqa: PTH116 - likewise
        except FileNotFoundError:
            return Path(home).parent.is_dir() and any(paths.covers(one, home) for one in self.given)
        except OSError:  # of a network's file system, which may come back
            return False
        return True

    def examine_free(self, path: str) -> Found | None:
        """As :meth:`examine`, unless it is being read."""
        return None if _inode(path) in self.inodes() else self.examine(path)

    def inodes(self) -> set[Inode]:
        """Of the files that are being read."""
        return {(source.file.device, source.file.inode) for source in self.open.values()}

    def _fresh(self, inode: Inode, path: str) -> Found | None:
        if self._ended.get(inode) == _signature(path):
            return None
        if self.refused.get(path) == _signature(path, changed=True):
            return None
        self._ended.pop(inode, None)
        return self.examine(path)

    def examine(self, path: str) -> Found | None:
        """A file that can be tailed and has its header; another is refused or has to wait."""
        file = None
        try:
            file = OpenFile(path)
            head = file.examine(self.profile, final=self.once)
            self.refused.pop(path, None)
            # A header alone may be of a copy that gzip has just begun: nothing tells it from others then.
            if head and (self.once or not file.is_being_compressed or Found(file, head).has_more):
                return Found(file, head)
        except UsageError as error:
            if _inode(path) is None and not (self.once and path in self.given):
                self.scan_due = True  # renamed or removed since it was found: the next look tells
                return None
            self._refuse(path, error)
        if file:
            file.close()
        return None

    def _refuse(self, path: str, error: UsageError) -> None:
        """Leave a file alone until it changes; what may pass is tried again with each look, and told once."""
        again = isinstance(error, PassingError) and not self.once
        if not (again and self.refused.get(path) == _TRIED_AGAIN):
            event = "file refused" + ("; it is tried again" if again else "")
            logger.error(event, path=path, why=error.what, remedy=error.remedy)
        self.refused[path] = _TRIED_AGAIN if again else _signature(path, changed=True)

    def folders(self) -> tuple[set[str], bool]:
        """Where changes are to be watched for, and whether anywhere below, too."""
        folders, below = paths.folders(self.given)
        return folders | {os.path.dirname(source.real_path) for source in self.open.values()}, below  # noqa: PTH120

    def close(self) -> None:
        """Let go of all of them."""
        for source in [*self.open.values(), *(source for source, _ in self.overwritten.values())]:
            source.file.close()
        self.open.clear()
        self.overwritten.clear()


def _inode(path: str) -> Inode | None:
    try:
        there = os.stat(path)  # noqa: PTH116 - a thousand files are looked at again and again
    except OSError:
        return None
    return there.st_dev, there.st_ino


def _signature(path: str, *, changed: bool = False) -> tuple[int, ...]:
    """What a file is now. ``changed``: another owner or right is a change, too, and so is another name."""
    try:
        there = Path(path).stat()
    except OSError:
        return ()
    signature = there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_mode
    return (*signature, there.st_ctime_ns) if changed else signature
