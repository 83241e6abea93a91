"""What a process keeps of what it freed, and what it gives back."""

import subprocess
import sys

_SCRIPT = """
import psutil, threading
from streams import heap

def resident(): return psutil.Process().memory_info().rss / 1e6

heap.keep()
heap.keep()
assert [thread.name for thread in threading.enumerate()].count("heap") == 1
before = resident()
held = [bytearray(100_000) for _ in range(2_000)]
pinned = held[-1]  # the heap cannot shrink below it
del held
kept = resident()
heap.tidy()
print(kept - before, resident() - before)
"""


def test_what_is_free_is_kept_until_it_is_tidied() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    kept, left = map(float, done.stdout.split())
    assert kept > 180
    assert left < 20
