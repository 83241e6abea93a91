"""A wall clock that can be set, for one command and its children alone: ``clock.c``, built where it is used.

libfaketime's would not do: beside a true monotonic clock its ``time.sleep`` fails, and it does not know
``cnd_timedwait``, by which librdkafka waits until a moment of the wall clock, and so for hours.
"""

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")
COMPILER = shutil.which("cc")


def build(folder: Path) -> Path:
    """The library to preload."""
    library = folder / "clock.so"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


class Clock:
    """What a command's wall clock shows."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}  #: to start it with
        self.set(0)

    def set(self, hours: float) -> None:
        """So many hours ahead of time, or below 0 behind; seen at once."""
        with self._file.open("r+b" if self._file.exists() else "wb") as shown:
            shown.write(struct.pack("=d", hours * 3600))
