"""Take up: each file that was found goes on from the checkpoint it belongs to, or begins."""

from collections.abc import Callable, Collection
from time import monotonic
from typing import TYPE_CHECKING

from schemas.letter import now
from streams import log, paths, recognition
from streams.checkpoint import Checkpoint, State
from streams.recognition import Found
from streams.source import OpenFile, Source

if TYPE_CHECKING:
    from streams.sources import Ownership, Sources

logger = log.get("tail")


class TakeUp:
    """One pass over the files in ``fresh``; those that are taken up, or have to wait, leave that list.

    The surest signs come first, so that no file takes the checkpoint of another: the same inode, then an
    inode under another name, then the path, then a copy of what is gone. What is left is new.
    """

    def __init__(self, sources: "Sources", ownership: "Ownership", fresh: list[Found]) -> None:
        self._sources, self._ownership, self._fresh = sources, ownership, fresh
        self._name = sources.settings.name
        self._state = ownership.read()
        self._waiting: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Raises what ``ownership`` does."""
        self._resume(recognition.by_inode)
        orphans = [] if self._sources.scanned else self._orphans()
        for known in orphans:
            if found := recognition.renamed(known, self._sources.examine):
                self._take(found, known)
        self._resume(recognition.by_path)
        for found in list(self._fresh):
            self._judge_copy(found)
        self._sources.suspects = {
            inode: suspect for inode, suspect in self._sources.suspects.items() if inode in self._waiting
        }
        self._begin()
        self._give_up_overwritten()
        for known in orphans:
            self._give_up(known)

    def _taken(self) -> Collection[str]:
        return self._sources.open.keys()

    def _resume(self, rule: Callable[[Found, State, Collection[str]], Checkpoint | None]) -> None:
        for found in list(self._fresh):
            if known := rule(found, self._state, self._taken()):
                self._fresh.remove(found)
                self._take(found, known)

    def _take(self, found: Found, known: Checkpoint) -> None:
        """Go on with a file from its checkpoint, after fencing another tailer that has it."""
        file = found.file
        if known.owner != self._name:
            logger.warning("file taken over", path=file.path, owner=known.owner)
            self._ownership.end(known.owner)
            self._state = self._ownership.read()
            known = self._state.files.get(known.identity, known)
            if not known.proves(file):
                self._fresh.append(found)
                return
        _tell_resumed(file, known)
        if overwritten := self._sources.overwritten.pop(known.identity, None):
            overwritten.source.file.close()
        if known.finished and not file.read(known.position, 1):
            self._sources.end(file, known.position)
            return
        source = self._source(found, known)
        source.rotated = source.rotated or file.path != known.path
        self._sources.add(source)

    def _source(self, found: Found, known: Checkpoint | None) -> Source:
        sources = self._sources
        partitions = self._ownership.partitions
        return Source(*found, sources.profile, sources.settings, partitions=partitions, known=known)

    def _judge_copy(self, found: Found) -> None:
        """Go on with it if it is a copy of what is gone; let it wait while it may become one."""
        skipped = set(self._taken())
        alive = recognition.being_copied(found.file, self._sources.open.values()) is not None
        while known := self._state.copied(found.file, skipped):
            if known.identity in self._sources.overwritten or not recognition.is_intact(known):
                self._fresh.remove(found)
                self._take(found, known)
                return
            skipped.add(known.identity)
            alive = True
        for source, _ in list(self._sources.overwritten.values()):
            if recognition.begins(found.file, source):
                logger.info("copy of what is published", path=found.file.path, of=source.file.path)
                self._fresh.remove(found)
                self._sources.end(found.file, -1)
                self._sources.finish(source)
                return
        if alive and self._has_to_wait(found.file):
            self._fresh.remove(found)
            found.file.close()

    def _has_to_wait(self, file: OpenFile) -> bool:
        inode = (file.device, file.inode)
        if self._sources.is_suspect(file):
            self._waiting.add(inode)
            return True
        return False

    def _begin(self) -> None:
        """Claim what is new. Who claimed a file first has it; who comes later takes it over from there."""
        fresh, self._fresh[:] = list(self._fresh), []
        if not fresh:
            return
        begun = [self._source(found, None) for found in fresh]
        for found in fresh:
            _tell_new(found.file, next(iter(self._state.near(found.file, self._taken())), None))
        self._ownership.claim(begun, [])
        self._state = self._ownership.read()
        withdrawn = []
        for found, source in zip(fresh, begun, strict=True):
            if rival := self._rival(source):
                withdrawn.append(source.identity)
                self._take(found, rival)
            else:
                self._sources.add(source)
        if withdrawn:
            self._ownership.claim([], withdrawn)

    def _rival(self, source: Source) -> Checkpoint | None:
        file = source.file
        for other in self._state.earlier(source.identity):
            near = other.is_of(file) or other.path == file.path
            if near and other.owner != self._name and not other.gone and other.proves(file):
                return other
        return None

    def _orphans(self) -> list[Checkpoint]:
        """Of this tailer's: what is not read to its end and was not found."""
        return [
            known
            for known in self._state.files.values()
            if known.owner == self._name
            and not (known.finished or known.gone or known.identity in self._taken())
            and any(paths.covers(given, known.path) for given in self._sources.given)
        ]

    def _give_up_overwritten(self) -> None:
        sources = self._sources
        for identity, (source, since) in list(sources.overwritten.items()):
            if source.finished:
                continue
            known = self._state.files.get(identity)
            if known and (found := recognition.copied(known, sources.examine)):
                self._take(found, known)
            elif not self._waiting and (sources.once or monotonic() - since >= sources.settings.copy_wait_s):
                sources.lose(source.file.path, source.end, 0, "truncated or overwritten")
                source.gone = True
                sources.finish(source)

    def _give_up(self, known: Checkpoint) -> None:
        sources = self._sources
        if known.identity in sources.open or known.path in sources.refused or recognition.is_intact(known):
            return
        if self._state.files[known.identity].finished:
            return
        if found := recognition.copied(known, sources.examine):
            self._take(found, known)
            return
        unread = max(0, known.size - known.position)
        sources.lose(
            known.path, known.position, unread, "gone, truncated or overwritten while nobody read it"
        )
        sources.orphaned.append(known.model_copy(update={"gone": True, "at": now()}))


def _tell_resumed(file: OpenFile, known: Checkpoint) -> None:
    logger.info("file resumed", path=file.path, position=known.position, records=known.records)
    if known.finished and file.read(known.position, 1) and file.read(known.position - 1, 1) != b"\n":
        logger.error(
            "the last record was taken without its line end and has grown since; its rest is another record",
            path=file.path,
            position=known.position,
            record=known.records,
        )


def _tell_new(file: OpenFile, before: Checkpoint | None) -> None:
    if before is None:
        logger.info("file new", path=file.path)
    else:
        logger.warning(
            "file new, though another with its path or inode was read before",
            path=file.path,
            before=before.path,
            position=before.position,
        )
