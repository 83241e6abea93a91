"""Recognition: what a file has to do with those that are known. Its content decides; name and inode hint."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from schemas.errors import UsageError
from streams.tail import paths
from streams.tail.checkpoint import KEPT, PROOF, Checkpoint, Stretch
from streams.tail.head import Head
from streams.tail.source import OpenFile, PassingError, Source


class Found(NamedTuple):
    """A file that has its header and is not being read yet."""

    file: OpenFile
    head: Head

    @property
    def has_more(self) -> bool:
        """Whether it holds anything beside its header."""
        return bool(self.file.read(self.head.start, 1))


class Copy(Enum):
    """What a file holds of another: all that was published of it, or only the beginning of that."""

    WHOLE = "whole"
    BEGINNING = "beginning"


Opener = Callable[[str], Found | None]


class Known:
    """Checkpoints by what hints at their files: inode, path, first bytes. Newest first."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self._inodes: dict[tuple[int, int], list[Checkpoint]] = defaultdict(list)
        self._paths: dict[str, list[Checkpoint]] = defaultdict(list)
        self._heads: dict[Stretch, list[Checkpoint]] = defaultdict(list)
        for known in sorted(checkpoints, key=lambda known: known.at, reverse=True):
            self._inodes[known.device, known.inode].append(known)
            self._paths[known.path].append(known)
            self._heads[known.head].append(known)
        self._lengths = sorted({head.length for head in self._heads}, reverse=True)

    def by_inode(
        self, file: OpenFile, taken: Collection[str], overwritten: Collection[str]
    ) -> Checkpoint | None:
        """The checkpoint of this file, under whatever name it was read."""
        for known in self._inodes.get((file.device, file.inode), ()):
            # What has grown is no copy of a beginning any more, or not known to be.
            grown = known.copy_of and file.read(known.position, 1)
            free = not known.is_claim and known.identity not in taken
            if free and not grown and known.still_holds(file, suspect=known.identity in overwritten):
                return known
        return None

    def by_claim(self, file: OpenFile, taken: Collection[str], but: str = "") -> Checkpoint | None:
        """The checkpoint of a file of which only the header is known, so that it proves hardly anything.

        ``but``: the identity of one that is not asked for.
        """
        for known in self._inodes.get((file.device, file.inode), ()):
            free = known.is_claim and known.identity not in taken and known.identity != but
            if free and _may_be(known, file) and known.proves(file):
                return known
        return None

    def by_path(
        self, file: OpenFile, taken: Collection[str], overwritten: Collection[str]
    ) -> Checkpoint | None:
        """The checkpoint of a file at this path that was replaced by one that holds what was published."""
        for known in self._paths.get(file.path, ()):
            free = known.records and known.identity not in taken
            if free and known.still_holds(file, suspect=known.identity in overwritten):
                return known
        return None

    def near(self, file: OpenFile, taken: Collection[str]) -> Checkpoint | None:
        """One of another file that had this one's inode or path."""
        near = [*self._inodes.get((file.device, file.inode), ()), *self._paths.get(file.path, ())]
        return next((known for known in near if known.identity not in taken), None)

    def alike(self, file: OpenFile, owners: Collection[str]) -> Iterator[Checkpoint]:
        """Those of files that began as this one, as far as can be told from a few bytes.

        Only those of ``owners`` or of the same folder: what others read elsewhere may be equal by chance.
        """
        folder = os.path.dirname(file.path)  # noqa: PTH120 - of thousands
        for known in self._alike(file.read(0, PROOF), os.path.basename(file.path)):  # noqa: PTH119 - likewise
            if known.owner in owners or os.path.dirname(known.path) == folder:  # noqa: PTH120
                yield known

    def _alike(self, first: bytes, name: str) -> Iterator[Checkpoint]:
        for length in self._lengths:
            if length <= len(first):
                yield from self._heads.get(Stretch.of(first[:length]), ())
        if len(first) < PROOF:
            longer = (head for head in self._heads if head.length > len(first))
            for known in (known for head in longer for known in self._heads[head]):
                # What is kept of it tells, or it does itself, and then it has to be named like that.
                if known.position <= KEPT + len(first) or name.startswith(Path(known.path).stem):
                    yield known


