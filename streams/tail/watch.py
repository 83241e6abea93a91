"""Watch: waits until something happens to files, by the kernel's notice or else by the clock."""

import threading
from collections.abc import Collection
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

from watchfiles import Change
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from streams import log

logger = log.get("tail")

#: How long several notices are gathered: with how long one takes to be seen, the price of waiting.
_STEP_MS = 10

#: How often files are looked at without notices. A notice can be lost, so sometimes with them, too.
_POLL_S, _DISTRUST_S = 0.02, 10.0

#: File systems that other machines write to as well; the kernel hears nothing of that.
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse",
    "ceph",
    "gluster",
    "lustre",
    "afs",
    "vboxsf",
    "gpfs",
    "virtiofs",
)


class Seen(NamedTuple):
    """``paths`` of which something was noticed, ``all`` for any; ``appeared`` when files came or went."""

    paths: frozenset[str] = frozenset()
    appeared: bool = False
    all: bool = False


class Watch:
    """Watches folders; :meth:`wait` is called from one thread, :meth:`wake` from any."""

    def __init__(self, how: Literal["auto", "poll"] = "auto") -> None:
        self._how = how
        self._folders: frozenset[str] = frozenset()
        self._changes: set[tuple[int, str]] = set()
        self._lock = threading.Lock()
        self._something = threading.Event()
        self._stop = threading.Event()
        self._notices: RustNotify | None = None
        self._distrust_at = 0.0

    @property
    def polls(self) -> bool:
        """Whether there are no notices."""
        return self._notices is None

    def over(self, folders: Collection[str], *, recursive: bool = False) -> None:
        """Watch these folders from now on."""
        wanted = frozenset(folders)
        if self._how == "poll" or (wanted == self._folders and self._notices):
            return
        self.close()
        self._folders = wanted
        if wanted and not any(_is_remote(folder) for folder in wanted):
            self._start(recursive=recursive)

    def _start(self, *, recursive: bool) -> None:
        try:
            notices = RustNotify(sorted(self._folders), False, False, 0, recursive, True)
        except (OSError, WatchfilesRustInternalError) as error:
            logger.warning("no notice of changes is to be had; files are polled", why=str(error))
            return
        self._notices, self._stop = notices, threading.Event()
        self._distrust_at = 0.0
        threading.Thread(
            target=self._gather, args=(notices, self._stop), name="tail-watch", daemon=True
        ).start()

    def _gather(self, notices: RustNotify, stop: threading.Event) -> None:
        while not stop.is_set():
            changes = notices.watch(_STEP_MS, _STEP_MS, 1000, stop)
            if isinstance(changes, set):
                with self._lock:
                    self._changes |= changes
                self._something.set()
        notices.close()

    def wait(self, seconds: float) -> Seen:
        """Wait for something, ``seconds`` at the most; gives what was seen."""
        if self.polls:
            self._something.wait(min(seconds, _POLL_S))
            self._something.clear()
            return Seen(all=True)
        self._something.wait(seconds)
        with self._lock:
            self._something.clear()
            changes, self._changes = self._changes, set()
        if monotonic() >= self._distrust_at:
            self._distrust_at = monotonic() + _DISTRUST_S
            return Seen(all=True, appeared=True)
        appeared = any(change != Change.modified for change, _ in changes)
        return Seen(frozenset(path for _, path in changes), appeared=appeared)

    def wake(self) -> None:
        """Let :meth:`wait` return."""
        self._something.set()

    def close(self) -> None:
        """Watch nothing."""
        self._stop.set()
        self._notices = None


def _is_remote(folder: str) -> bool:
    real = Path(folder).resolve()
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return False
    kinds = {
        fields[1].replace("\\040", " "): fields[2] for fields in map(str.split, mounts) if len(fields) > 2
    }
    return next((kinds[str(at)] for at in (real, *real.parents) if str(at) in kinds), "").startswith(_REMOTE)
