"""How glibc keeps the memory that is freed. Elsewhere nothing of this does anything."""

import ctypes
import gc
import threading
import time
from functools import cache
from typing import Final

#: Of malloc.h: what is kept of free memory, how large a piece may be to come from there, and who shares it.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

#: Seconds from one tidying to the next.
_EVERY_S: Final = 60.0


@cache
def keep() -> None:
    """Keep what is freed, for all threads together; what nobody has needed for a minute is given back.

    Once a process, however many roles it runs.

    To give megabytes back and fault them in anew took a third of tail's time and a twentieth of validate's;
    an arena for each thread takes 30 MB more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_TRIM_THRESHOLD, 67_108_864)
    mallopt(_M_MMAP_THRESHOLD, 33_554_432)
    threading.Thread(target=_keep_tidy, name="heap", daemon=True).start()


def _keep_tidy() -> None:
    while True:
        time.sleep(_EVERY_S)
        tidy()


def tidy() -> None:
    """Collect cycles and give back what is free, wherever it lies: some 30 ms.

    Whatever a peak took stays resident otherwise: 100 of 360 MB in a worker after 100 minutes with a fault
    each half minute and one backlog. What ends with a rebalance are cycles, which the thresholds make rare to
    be found.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
