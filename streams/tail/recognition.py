"""Recognition: which checkpoint a file belongs to. By what it holds; names and inodes only hint."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from schemas.errors import UsageError
from streams.tail import paths
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.head import Head
from streams.tail.source import OpenFile, Source


class Found(NamedTuple):
    """A file that has its header and is not being read yet."""

    file: OpenFile
    head: Head


Opener = Callable[[str], Found | None]


def by_inode(found: Found, state: State, taken: Collection[str]) -> Checkpoint | None:
    """The checkpoint of this file, under whatever name it was read."""
    near = state.near(found.file, taken)
    return next((known for known in near if known.is_of(found.file) and known.proves(found.file)), None)


def by_path(found: Found, state: State, taken: Collection[str]) -> Checkpoint | None:
    """The checkpoint of a file at this path that was replaced by one that begins as it did."""
    return state.of(found.file, taken)


def renamed(known: Checkpoint, opener: Opener) -> Found | None:
    """Where the file of a checkpoint is now, if that is in its folder."""
    path = paths.with_inode(known.path, known.inode)
    return _opened(path, opener, lambda file: known.is_of(file) and known.proves(file)) if path else None


def copied(known: Checkpoint, opener: Opener) -> Found | None:
    """A copy of a checkpoint's file in its folder, named like it."""
    for path in paths.siblings(known.path) if known.records else ():
        found = _opened(path, opener, lambda file: known.proves(file) and known.proves_whole(file))
        if found:
            return found
    return None


def _opened(path: str, opener: Opener, is_it: Callable[[OpenFile], bool]) -> Found | None:
    found = opener(path)
    if found and not is_it(found.file):
        found.file.close()
        return None
    return found


def original(known: Checkpoint) -> OpenFile | None:
    """The file of a checkpoint, if it is still where it was, with what was published of it."""
    try:
        file = OpenFile(known.path)
    except UsageError:
        return None
    try:
        if known.is_of(file) and known.proves(file):
            return file
    except OSError:
        pass
    file.close()
    return None


def is_intact(known: Checkpoint) -> bool:
    """Whether :func:`original` is there."""
    file = original(known)
    if file:
        file.close()
    return file is not None


def is_beginning(file: OpenFile, original: OpenFile) -> bool:
    """Whether ``file`` may be an unfinished copy of another: they are equal as far as it goes."""
    end = length(file)
    near = min(end, 1024)
    stretches = ((0, near), (end - near, near))
    return end > 0 and all(file.read(*stretch) == original.read(*stretch) for stretch in stretches)


def length(file: OpenFile) -> int:
    """In bytes; of a gzip file it has to be read for that."""
    end = 0
    while file.size() > end and (data := file.read(end, 1_048_576)):
        end = end + len(data) if file.is_gzip else file.size()
    return end


def begins(file: OpenFile, source: Source) -> bool:
    """Whether ``file`` is a copy of the beginning of what ``source`` read before its file was overwritten."""
    if (file.device, file.inode) == (source.file.device, source.file.inode):
        return False
    end = length(file)
    near = source.near_end(end)
    return bool(near) and file.read(end - len(near), len(near)) == near and source.starts_as(file)
