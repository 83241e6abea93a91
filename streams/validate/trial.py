"""The trial: suspect windows are judged in a process of its own; what kills there kills nothing else."""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from schemas.codec import Codec
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.records import KINDS
from streams.validate.outcome import conclude
from streams.validate.panel import Seat, verdicts
from topics.record import Record

#: A judge that takes longer than this for one window counts as dead.
_LONGEST_S = 60

#: How long the process is kept for the next window: those of quiet logs are small, and come every second.
_IDLE_S = 20.0


class _Copy(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Trial:
    """The process, for all partitions of a worker: started when there is a suspect, ended after the last.

    It imports once and forks for each window, so one that hangs holds up no other. It ends with the worker,
    which holds the other end of its socket.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._under_way = 0
        self._end: asyncio.TimerHandle | None = None

    async def survivors(
        self, window: Sequence[Record], descriptors: Mapping[bytes, Descriptor]
    ) -> list[bool]:
        """For each record of ``window``: whether a process that judges and encodes it lives.

        Takes about log2(window) forks for each record that kills. Raises :class:`Problem` when the trial
        itself does not come to its end: that condemns no record.
        """
        copies = [_Copy(raw.offset, raw.timestamp, raw.key, raw.value) for raw in window]
        described = {key: descriptor.dump() for key, descriptor in descriptors.items()}
        self._under_way += 1
        if self._end:
            self._end.cancel()
        try:
            # Both ends are this program, the sockets are private: pickle carries what we made ourselves.
            alive = await self._ask(pickle.dumps((copies, described)))
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._end = asyncio.get_running_loop().call_later(_IDLE_S, self.close)
        if len(alive) != len(copies):
            raise Problem("a process that judges records apart ended early", where="validate")
        return [bool(one) for one in alive]

    async def _ask(self, question: bytes) -> bytes:
        """The answer; cut short when the process did not live to give it."""
        ours, theirs = socket.socketpair()
        with suppress(OSError):
            with theirs:
                socket.send_fds(self._started(), [b"."], [theirs.fileno()])
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                writer.write(question)
                writer.write_eof()
                return await reader.read()
            finally:
                writer.close()
        return b""

    def _started(self) -> socket.socket:
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self.close()
            self._socket, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-m", __spec__.name, str(theirs.fileno()), str(_LONGEST_S)]
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
        return self._socket

    def close(self) -> None:
        """End the process, if it runs."""
        if self._socket:
            self._socket.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None


def _serve(control: socket.socket, longest_s: int) -> None:
    """Fork for each question that comes, until the worker is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        with socket.socket(fileno=fds[0]) as asked:
            if os.fork():
                continue
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with suppress(OSError, EOFError, pickle.UnpicklingError):  # the worker is gone
                with asked.makefile("rb") as question:
                    given, described = pickle.loads(question.read())  # noqa: S301 - from our parent, see above
                asked.sendall(_bisect(given, described, longest_s))
            os._exit(0)


def _bisect(window: Sequence[_Copy], descriptors: Mapping[bytes, bytes], longest_s: int) -> bytes:
    """A byte for each record: 1 when it lives. Halves what dies until the records that kill are alone."""
    alive = bytearray(b"\1" * len(window))
    parent = os.getppid()
    suspects = [(0, len(window))]
    while suspects and os.getppid() == parent:
        start, end = suspects.pop()
        if _lives(window[start:end], descriptors, longest_s):
            continue
        if end - start == 1:
            alive[start] = 0
        else:
            middle = (start + end) // 2
            suspects += [(start, middle), (middle, end)]
    return bytes(alive)


def _lives(window: Sequence[_Copy], descriptors: Mapping[bytes, bytes], longest_s: int) -> bool:
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        signal.alarm(longest_s)
        _judge(window, {key: Descriptor.load(value) for key, value in descriptors.items()})
        status = 0
    finally:
        os._exit(status)


def _judge(window: Sequence[_Copy], descriptors: Mapping[bytes, Descriptor]) -> None:
    codecs = {kind: Codec(kind, 0) for kind in KINDS}
    panel = {file: Seat.of(descriptor) for file, descriptor in descriptors.items()}
    conclude(window, verdicts(window, panel), 0, codecs, descriptors)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given, int(sys.argv[2]))
