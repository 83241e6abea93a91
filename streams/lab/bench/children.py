"""The processes that a benchmark starts: on cores of their own, watched, and gone when it is."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from schemas.errors import Problem

#: Whoever makes fewer records a second, after so many seconds for its start, hangs; Faust makes some 7,000.
_SLOWEST_A_SECOND, _START_S = 2000, 120.0


def limit_s(records: int) -> float:
    """How long the slowest may take for so many records, in seconds."""
    return _START_S + records / _SLOWEST_A_SECOND


def pin(pid: int, core: int) -> None:
    """To one of the cores that we may use ourselves, counted as Python counts: -1 is the last.

    Whoever is measured has the last one. Where there are fewer than are asked for, they are shared.
    """
    if hasattr(psutil.Process, "cpu_affinity"):
        ours = sorted(psutil.Process().cpu_affinity())
        with suppress(psutil.Error):  # it has ended: whoever waits for it says so
            psutil.Process(pid).cpu_affinity([ours[core % len(ours)]])


@contextmanager
def running(
    command: Sequence[str], core: int | None = None, *, grace_s: float = 30.0, **options: Any
) -> Iterator["subprocess.Popen[Any]"]:
    """Run a command, on one ``core`` where that is given (see :func:`pin`), until this is left.

    However it is left, the process is asked to end then, and killed when it has not after ``grace_s``.
    ``options``: of ``Popen``.
    """
    with subprocess.Popen(command, **options) as child:
        try:
            if core is not None:
                pin(child.pid, core)
            yield child
        finally:
            child.terminate()  # nothing happens when it has ended
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                child.kill()


def until(
    condition: Callable[[], bool],
    children: Sequence["subprocess.Popen[Any]"],
    longest_s: float,
    failure: Callable[[], Problem],
    every_s: float = 0.1,
) -> None:
    """Return once ``condition()`` holds; raise ``failure()`` when it does not in time or a child ends."""
    deadline = time.monotonic() + longest_s
    while True:
        # Looked at first: what ends in order may have done all of it.
        over = time.monotonic() > deadline or any(child.poll() is not None for child in children)
        if condition():
            return
        if over:
            raise failure()
        time.sleep(every_s)
