"""The trial: a suspect window is judged in a process of its own, so that what kills it kills nothing else."""

import asyncio
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.codec import Codec
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.records import KINDS
from streams.outcome import Raw, conclude
from streams.panel import Seat, verdicts

#: A judge that takes longer than this for one window counts as dead.
_LONGEST_S = 60


class _Copy(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


async def survivors(window: Sequence[Raw], descriptors: Mapping[bytes, Descriptor]) -> list[bool]:
    """For each record of ``window``: whether a process that judges and encodes it lives.

    Halves the window until the records that kill are alone: about log2(window) processes for each of them.
    Raises :class:`Problem` when the process dies without any record: that would condemn all of them.
    """
    copies = [_Copy(raw.offset, raw.timestamp, raw.key, raw.value) for raw in window]
    alive = [True] * len(copies)
    suspects = [(0, len(copies))]
    while suspects:
        start, end = suspects.pop()
        if await _lives(copies[start:end], descriptors):
            continue
        if end - start == len(copies) and not await _lives([], descriptors):
            raise Problem("a process to judge records apart does not live", where="validate")
        if end - start == 1:
            alive[start] = False
        else:
            middle = (start + end) // 2
            suspects += [(start, middle), (middle, end)]
    return alive


async def _lives(window: Sequence[_Copy], descriptors: Mapping[bytes, Descriptor]) -> bool:
    described = {key: descriptor.dump() for key, descriptor in descriptors.items()}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, str(_LONGEST_S),
        stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # Both ends are this program, the pipe is private: pickle carries what we made ourselves.
        await child.communicate(pickle.dumps((window, described)))
    finally:
        if child.returncode is None:
            child.kill()
    return child.returncode == 0


def _judge_all(window: Sequence[_Copy], descriptors: Mapping[bytes, Descriptor]) -> None:
    codecs = {kind: Codec(kind, 0) for kind in KINDS}
    panel = {file: Seat.of(descriptor) for file, descriptor in descriptors.items()}
    if window:
        conclude(window, verdicts(window, panel), 0, codecs, descriptors)


if __name__ == "__main__":
    signal.alarm(
        int(sys.argv[1])
    )  # the kernel's: no record can keep it from ending us, nor our parent's death
    given, described = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from our parent, see above
    _judge_all(given, {key: Descriptor.load(value) for key, value in described.items()})
