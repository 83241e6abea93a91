"""The console that tables are printed on."""

from rich.console import Console
from rich.text import Text

_PIPE_WIDTH = 250


def console() -> Console:
    """Of stdout: as wide as the terminal; into a pipe or a file nothing has to fit a screen."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def safe(text: str, style: str = "") -> Text:
    """``text`` from a file or a topic: what a terminal would obey rather than show is written as escapes."""
    shown = (
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
    return Text("".join(shown), style=style)
