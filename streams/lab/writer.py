"""A log that grows: written in bursts, now and then with only the beginning of its last line."""

import random
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from streams.lab.generate import Line, Truth

#: Lines in a burst at the most, and seconds until the next one at the most: 130,000 lines/s, were making them
#: free, so that what reads the log sets the pace.
_BURST = 8_000
_PAUSE_S = 0.06
#: Share of bursts that end in the middle of a line.
_TORN = 0.25


class Writer:
    """Appends ``lines`` to the new file ``path``: the first one at once, the others in a thread of its own.

    ``truth`` tells what the file holds so far, ``error`` what ended it early, ``finished`` that all is there.
    """

    def __init__(self, path: Path, lines: Iterator[Line], seed: int = 0) -> None:
        self.path, self.truth = path, Truth()
        self.error: OSError | None = None
        self.finished = False
        self._lines, self._draw = lines, random.Random(seed)
        path.write_bytes(next(lines).data)

    def start(self) -> None:
        """Write on in the background; the thread does not keep the process from ending."""
        threading.Thread(target=self._run, name="writer", daemon=True).start()

    def _run(self) -> None:
        try:
            self._write()
            self.finished = True
        except OSError as error:
            self.error = error

    def _write(self) -> None:
        held = b""
        with self.path.open("ab") as log:
            while burst := list(islice(self._lines, self._draw.randint(1, _BURST))):
                data = held + b"".join([line.data for line in burst])
                torn = self._draw.random() < _TORN
                whole = len(data) - (self._draw.randint(1, len(burst[-1].data)) if torn else 0)
                log.write(data[:whole])
                log.flush()
                held = data[whole:]
                for line in burst:
                    self.truth.learn(line)
                time.sleep(self._draw.uniform(0, _PAUSE_S))
            log.write(held)
