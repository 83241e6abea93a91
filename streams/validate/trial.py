"""The trial: a suspect window is judged in processes of its own; what kills them kills nothing else."""

import asyncio
import os
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.codec import Codec
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.records import KINDS
from streams.validate.outcome import Raw, conclude
from streams.validate.panel import Seat, verdicts

#: A judge that takes longer than this for one window counts as dead.
_LONGEST_S = 60


class _Copy(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


async def survivors(window: Sequence[Raw], descriptors: Mapping[bytes, Descriptor]) -> list[bool]:
    """For each record of ``window``: whether a process that judges and encodes it lives.

    Takes a process start, and about log2(window) forks for each record that kills. Raises :class:`Problem`
    when the trial itself does not come to its end: that condemns no record.
    """
    copies = [_Copy(raw.offset, raw.timestamp, raw.key, raw.value) for raw in window]
    described = {key: descriptor.dump() for key, descriptor in descriptors.items()}
    trial = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, str(_LONGEST_S),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        # Both ends are this program, the pipe is private: pickle carries what we made ourselves.
        alive, _ = await trial.communicate(pickle.dumps((copies, described)))
    finally:
        if trial.returncode is None:
            trial.kill()
    if trial.returncode or len(alive) != len(copies):
        raise Problem("a process that judges records apart ended early", where="validate")
    return [bool(one) for one in alive]


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
    given, described = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from our parent, see above
    sys.stdout.buffer.write(_bisect(given, described, int(sys.argv[1])))
