"""Validated records as JSON lines on stdout: ``spotstream subscribe``."""

import gc
import select
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime

import orjson

from streams import moment, output
from streams.settings import Settings
from streams.subscription import Record, chunks


def run(settings: Settings, kind: str, since: str, *, follow: bool) -> int:
    """Print records until the end of what was there, a signal, or nobody reads any more; status 0 for each.

    Raises what :func:`streams.subscription.chunks` does.
    """
    start = moment.parse(since, datetime.now(UTC), name="--since") if since else None
    gc.freeze()  # records hold no cycles, and looking for some over and over costs a fifth of the speed
    gc.set_threshold(100_000, 20, 50)
    printed = _Output()
    try:
        with closing(chunks(settings, kind, since=start, follow=follow)) as found:
            for chunk in found:
                printed.print(chunk)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        output.give_up()  # whoever read it has enough of it
    return 0


class _Output:
    """Stdout; SIGTERM and SIGINT end the reading at once, but not the writing amid a line."""

    def __init__(self) -> None:
        self._writing = self._ending = False
        self._state = select.poll()
        self._state.register(sys.stdout.fileno(), select.POLLERR)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)

    def print(self, chunk: list[Record]) -> None:
        """Write a chunk. Raises ``BrokenPipeError`` as soon as nobody reads, also when it is empty."""
        if not chunk:
            # A pipe that nobody reads any more; a terminal or a file says nothing.
            if any(said & select.POLLERR for _, said in self._state.poll(0)):
                raise BrokenPipeError
            return
        self._writing = True
        sys.stdout.buffer.write(b"".join(map(_line, chunk)))
        sys.stdout.buffer.flush()
        self._writing = False
        if self._ending:
            raise KeyboardInterrupt

    def _end(self, *_: object) -> None:
        if self._writing and not self._ending:
            self._ending = True  # a second one breaks off even a write that nobody reads
        else:
            raise KeyboardInterrupt


def _line(found: Record) -> bytes:
    where = {
        "key": found.key,
        "partition": found.partition,
        "offset": found.offset,
        "timestamp": found.timestamp,
    }
    line = found.record | {"placement_hash": found.placement_hash, "kafka": where}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
