"""``spotstream`` commands as child processes: started, watched and ended together."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from streams.lab.service import Service

_KILLED_S = 5.0


class Commands:
    """Commands that go when this process goes; a context manager that kills them when it is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Service] = {}

    def start(self, name: str, *arguments: str) -> Service:
        """Run ``spotstream name arguments…`` in this process's environment."""
        folder = self._folder / name
        folder.mkdir()
        command = [sys.executable, "-m", "streams.cli", name, *arguments]
        self._running[name] = Service(f"spotstream {name}", command, folder)
        return self._running[name]

    def check(self) -> None:
        """Raise :class:`Problem`, with the end of its log, when one has ended in error."""
        for service in self._running.values():
            if service.status:
                raise service.failure(f"ended with status {service.status}")

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """All that run, the roles of a worker by their names."""
        for name, service in self._running.items():
            for process in _tree(service.pid):
                with suppress(psutil.Error):  # it has ended
                    command = process.cmdline()
                    yield command[command.index("--role") + 1] if "--role" in command else name, process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        doomed = [process for service in self._running.values() for process in _tree(service.pid)]
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for service in self._running.values():
            service.stop()
        psutil.wait_procs(doomed, timeout=_KILLED_S)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
