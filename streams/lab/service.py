"""A service of the lab: a child process with a log file, on loopback ports, that never outlives us."""

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self
from urllib.request import ProxyHandler, build_opener

from schemas.errors import Problem, UsageError
from streams.lab import leash

#: Below the ports that Linux (32768) and macOS (49152) hand out to clients: while a service restarts,
#: no client can sit on its port, nor connect to itself there.
_PORTS = range(20_000, 32_000)
_LOG_LINES = 20


class Service:
    """A running child process that works in ``folder``; what it prints goes to the file ``log`` there.

    It ends when this process goes, whichever way that happens. The file ``lock`` stays open until then.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, lock: int | None = None) -> None:
        self.name = name
        self.log = folder / "log"
        with self.log.open("ab") as output:
            self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=folder,
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # Ctrl-C is ours to handle: the service ends after its clients
            )
        first_line = self._leash.stdout.readline() if self._leash.stdout else b""
        if not first_line:
            raise self.failure("could not be started")
        self.pid = int(first_line)

    @property
    def running(self) -> bool:
        return self._leash.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status, 128 + n when signal n ended it; None while it runs."""
        return self._leash.poll()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return as soon as ``ready()``, which may block for a moment, not for long.

        Raises :class:`Problem` with the end of the log when the service ends or ``timeout_s`` passes.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                raise self.failure(f"ended while starting, with status {self._leash.returncode}")
            if time.monotonic() > deadline:
                raise self.failure(f"did not answer within {timeout_s:g} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order; by force when it has not ended after the leash's grace."""
        if self.running:
            self._leash.communicate()  # closes the leash's standard input, and waits

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def failure(self, what: str) -> Problem:
        """What to raise about it: ``what``, with the end of its log."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            end = [line.rstrip() for line in deque(lines, _LOG_LINES)]
        return Problem(what, where=self.name, remedy=f"the end of its log {self.log}:", below=end)


class Embedded(ABC):
    """A service whose data lives in a folder, that can be started again and again.

    Use it as a context manager, or call the methods; they block.
    """

    #: How long it may take until it answers.
    start_s: ClassVar[float]

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.absolute()
        self._service: Service | None = None

    def start(self) -> None:
        """Launch it and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the process, and the first time download it.

        Raises :class:`UsageError` when its folder cannot be used, or another process uses it.
        """
        where = str(self._dir)
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            lock = (self._dir / "lock").open("w")
        except OSError as error:
            raise UsageError(f"is no folder to keep data in: {error.strerror}", where=where) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    "is in use by another process", where=where, remedy="end it or choose another folder"
                ) from None
            self._service = self._spawn(lock.fileno())

    def wait(self) -> None:
        """Return once it answers, or else kill it.

        Raises :class:`Problem` with the end of its log when it ends or takes too long.
        """
        if self._service is None:
            return
        try:
            self._service.wait_until(self._answers, self.start_s)
        except BaseException:
            self.kill()
            raise

    @abstractmethod
    def _spawn(self, lock: int) -> Service: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @property
    def pid(self) -> int | None:
        """The service's own process, for tests that send it signals; None when it is not running."""
        return self._service.pid if self._service else None

    def stop(self) -> None:
        """Shut it down in order (SIGTERM); nothing when it is not running."""
        if self._service is not None:
            self._service.stop()
            self._service = None

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        if self._service is not None:
            self._service.kill()
            self._service = None

    def restart(self) -> None:
        """Stop and start, with the same data and address."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _steady_port(self) -> int:
        """The port of the last start if it is free, so that clients find a restarted service again."""
        remembered = self._dir / "port"
        last = remembered.read_text(encoding="ascii") if remembered.exists() else ""
        # It is empty if a kill came as it was written.
        port = int(last) if last and _is_free(int(last)) else free_port()
        remembered.write_text(str(port), encoding="ascii")
        return port


#: A proxy that the environment names is for the way out, and knows no service of this machine.
_DIRECTLY = build_opener(ProxyHandler({}))


def fetch(url: str, timeout_s: float) -> bytes:
    """What a GET of ``url``, which is one of ours, gives; raises ``OSError``, ``HTTPException``."""
    with _DIRECTLY.open(url, timeout=timeout_s) as answer:
        return bytes(answer.read())


def answers(url: str) -> bool:
    """Whether a GET of ``url``, which is one of ours, succeeds."""
    try:
        fetch(url, 2)
    except (OSError, HTTPException):
        return False
    return True


def free_port(adjacent: int = 1) -> int:
    """A TCP port of 127.0.0.1 that nothing listens on; the first of ``adjacent`` such ports in a row."""
    while True:
        port = random.choice(_PORTS)
        if all(map(_is_free, range(port, port + adjacent))):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as Java's servers do: connections in TIME_WAIT do not hold a port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
