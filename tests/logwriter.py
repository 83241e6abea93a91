"""A daemon that logs: ``python logwriter.py PATH NOTES``. On SIGTERM it prints how many lines it wrote.

As daemons do for logrotate, it opens PATH anew on SIGHUP; and on SIGUSR1 it rests, a whole line written,
until SIGUSR2. That it has done so it notes by a file in the folder NOTES.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from tailing import HEADER, lines


class Writer:
    def __init__(self, path: Path, notes: Path) -> None:
        self._path, self._notes = path, notes
        self._asked: set[int] = set()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._asked.add(number))
        self._log = path.open("ab", buffering=0)

    def run(self) -> int:
        """Write until told to end; how many lines there are then."""
        written, chance = 0, random.Random(4)
        while not self._is_asked(signal.SIGTERM):
            if self._is_asked(signal.SIGHUP):
                self._log.close()
                self._log = self._path.open("ab", buffering=0)
                (self._notes / "reopened").touch()
            if self._is_asked(signal.SIGUSR1):
                self._rest()
            if not os.fstat(self._log.fileno()).st_size:
                self._log.write(HEADER)
            more = chance.randint(1, 40)
            data = b"".join(lines(written, written + more))
            cut = chance.randrange(len(data))
            self._log.write(data[:cut])
            time.sleep(chance.uniform(0, 0.01))
            self._log.write(data[cut:])
            written += more
        return written

    def _is_asked(self, number: int) -> bool:
        asked = number in self._asked
        self._asked.discard(number)
        return asked

    def _rest(self) -> None:
        (self._notes / "resting").touch()
        while not self._is_asked(signal.SIGUSR2):
            time.sleep(0.002)


if __name__ == "__main__":
    print(Writer(*map(Path, sys.argv[1:])).run())
