"""``spotstream`` commands as child processes: started, watched, weighed and ended together."""

import sys
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
        self.peak_rss: dict[str, int] = {}  #: in bytes, by command and role

    def start(self, name: str, *arguments: str) -> Service:
        """Run ``spotstream name arguments…`` in this process's environment."""
        folder = self._folder / name
        folder.mkdir()
        command = [sys.executable, "-m", "streams.cli", name, *arguments]
        self._running[name] = Service(f"spotstream {name}", command, folder)
        return self._running[name]

    def look(self) -> None:
        """Note how much memory they take. Raises :class:`Problem` when one has ended in error."""
        for name, service in self._running.items():
            if service.status:
                raise service.failure(f"ended with status {service.status}")
            for process in _tree(service.pid):
                self._weigh(name, process)

    def _weigh(self, name: str, process: psutil.Process) -> None:
        try:
            command, rss = process.cmdline(), process.memory_info().rss
        except psutil.Error:
            return  # it has ended
        name = command[command.index("--role") + 1] if "--role" in command else name
        self.peak_rss[name] = max(rss, self.peak_rss.get(name, 0))

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
