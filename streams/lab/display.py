"""Live progress on stderr: bars on a terminal, elsewhere a line every few seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from streams.lab.gauge import Reading

_LINE_S = 3.0


class View(NamedTuple):
    """What is shown: the ``reading``, and records ``written`` and in all (``total``), None where unknown."""

    reading: Reading
    written: int | None = None
    total: int | None = None

    def stages(self) -> dict[str, int]:
        """How many records came how far, first stage first."""
        written = {} if self.written is None else {"written": self.written}
        return written | self.reading._asdict()


class Display(Protocol):
    """Shows how far the flow is; several times a second."""

    def show(self, view: View) -> None:
        """Things stand like this now."""


class _Clock:
    """Seconds since the first record was published, and records done in one of them."""

    def __init__(self) -> None:
        self._begin: float | None = None

    def tell(self, reading: Reading) -> str:
        if not reading.published:
            return "waiting for the first record"
        self._begin = self._begin or time.monotonic()
        seconds = time.monotonic() - self._begin
        done = reading.booked + reading.rejected
        return f"{seconds:.0f} s, {done / seconds if seconds else 0:,.0f} records/s"


class _Bars:
    def __init__(self, live: Live, note: str) -> None:
        self._live, self._note, self._clock = live, note, _Clock()
        self._bars = Progress(
            TextColumn("{task.description:>10}"), BarColumn(40), TextColumn("{task.completed:>11,.0f}")
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, view: View) -> None:
        for name, count in view.stages().items():
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name)
            total = view.total
            if total is not None and name == "booked":
                total -= view.reading.rejected
            self._bars.update(self._tasks[name], completed=count, total=total)
        footer = Text(f"{'':>10} {self._clock.tell(view.reading)}\n{'':>10} {self._note}")
        self._live.update(Group(self._bars, footer))


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0
        self._clock = _Clock()

    def show(self, view: View) -> None:
        told = self._clock.tell(view.reading)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_S
        counts = ", ".join(f"{name} {count:,}" for name, count in view.stages().items())
        print(f"{told}: {counts}", file=sys.stderr, flush=True)


@contextmanager
def display(note: str) -> Iterator[Display]:
    """The one that suits stderr, ``note`` beside it; what it showed last stays."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        print(note, file=sys.stderr, flush=True)
        yield _Lines()
        return
    with Live(console=console, refresh_per_second=5) as live:
        yield _Bars(live, note)
