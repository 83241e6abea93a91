"""Paths as a person gives them: files, folders and globs."""

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from schemas.errors import UsageError


def is_file_path(given: str) -> bool:
    """Whether ``given`` means one file, which has to be there, and not whatever a folder or a glob holds."""
    path = Path(given)
    return not path.is_dir() and (path.exists() or not glob.has_magic(given))


def found(given: Sequence[str]) -> Iterator[str]:
    """The files that ``given`` mean now, absolute, each once; a folder's and a glob's by name.

    A folder means the regular, not hidden files right in it.
    """
    seen: set[str] = set()
    for one in given:
        for path in _files(one):
            if path not in seen:
                seen.add(path)
                yield path


def covers(given: str, path: str) -> bool:
    """Whether a file at the absolute ``path`` would be one that ``given`` means (or nearly, for a glob)."""
    root = Path(given)
    if root.is_dir():
        return Path(path).parent == root.absolute()
    absolute = str(root.absolute())
    return path == absolute or (glob.has_magic(given) and fnmatchcase(path, absolute))


def folders(given: Sequence[str]) -> tuple[set[str], bool]:
    """The folders in which files may appear, and whether anywhere below them, too."""
    below = False
    found: set[str] = set()
    for one in given:
        path = Path(one).absolute()
        if not path.is_dir():
            path = path.parent
            while glob.has_magic(str(path)):
                path, below = path.parent, True
        found.add(str(path))
    return found, below


def siblings(path: str) -> list[str]:
    """Where a file that was at ``path`` may have been rotated to: files of its folder named like it."""
    gone = Path(path)
    try:
        names = [entry.name for entry in os.scandir(gone.parent) if _is_file(entry)]
    except OSError:
        return []
    return [
        str(gone.parent / name) for name in sorted(names) if name.startswith(gone.stem) and name != gone.name
    ]


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def with_inode(path: str, inode: int) -> str:
    """Where in its folder the file that was at ``path`` is now, by its inode; else empty."""
    folder = Path(path).parent
    try:
        return next((str(folder / entry.name) for entry in os.scandir(folder) if entry.inode() == inode), "")
    except OSError:
        return ""


def _files(given: str) -> list[str]:
    path = Path(given)
    if path.is_dir():
        # One that cannot be listed just now is looked into again later; at the start `check` speaks up.
        try:
            return [
                str(path.absolute() / entry.name)
                for entry in sorted(os.scandir(path), key=lambda entry: entry.name)
                if not entry.name.startswith(".") and _is_file(entry)
            ]
        except OSError:
            return []
    if path.exists() or not glob.has_magic(given):
        return [str(path.absolute())]
    matches = glob.glob(given, recursive=True)  # noqa: PTH207 - Path.glob knows no absolute patterns
    return sorted(str(Path(name).absolute()) for name in matches if os.path.isfile(name))  # noqa: PTH113 - never raises


def check(given: Sequence[str], *, once: bool) -> None:
    """Raise :class:`UsageError` for a folder that cannot be listed and, with ``once``, where no file is."""
    for one in given:
        try:
            if Path(one).is_dir():
                os.scandir(one).close()
        except OSError as error:
            raise UsageError(f"cannot be listed: {error.strerror}", where=one) from None
        if once and not _files(one):
            raise UsageError(
                "no file there", where=one, remedy="give a file, a folder or a glob that has some"
            )
