"""The console that tables are printed on, and texts of others made fit for a terminal."""

from rich.console import Console
from rich.text import Text

_PIPE_WIDTH = 250


def console() -> Console:
    """Of stdout: as wide as the terminal; into a pipe or a file nothing has to fit a screen."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def safe(text: str, style: str = "") -> Text:
    """``text`` from a file or a topic: what a terminal would obey rather than show is written as escapes."""
    return Text(_escaped(text, "\n\t"), style=style)


def printable(text: str) -> str:
    """``text`` as part of a line that is printed plainly: as :func:`safe`, and it stays one line."""
    return _escaped(text, "")


def _escaped(text: str, kept: str) -> str:
    return "".join(
        letter if letter.isprintable() or letter in kept else letter.encode("unicode_escape").decode()
        for letter in text
    )
