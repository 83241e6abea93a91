"""Runs a command that ends when its starter goes: ``python leash.py COMMAND…``, run as a file.

The starter holds the other end of our standard input and never writes to it. However the starter goes, by
SIGKILL too, the kernel closes that end; we read the end of the file and stop the command. Were we killed
ourselves, Linux kills the command. The first line on standard output is the command's process id, and the
command's own output goes to our standard error.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

GRACE_S = 10.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command; its exit status, 128 + n when signal n ended it."""
    command = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=_die_with_leash() if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads yet
    )
    signal.signal(signal.SIGTERM, lambda *_: command.terminate())
    threading.Thread(target=_stop_with_starter, args=(command,), daemon=True).start()
    print(command.pid, flush=True)
    status = command.wait()
    return status if status >= 0 else 128 - status


def _die_with_leash() -> Callable[[], None]:
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_with_starter(command: "subprocess.Popen[bytes]") -> None:
    os.read(sys.stdin.fileno(), 1)  # not through a buffer, whose lock would be held when we exit
    command.terminate()
    time.sleep(GRACE_S)
    command.kill()


if __name__ == "__main__":
    sys.exit(main())
