"""Disks that can be full: small file systems in memory, which only this process and its children see."""

import ctypes
import errno
import os
import subprocess
from pathlib import Path

_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_PIECE = bytes(1 << 20)


def may_mount() -> bool:
    """Have mounts of our own, which end with us however that happens; only root may.

    To be called before there are threads: only the calling one is moved.
    """
    if os.geteuid() or ctypes.CDLL(None).unshare(_NEW_MOUNTS):
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False).returncode == 0


class Disk:
    """A file system of ``mib`` at ``folder``."""

    def __init__(self, folder: Path, mib: int) -> None:
        self._folder, self._ballast = folder, folder / "ballast"
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "chaos", folder], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        piece = _PIECE
        with self._ballast.open("ab", buffering=0) as ballast:
            while piece:
                try:
                    ballast.write(piece)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece = piece[: len(piece) // 2]

    def close(self) -> None:
        """Take it away, with all that is on it, so that its folder can go."""
        subprocess.run(["umount", "--lazy", self._folder], check=True)

    def clear(self) -> None:
        """Have room again."""
        self._ballast.unlink(missing_ok=True)
