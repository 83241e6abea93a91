"""Standard output and standard error, as every command has them."""

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any

from schemas.errors import Problem, UsageError

_WHERE = "standard output"


class _Descriptor(FileIO):
    """Says of an error that it was in writing the output: to commands it would look like any other file's."""

    def write(self, data: Any) -> int:
        """As it is, but that it raises :class:`Problem` where nothing can be written."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Problem(f"cannot be written: {error.strerror}", where=_WHERE) from None


def prepare() -> None:
    """See that what cannot be written is told, and that any text can be written in any encoding.

    Whoever closed standard error wants to hear nothing. Raises :class:`UsageError` when there is no output:
    whatever is opened next would take its place.
    """
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    given = sys.stdout
    if given is None:
        raise UsageError("is closed", where=_WHERE, remedy="lead it to /dev/null if nobody wants it")
    if given is sys.__stdout__ and isinstance(given, TextIOWrapper):
        sys.stdout = TextIOWrapper(
            BufferedWriter(_Descriptor(given.fileno(), "w", closefd=False)),
            encoding=given.encoding,
            errors="backslashreplace",
            line_buffering=given.line_buffering or given.write_through,
        )


def give_up() -> None:
    """Forget what could not be written: the flush at the interpreter's end must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finish() -> None:
    """Write what is left after an error that is told already."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, Problem):
        give_up()