def copy(found: Found, known: Checkpoint) -> Copy | None:
    """What a file that began as another holds of it. Reads all of it that the other holds, too."""
    file, size = found.file, length(found.file)
    if known.copy_of:
        same = size == known.position and known.proves(file) and known.proves_whole(file)
        return Copy.BEGINNING if same else None
    if size < known.position:
        return Copy.BEGINNING if known.proves_beginning(file, size) else None
    return Copy.WHOLE if known.records and known.proves(file) and known.proves_whole(file) else None


def beginnings(fresh: list[Found]) -> list[Found]:
    """Those that may be unfinished copies of others among them."""
    # What begins another sorts right before it.
    order = sorted(((found.file.read(0, PROOF), index) for index, found in enumerate(fresh)))
    found = []
    for (first, index), (second, other) in pairwise(order):
        one, another = fresh[index], fresh[other]
        if second.startswith(first) and _size_and_name(one) > _size_and_name(another):
            one, another = another, one
        if second.startswith(first) and one.has_more and is_beginning(one.file, another.file):
            found.append(one)
    return found


def _is_its_file(known: Checkpoint, file: OpenFile) -> bool:
    """Whether it is the file of a checkpoint, with what was published of it."""
    return bool(known.records or _may_be(known, file)) and known.is_of(file) and known.proves(file)


def _may_be(known: Checkpoint, file: OpenFile) -> bool:
    """Whether a file with the inode of another may be that, by its name. Inodes are used again."""
    before, now = Path(known.path), Path(file.path)
    renamed = now.parent == before.parent and now.name.startswith(before.stem) and not file.is_gzip
    return before == now or renamed


def _size_and_name(found: Found) -> tuple[int, int]:
    # Of two that are equal the copy has the longer name.
    return length(found.file), -len(found.file.path)


def is_named_like(known: Checkpoint, found: Found) -> bool:
    """Whether its name could be what rotation made of the other's; of no interest when much is equal."""
    name, before = Path(found.file.path).name, Path(known.path).name
    common = min(known.position, length(found.file))
    return common >= PROOF or (name.startswith(Path(before).stem) and not before.startswith(name))


def renamed(known: Checkpoint, opener: Opener) -> Found | None:
    """Where the file of a checkpoint is now, if that is in its folder."""
    path = paths.with_inode(known.path, known.inode)
    found = opener(path) if path else None
    if not found:
        return None
    if not _is_its_file(known, found.file):
        found.file.close()
        return None
    return found


def is_intact(known: Checkpoint) -> bool:
    """Whether the file of a checkpoint is still in its folder, with what was published of it."""
    try:
        file = original(known)
    except PassingError:
        return True  # it is there
    if file:
        file.close()
    return file is not None


def original(known: Checkpoint) -> OpenFile | None:
    """The file of a checkpoint, if it is still in its folder with what was published of it; to be closed.

    Raises :class:`PassingError` when it cannot be opened now.
    """
    for path in (known.path, paths.with_inode(known.path, known.inode)):
        if path and (file := _original(known, path)):
            return file
    return None


def _original(known: Checkpoint, path: str) -> OpenFile | None:
    try:
        file = OpenFile(path)
    except PassingError:
        raise
    except UsageError:
        return None
    with contextlib.suppress(OSError):
        if _is_its_file(known, file):
            return file
    file.close()
    return None


def begins_finished(found: Found, known: Checkpoint) -> bool:
    """Whether a file may be an unfinished copy of one that is published to its end and still there."""
    # A file that has the inode was written over: it is no copy of itself.
    may_be = known.finished and not known.is_of(found.file)
    try:
        file = original(known) if may_be else None
    except PassingError:
        return True  # it has to wait until that is known
    if file is None:
        return False
    try:
        return is_beginning(found.file, file)
    except OSError:
        return False
    finally:
        file.close()


def is_beginning(file: OpenFile, original: OpenFile) -> bool:
    """Whether ``file`` may be an unfinished copy of another: they are equal as far as it goes."""
    end = length(file)
    near = min(end, PROOF)
    stretches = ((0, near), (end - near, near))
    return end > 0 and all(file.read(*stretch) == original.read(*stretch) for stretch in stretches)


def length(file: OpenFile) -> int:
    """In bytes; of a gzip file it has to be read for that."""
    end = 0
    while file.size() > end and (data := file.read(end, 1_048_576)):
        end = end + len(data) if file.is_gzip else file.size()
    return end


def has_all_of(file: OpenFile, source: Source) -> bool:
    """Whether ``file``, which holds what was published of ``source``, may hold what is held of it, too."""
    end = length(file)
    near = source.near_end(end)
    return not near or file.read(end - len(near), len(near)) != near or end == source.end
