"""Recognition: which checkpoint a file belongs to. By what it holds; names and inodes only hint."""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from schemas.errors import UsageError
from streams import paths
from streams.checkpoint import Checkpoint, State
from streams.head import Head
from streams.source import OpenFile, Source


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


def is_intact(known: Checkpoint) -> bool:
    """Whether the file of a checkpoint is still where it was, with what was published of it."""
    try:
        file = OpenFile(known.path)
    except UsageError:
        return False
    try:
        return known.is_of(file) and known.proves(file)
    except OSError:
        return False
    finally:
        file.close()


def being_copied(file: OpenFile, sources: Iterable[Source]) -> Source | None:
    """The source that ``file`` may be an unfinished copy of: they are equal as far as it goes."""
    end = file.size()
    for source in sources:
        if source.records and 0 < end <= source.end and _equal(file, source.file.read, end):
            return source
    return None


def begins(file: OpenFile, source: Source) -> bool:
    """Whether ``file`` is a copy of the beginning of what ``source`` read before its file was overwritten."""
    if (file.device, file.inode) == (source.file.device, source.file.inode):
        return False
    end = file.size()
    near = source.near_end(end)
    return bool(near) and file.read(end - len(near), len(near)) == near and source.starts_as(file)


def _equal(file: OpenFile, read: Callable[[int, int], bytes], end: int) -> bool:
    near = min(end, 1024)
    return file.read(0, near) == read(0, near) and file.read(end - near, near) == read(end - near, near)
