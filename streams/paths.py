"""Paths as a person gives them: files, folders and globs."""

import glob
import os
from collections.abc import Iterator, Sequence
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


def _files(given: str) -> list[str]:
    path = Path(given)
    if path.is_dir():
        # One that cannot be listed just now is looked into again later; at the start `check` speaks up.
        try:
            return [
                str(path.absolute() / entry.name)
                for entry in sorted(os.scandir(path), key=lambda entry: entry.name)
                if entry.is_file() and not entry.name.startswith(".")
            ]
        except OSError:
            return []
    if path.exists() or not glob.has_magic(given):
        return [str(path.absolute())]
    matches = glob.glob(given, recursive=True)  # noqa: PTH207 - Path.glob knows no absolute patterns
    return sorted(str(Path(name).absolute()) for name in matches if Path(name).is_file())


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
