"""Take up: each file that was found goes on from the checkpoint it belongs to, or begins."""

from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from schemas.letter import now
from streams import log
from streams.tail import paths, recognition
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.recognition import Copy, Found, Known
from streams.tail.source import OpenFile, Source

if TYPE_CHECKING:
    from streams.tail.sources import Ownership, Sources

logger = log.get("tail")

#: How long after a file was overwritten its copy may be found to have been begun; then it is told as lost.
_TOLD_AFTER_S = 2.0


class TakeUp:
    """One pass over the files in ``fresh``; those that are taken up, or have to wait, leave that list.

    The surest signs come first, so that no file takes the checkpoint of another: the same inode, then an
    inode under another name, then the path, then a copy of what is gone, then an inode of which nothing but
    the header was read. What is left is new.

    A copy of what is gone that holds all that was published goes on in its place; one that holds only the
    beginning of that (its original was written and read on before it was truncated) has nothing to publish.
    A copy of what is still there has to wait: its original may be about to be truncated or removed.
    """

    def __init__(
        self, sources: "Sources", ownership: "Ownership", fresh: list[Found], *, first: bool
    ) -> None:
        self._sources, self._ownership, self._fresh, self._first = sources, ownership, fresh, first
        self._name = sources.settings.name
        self._waiting: set[tuple[int, int]] = set()
        self._look()

    def _look(self) -> None:
        self._state: State = self._ownership.read()
        self._known = Known(self._state.files.values())

    def run(self) -> None:
        """Raises what ``ownership`` does."""
        overwritten = self._sources.overwritten
        self._resume(lambda file: self._known.by_inode(file, self._taken(), overwritten))
        orphans = self._orphans() if self._first else []
        self._resume_renamed([known for known in orphans if known.records])
        self._resume(lambda file: self._known.by_path(file, self._taken(), overwritten))
        self._hold_beginnings()  # of new files, before they are taken for what another one begins
        for found in list(self._fresh):
            self._judge(found)
        self._resume(lambda file: self._known.by_claim(file, self._taken()))
        self._resume_renamed([known for known in orphans if not known.records])
        self._sources.forget_suspects(self._waiting)
        self._begin()
        self._give_up_overwritten()
        for known in orphans:
            self._give_up(known)

    def _taken(self) -> Collection[str]:
        return self._sources.open.keys()

    def _resume(self, rule: Callable[[OpenFile], Checkpoint | None]) -> None:
        for found in list(self._fresh):
            if known := rule(found.file):
                self._fresh.remove(found)
                self._take(found, known)

    def _resume_renamed(self, orphans: list[Checkpoint]) -> None:
        """Go on with those that have another name now, which none of the files to be followed has."""
        here = {found.file.inode for found in self._fresh} | {inode for _, inode in self._waiting}
        for known in orphans:
            if known.identity in self._taken() or known.inode in here:
                continue
            found = recognition.renamed(known, self._sources.examine_free)
            if found and known.is_claim and self._known.by_inode(found.file, (), ()):
                found.file.close()  # another file that was given a freed inode, and is published already
            elif found:
                self._take(found, known)

    def _take(self, found: Found, known: Checkpoint) -> None:
        """Go on with a file from its checkpoint, after fencing another tailer that has it."""
        file = found.file
        while known.owner != self._name and not _is_at_end(file, known):
            logger.warning("file taken over", path=file.path, owner=known.owner)
            self._take_over(known)
            latest = self._state.files.get(known.identity)
            if latest is None or not latest.proves(file):
                self._fresh.append(found)
                return
            known = latest
        _tell_resumed(found, known)
        overwritten = self._sources.overwritten.pop(known.identity, None)
        if overwritten:
            overwritten.source.file.close()
        self._tell_cut(file, known, max(known.size, overwritten.source.seen if overwritten else 0))
        if _is_at_end(file, known):
            self._sources.end(file, known.position)
            return
        source = self._source(found, known)
        source.rotated = self._sources.was_rotated(file, source.home)
        if not source.rotated and Path(file.path).name == Path(source.home).name:
            source.home = file.path  # given by another path; a link of another name may go
        self._sources.add(source)

    def _take_over(self, known: Checkpoint) -> None:
        """End the tailer that has a file. That, and all else that it was reading of ours, is ours then."""
        owner = known.owner

        def theirs(state: State) -> list[Checkpoint]:
            left = (one for one in state.files.values() if one.owner == owner)
            wanted = (one for one in left if one.identity == known.identity or self._is_to_be_read(one))
            return [one.model_copy(update={"owner": self._name}) for one in wanted]

        self._ownership.take_over(owner, theirs)
        self._sources.owners.add(owner)
        self._sources.scanned = False  # what else it had may be anywhere
        self._look()

    def _tell_cut(self, file: OpenFile, known: Checkpoint, seen: int) -> None:
        """Tell of what there was when the file was seen the last time, itself or what it is a copy of."""
        size = recognition.length(file) if not file.read(seen - 1, 1) else seen
        if size < seen:
            # Of a file that has shrunk nothing but the header may be what was seen of it.
            begin = known.position if known.is_of(file) and not known.records else size
            self._sources.lose(known.path, begin, seen - begin, "truncated before it was read")

    def _source(self, found: Found, known: Checkpoint | None) -> Source:
        sources = self._sources
        partitions = self._ownership.partitions
        return Source(*found, sources.profile, sources.settings, partitions=partitions, known=known)

    # -- copies

    def _judge(self, found: Found) -> None:
        """Take it as what it is if it is a copy of what is gone; let it wait while it may become one."""
        originals = self._originals(found) if found.has_more else self._named_alike(found)
        if originals is None:
            self._fresh.remove(found)
        elif self._has_to_wait(found.file, originals):
            self._hold(found)

    def _named_alike(self, found: Found) -> list[str]:
        """The identities of files that are being read, of which a copy may have begun here."""
        alike = self._known.alike(found.file, self._sources.owners)
        return [
            known.identity
            for known in alike
            if known.identity in self._sources.open and recognition.is_named_like(known, found)
        ]

    def _hold(self, found: Found) -> None:
        self._waiting.add((found.file.device, found.file.inode))
        self._fresh.remove(found)
        found.file.close()

    def _hold_beginnings(self) -> None:
        """What may be a copy of another new file waits until that is known."""
        for found in recognition.beginnings(self._fresh) if not self._sources.once else ():
            if self._sources.is_suspect(found.file, []):
                self._hold(found)

    def _originals(self, found: Found) -> list[str] | None:
        """The identities of intact files that it may be a copy of; None when it was taken as one of a file
        that is gone.
        """
        suspect = self._sources.suspect(found.file)
        if suspect and suspect.originals and all(map(self._is_there, suspect.originals)):
            return suspect.originals  # nothing has changed
        originals: list[Checkpoint] = []
        alike = self._known.alike(found.file, self._sources.owners)
        for known in sorted(alike, key=self._is_header):
            if self._is_header(known) and originals and not self._is_header(originals[0]):
                break  # it proves a copy only where nothing that was read does
            if source := self._sources.open.get(known.identity):
                if source.is_overwritten() or recognition.is_beginning(found.file, source.file):
                    originals.append(known)
                continue
            was_equal = suspect is not None and known.identity in suspect.originals
            if copy := self._copy(found, known, was_equal=was_equal):
                if self._is_gone(found, known, copy):
                    self._take_copy(found, known, copy)
                    return None
                originals.append(known)
            elif recognition.is_named_like(known, found) and recognition.begins_finished(found, known):
                originals.append(known)
        return [known.identity for known in originals]

    def _is_header(self, known: Checkpoint) -> bool:
        """Whether that is all there is to tell its file by."""
        return known.is_claim and known.identity not in self._sources.open

    def _is_there(self, identity: str) -> bool:
        """Whether a file is being read, or has been to its end and is still there."""
        known = self._state.files.get(identity)
        return identity in self._sources.open or (known is not None and recognition.is_intact(known))

    def _copy(self, found: Found, known: Checkpoint, *, was_equal: bool) -> Copy | None:
        if known.is_claim and self._known.by_claim(found.file, self._taken(), but=known.identity):
            return None  # its own claim proves as much, and would be left for another that has the file
        copy = recognition.copy(found, known)
        overwritten = self._sources.overwritten.get(known.identity)
        if not known.records and overwritten and overwritten.source.seen <= recognition.length(found.file):
            copy = Copy.WHOLE  # nothing was read of it but the header
        if (_was_begun(known) or self._is_anothers(known)) and known.proves(found.file):
            copy = Copy.WHOLE
        if not copy and was_equal and recognition.length(found.file) < known.position:
            return Copy.BEGINNING  # more was appended to the original than is kept of it
        return copy if copy and recognition.is_named_like(known, found) else None

    def _is_anothers(self, known: Checkpoint) -> bool:
        """Whether another tailer has claimed a file with its header, and may have it open wherever it is."""
        open_claim = known.is_claim and not (known.finished or known.gone)
        return open_claim and known.owner not in self._sources.owners

    def _is_gone(self, found: Found, known: Checkpoint, copy: Copy) -> bool:
        # At the path of its original it may be that, being written anew.
        if copy == Copy.BEGINNING and not known.copy_of and found.file.path == known.path:
            return False
        return known.identity in self._sources.overwritten or not recognition.is_intact(known)

    def _take_copy(self, found: Found, known: Checkpoint, copy: Copy) -> None:
        file, size = found.file, recognition.length(found.file)
        overwritten = self._sources.overwritten.get(known.identity)
        source = overwritten.source if overwritten else None
        seen = source.seen if source else known.size
        if copy == Copy.WHOLE and not (source and not recognition.has_all_of(file, source)):
            self._take(found, known)
            return
        logger.info("copy of what is published", path=file.path, of=known.path, size=size)
        self._sources.facts.append(known.for_copy(file, size))
        self._sources.end(file, size)
        if source and not source.ending:
            if seen > source.end:
                why = "truncated after it was copied"
                self._sources.lose(known.path, source.end, seen - source.end, why)
            self._sources.finish(source)

    def _has_to_wait(self, file: OpenFile, originals: list[str]) -> bool:
        if not originals or self._sources.once:
            return False
        sources = [self._sources.open.get(identity) for identity in originals]
        # What was removed but is still read will leave its copy to be recognized.
        leaving = any(source and not source.file.is_at(source.file.path) for source in sources)
        return self._sources.is_suspect(file, originals) or leaving

    # -- what is new

    def _begin(self) -> None:
        """Claim what is new. Who claimed a file first has it; who comes later takes it over from there."""
        fresh, self._fresh[:] = list(self._fresh), []
        if not fresh:
            return
        begun = [self._source(found, None) for found in fresh]
        for found in fresh:
            _tell_new(found.file, self._known.near(found.file, self._taken()))
        self._ownership.claim(begun, [])
        self._look()
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
            near = (other.inode == file.inode) + (other.path == file.path)
            # A header proves little: others are equal.
            enough = near == 2 or (near and other.records)
            theirs = other.owner != self._name and not (other.gone or other.copy_of)
            if enough and theirs and other.still_holds(file):
                return other
        return None

    # -- what is gone

    def _orphans(self) -> list[Checkpoint]:
        """Of this tailer's: what is not read to its end and was not found."""
        return [
            known
            for known in self._state.files.values()
            if known.owner in self._sources.owners
            and known.identity not in self._taken()
            and self._is_to_be_read(known)
        ]

    def _is_to_be_read(self, known: Checkpoint) -> bool:
        """Whether it is not read to its end, and one of the files to be followed."""
        given = self._sources.given
        return not (known.finished or known.gone) and any(paths.covers(one, known.path) for one in given)

    def _give_up_overwritten(self) -> None:
        sources = self._sources
        for identity, (source, since) in list(sources.overwritten.items()):
            if source.ending or self._found_outside(self._state.files.get(identity)):
                continue
            patience_s = min(_TOLD_AFTER_S, sources.settings.copy_wait_s)
            if not self._waiting and (sources.once or monotonic() - since >= patience_s):
                unread = max(0, source.seen - source.end)
                sources.lose(source.file.path, source.end, unread, "truncated or overwritten")
                source.gone = True
                sources.finish(source)

    def _give_up(self, known: Checkpoint) -> None:
        sources = self._sources
        if known.identity in sources.open or known.path in sources.refused:
            return
        # What was published is in none that has its inode now: it was written over, however equal that looks.
        is_written_over = known.records and (known.device, known.inode) in sources.inodes()
        if not is_written_over and recognition.is_intact(known):
            return
        if self._state.files[known.identity].finished or self._found_outside(known):
            return
        unread = max(0, known.size - known.position)
        sources.lose(
            known.path, known.position, unread, "gone, truncated or overwritten while nobody read it"
        )
        sources.facts.append(known.model_copy(update={"gone": True, "at": now()}))

    def _found_outside(self, known: Checkpoint | None) -> bool:
        """Take a copy of what is gone that lies in its folder but is none of the files to be followed."""
        for path in paths.siblings(known.path) if known and known.records else ():
            found = self._sources.examine_free(path)
            if found and known:
                # A header alone is the beginning of too many.
                copy = recognition.copy(found, known) if found.has_more else None
                if copy == Copy.WHOLE or (copy and known.identity in self._sources.overwritten):
                    self._take_copy(found, known, copy)
                    return True
                found.file.close()
        return False


def _is_at_end(file: OpenFile, known: Checkpoint) -> bool:
    """Whether a file is published to its end."""
    return known.finished and file.is_at_end(known.position)


def _was_begun(known: Checkpoint) -> bool:
    """Whether all that was published is the header, while more was seen, which is proof of what is a copy."""
    return known.is_claim and known.head.length > known.position


def _tell_resumed(found: Found, known: Checkpoint) -> None:
    file, line_end = found.file, "\n".encode(found.head.encoding)
    logger.info("file resumed", path=file.path, position=known.position, records=known.records)
    last = file.read(known.position - len(line_end), len(line_end))
    if known.finished and file.read(known.position, 1) and last != line_end:
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
