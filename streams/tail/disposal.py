"""Disposal: what becomes of a file that is published to its end, once that is a committed fact."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import UsageError
from streams import log
from streams.tail import paths
from streams.tail.source import OpenFile

logger = log.get("tail")


class Disposal:
    """Moves finished files to the folder ``done``, deletes them, or leaves them where they are."""

    def __init__(self, done: Path | None = None, *, delete: bool = False) -> None:
        if done and delete:
            raise UsageError("--done-dir and --delete exclude each other")
        self._done, self._delete = done.absolute() if done else None, delete

    def __bool__(self) -> bool:
        return bool(self._done or self._delete)

    def check(self, given: Sequence[str]) -> None:
        """Raise :class:`UsageError` for a folder that is not there, or is tailed itself."""
        if not self._done:
            return
        if not self._done.is_dir() or not os.access(self._done, os.W_OK):
            raise UsageError("no folder to write to", where=str(self._done), remedy="create it")
        if any(paths.covers(one, str(self._done / "any")) for one in given):
            raise UsageError(
                "it is among the folders that are tailed", where=str(self._done), remedy="give another"
            )

    def __call__(self, file: OpenFile, end: int) -> bool:
        """Dispose of a finished file, if it is still where it was and has nothing after ``end``.

        To be repeated after a crash. What cannot be moved is told and stays, for it was published. False: it
        was written to, or moved, while it was being copied; so it stays, to be looked at again.
        """
        if not self or not _is_as_published(file, end):
            return True
        try:
            if self._done is None:
                Path(file.path).unlink()
            elif not _move(file, end, self._done):
                return False
        except OSError as error:
            logger.error("finished file stays", path=file.path, why=str(error))  # noqa: TRY400 - a fact, no bug
            return True
        logger.info("finished file deleted" if self._delete else "finished file moved", path=file.path)
        return True


def _is_as_published(file: OpenFile, end: int) -> bool:
    return file.is_at(file.path) and file.size() == end and file.written() == file.modified


def _move(file: OpenFile, end: int, folder: Path) -> bool:
    """Whether it could be moved as it was published."""
    path = Path(file.path)
    target = folder / path.name
    number = 0
    while target.exists():
        number += 1
        target = folder / f"{path.name}.{number}"
    try:
        path.rename(target)
    except OSError:
        # Another file system. Under its own name only once it is whole.
        part = target.with_name(f".{target.name}.part")
        shutil.copy2(path, part)
        with part.open("rb") as copy:
            os.fsync(copy.fileno())
        if not _is_as_published(file, end):
            part.unlink()
            return False
        part.rename(target)
        path.unlink()
    return True
