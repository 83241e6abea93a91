"""Take up: each file that was found goes on from the checkpoint it belongs to, or begins."""

from collections.abc import Callable, Collection
from time import monotonic
from typing import TYPE_CHECKING

from schemas.letter import now
from streams import log
from streams.tail import paths, recognition
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.recognition import Found
from streams.tail.source import OpenFile, Source

if TYPE_CHECKING:
    from streams.tail.sources import Ownership, Sources

logger = log.get("tail")


class TakeUp:
    """One pass over the files in ``fresh``; those that are taken up, or have to wait, leave that list.

    The surest signs come first, so that no file takes the checkpoint of another: the same inode, then an
    inode under another name, then the path, then a copy of what is gone. What is left is new.
    """

    def __init__(
        self, sources: "Sources", ownership: "Ownership", fresh: list[Found], *, first: bool
    ) -> None:
        self._sources, self._ownership, self._fresh, self._first = sources, ownership, fresh, first
        self._name = sources.settings.name
        self._state = ownership.read()
        self._waiting: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Raises what ``ownership`` does."""
        self._resume(recognition.by_inode)
        orphans = self._orphans() if self._first else []
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
            self._sources.owners.add(known.owner)
            self._sources.scanned = False  # what else it had is ours now
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
        originals = []
        for known in self._state.copied(found.file, self._sources.owners):
            if self._is_gone(known):
                self._fresh.remove(found)
                self._take(found, known)
                return
            originals.append(known)
        for source, _ in list(self._sources.overwritten.values()):
            if recognition.begins(found.file, source):
                logger.info("copy of what is published", path=found.file.path, of=source.file.path)
                self._fresh.remove(found)
                end = recognition.length(found.file)
                self._sources.facts.append(source.checkpoint().for_copy(found.file, end))
                self._sources.end(found.file, end)
                self._sources.finish(source)
                return
        if self._has_to_wait(found.file, originals or self._originals(found.file)):
            self._waiting.add((found.file.device, found.file.inode))
            self._fresh.remove(found)
            found.file.close()

    def _is_gone(self, known: Checkpoint) -> bool:
        if known.identity in self._sources.open:
            return False
        return known.identity in self._sources.overwritten or not recognition.is_intact(known)

    def _originals(self, file: OpenFile) -> list[Checkpoint]:
        """The checkpoints of files that this one may be an unfinished copy of."""
        found = []
        for known in self._state.alike(file, self._sources.owners):
            source = self._sources.open.get(known.identity)
            other = source.file if source else recognition.original(known)
            if other and (recognition.is_beginning(file, other) or (source and source.is_overwritten())):
                found.append(known)
            if other and not source:
                other.close()
        return found

    def _has_to_wait(self, file: OpenFile, originals: list[Checkpoint]) -> bool:
        if not originals or self._sources.once:
            return False
        sources = [self._sources.open.get(known.identity) for known in originals]
        # What was removed but is still read will leave its copy to be recognized.
        leaving = any(source and not source.file.is_at(source.file.path) for source in sources)
        return self._sources.is_suspect(file) or leaving

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
            if known.owner in self._sources.owners
            and not (known.finished or known.gone or known.identity in self._taken())
            and any(paths.covers(given, known.path) for given in self._sources.given)
        ]

    def _give_up_overwritten(self) -> None:
        sources = self._sources
        for identity, (source, since) in list(sources.overwritten.items()):
            if source.ending:
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
        sources.facts.append(known.model_copy(update={"gone": True, "at": now()}))


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
