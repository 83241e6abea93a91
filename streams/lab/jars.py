"""The archives of the embedded services: downloaded once with jgo, checked against locked checksums, kept.

A lock file ``NAME.lock`` lists every file as ``sha256sum`` does, below a comment with the Maven coordinates
that it was made from. ``python -m streams.lab.jars COORDINATES`` prints a new one.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Problem, Unreachable, UsageError


class Lock(NamedTuple):
    """What a lock file says: ``sha256`` by file name, jars in class path order."""

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
    with _alone(folder):
        if not all((folder / name).exists() for name in lock.sha256):
            _download(lock, folder)
        for name, digest in lock.sha256.items():
            _check(folder / name, digest)
    return os.pathsep.join(str(folder / name) for name in lock.sha256)


def unpacked(lock_file: Path, cache: Path) -> Path:
    """The folder of the one locked tar archive's contents, downloaded to ``cache`` if it is missing.

    Raises like :func:`class_path`.
    """
    lock = Lock.read(lock_file)
    ((name, digest),) = lock.sha256.items()
    folder = cache / lock_file.stem
    contents = folder / digest[:16]
    with _alone(folder):
        if not contents.exists():
            _download(lock, folder)
            scratch = folder / "unpacking"
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.unpack_archive(folder / name, scratch, filter="data")
            scratch.rename(contents)
            (folder / name).unlink()
    return contents


def _download(lock: Lock, folder: Path) -> None:
    print(f"downloading {lock.coordinates} (once)", file=sys.stderr)
    scratch = folder / "download"
    shutil.rmtree(scratch, ignore_errors=True)  # of a download that was killed
    found = {file.name: file for file in _resolve(lock.coordinates, scratch)}
    for name, digest in lock.sha256.items():
        if name not in found:
            raise Problem("is locked, but not what was downloaded", where=name, remedy="renew the lock file")
        _check(found[name], digest)
        found[name].replace(folder / name)
    shutil.rmtree(scratch)


def _resolve(coordinates: str, scratch: Path) -> list[Path]:
    """Download what ``coordinates`` name into ``scratch``: a jar with all it depends on, or one archive."""
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
    try:
        if ":tar.gz:" in coordinates:
            group, artifact, packaging, classifier, version = coordinates.split(":")
            return [
                maven.project(group, artifact).at_version(version).artifact(classifier, packaging).resolve()
            ]
        builder = EnvironmentBuilder(maven, cache_dir=scratch, link_strategy=LinkStrategy.AUTO)
        return sorted(builder.from_endpoint(coordinates).all_jars, key=lambda jar: jar.name)
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
        raise Unreachable(
            f"could not be downloaded: {error}", where=coordinates, remedy="check the network and try again"
        ) from error


def _check(file: Path, digest: str) -> None:
    with file.open("rb") as content:
        actual = hashlib.file_digest(content, "sha256").hexdigest()
    if actual != digest:
        raise Problem(
            f"SHA-256 is {actual}, the locked one is {digest}",
            where=str(file),
            remedy="delete the file and try again",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _print_lock(coordinates: str) -> None:
    print(f"# {coordinates}")
    with tempfile.TemporaryDirectory() as scratch:
        for file in _resolve(coordinates, Path(scratch)):
            print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")


if __name__ == "__main__":
    _print_lock(sys.argv[1])
