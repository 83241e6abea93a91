"""The jars of the embedded services: resolved once with jgo, checked against locked checksums, kept.

A lock file ``NAME.lock`` lists every jar as ``sha256sum`` does, below a comment with the Maven coordinates
that it was made from. ``python -m streams.lab.jars COORDINATES`` prints a new one.
"""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Problem, Unreachable, UsageError


class Lock(NamedTuple):
    """What a lock file says: ``sha256`` by the jar's file name, in class path order."""

    coordinates: str
    sha256: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Lock":
        first, *lines = path.read_text(encoding="ascii").splitlines()
        digests = (line.split("  ", 1) for line in lines)
        return cls(first.removeprefix("# "), {name: digest for digest, name in digests})


def cache_dir() -> Path:
    """Where downloads are kept, for all of the user's projects."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "spotstream")


def class_path(lock_file: Path, cache: Path) -> str:
    """Java's class path of all the locked jars, downloaded to ``cache`` where they are missing.

    Raises :class:`Problem` when a jar is not what is locked, :class:`Unreachable` when it cannot be had.
    """
    lock = Lock.read(lock_file)
    folder = cache / lock_file.stem
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if not all((folder / name).exists() for name in lock.sha256):
            _download(lock, folder)
        for name, digest in lock.sha256.items():
            _check(folder / name, digest)
    return os.pathsep.join(str(folder / name) for name in lock.sha256)


def _download(lock: Lock, folder: Path) -> None:
    print(f"downloading {lock.coordinates} ({len(lock.sha256)} jars, once)", file=sys.stderr)
    scratch = folder / "download"
    shutil.rmtree(scratch, ignore_errors=True)  # of a download that was killed
    resolved = {jar.name: jar for jar in _resolve(lock.coordinates, scratch)}
    for name, digest in lock.sha256.items():
        if name not in resolved:
            raise Problem("is locked, but was not resolved", where=name, remedy="renew the lock file")
        _check(resolved[name], digest)
        resolved[name].replace(folder / name)
    shutil.rmtree(scratch)


def _resolve(coordinates: str, scratch: Path) -> list[Path]:
    """Download the jars of ``coordinates`` and of what they depend on into ``scratch``."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - an extra, and only needed to download
        from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
        from jgo.env import EnvironmentBuilder, LinkStrategy  # noqa: PLC0415
        from jgo.maven import MavenContext  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "the embedded services need jgo to be downloaded", remedy="pip install 'spotstream[embedded]'"
        ) from None
    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    maven = MavenContext(repo_cache=scratch / "repository", remote_repos=repositories)
    builder = EnvironmentBuilder(maven, cache_dir=scratch, link_strategy=LinkStrategy.AUTO)
    try:
        return sorted(builder.from_endpoint(coordinates).all_jars)
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
        raise Unreachable(
            f"could not be downloaded: {error}", where=coordinates, remedy="check the network and try again"
        ) from error


def _check(jar: Path, digest: str) -> None:
    with jar.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != digest:
        raise Problem(
            f"SHA-256 is {actual}, the locked one is {digest}",
            where=str(jar),
            remedy="delete the file and try again",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _print_lock(coordinates: str) -> None:
    scratch = cache_dir() / "lock"
    print(f"# {coordinates}")
    for jar in sorted(_resolve(coordinates, scratch), key=lambda jar: jar.name):
        print(f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    _print_lock(sys.argv[1])
