"""A service of the lab: a child process with a log file, on loopback ports, that never outlives us."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from schemas.errors import Problem
from streams.lab import leash

#: Below the ports that Linux (32768) and macOS (49152) hand out to clients: while a service restarts,
#: no client can sit on its port, nor connect to itself there.
_PORTS = range(20_000, 32_000)
_LOG_LINES = 20


class Service:
    """A running child process; what it prints goes to ``log``.

    It ends when this process goes, whichever way that happens.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, cwd: Path | None = None) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd,
                start_new_session=True,  # Ctrl-C is ours to handle: the service ends after its clients
            )
        first_line = self._leash.stdout.readline() if self._leash.stdout else b""
        if not first_line:
            raise self._failed("could not be started")
        self.pid = int(first_line)

    @property
    def running(self) -> bool:
        return self._leash.poll() is None

    def wait_until(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Return as soon as ``answers()``, which may block for a moment, not for long; or else kill it.

        Raises :class:`Problem` with the end of the log when the service ends or ``timeout_s`` passes.
        """
        try:
            self._poll(answers, timeout_s)
        except BaseException:
            self.kill()
            raise

    def _poll(self, answers: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not answers():
            if not self.running:
                raise self._failed(f"ended while starting, with status {self._leash.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"did not answer within {timeout_s:g} s")
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

    def _failed(self, what: str) -> Problem:
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            end = "".join(deque(lines, _LOG_LINES)).rstrip()
        return Problem(what, where=self.name, remedy=f"the end of its log {self.log}:\n{end}")


def free_port(preferred: int | None = None) -> int:
    """A TCP port of 127.0.0.1 that nothing listens on: ``preferred`` if it is free."""
    if preferred is not None and _is_free(preferred):
        return preferred
    return next(port for port in iter(lambda: random.choice(_PORTS), None) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as Java's servers do: connections in TIME_WAIT do not hold a port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
