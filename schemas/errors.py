"""Errors that a person can act on.

Problem                 something is wrong: what, where, what to do
├── UsageError          wrong usage, settings or input      exit status 2
└── Unreachable         a service did not answer in time    exit status 3
"""

from collections.abc import Sequence
from typing import ClassVar


class Problem(Exception):
    """One line for the person at the terminal: ``what`` went wrong, ``where``, and the ``remedy``.

    ``below`` it are lines of a log, where that has the reason.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "", below: Sequence[str] = ()) -> None:
        self.what, self.where, self.remedy, self.below = what, where, remedy, below
        line = f"{where}: {what}" if where else what
        super().__init__(f"{line}; {remedy}" if remedy else line)


class UsageError(Problem):
    """The command, a setting, a profile or an input file is wrong."""

    exit_status = 2


class Unreachable(Problem):
    """A broker, a registry or an API could not be reached in time."""

    exit_status = 3
