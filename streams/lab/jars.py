"""The archives of the embedded services: downloaded once with jgo, checked against locked checksums, kept.

A lock file ``NAME.lock`` lists every file as ``sha256sum`` does, by its path in a Maven repository, below a
comment with the Maven coordinates that jgo resolved it from. ``python -m streams.lab.jars COORDINATES`` gives
a new one. Installing from it resolves nothing again, so what is published later changes nothing here.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.text import Text

from schemas.errors import Problem, Unreachable, UsageError

if TYPE_CHECKING:
    from jgo.maven import Artifact, MavenContext


class Locked(NamedTuple):
    """A locked file: its SHA-256 in hexadecimal, and its ``path`` in a Maven repository."""

    sha256: str
    path: PurePosixPath


def read_lock(path: Path) -> list[Locked]:
    """What a lock file lists, jars in class path order."""
    lines = path.read_text(encoding="ascii").splitlines()
    pairs = (line.split("  ", 1) for line in lines if not line.startswith("#"))
    return [Locked(sha256, PurePosixPath(name)) for sha256, name in pairs]


def cache_dir() -> Path:
    """Where downloads are kept, for all of the user's projects."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "spotstream")


def class_path(lock_file: Path, cache: Path) -> str:
    """Java's class path of all the locked jars, downloaded to ``cache`` where they are missing.

    Raises :class:`Problem` when a jar is not what is locked, :class:`Unreachable` when it cannot be had, and
    :class:`UsageError` when it cannot be kept.
    """
    locked = read_lock(lock_file)
    folder = cache / lock_file.stem
    with _alone(folder):
        missing = [jar for jar in locked if not (folder / jar.path.name).exists()]
        if missing:
            _download(missing, folder)
        for jar in locked:
            _check(folder / jar.path.name, jar.sha256)
    return os.pathsep.join(str(folder / jar.path.name) for jar in locked)


def unpacked(lock_file: Path, cache: Path) -> Path:
    """The folder of the one locked tar archive's contents, downloaded to ``cache`` if it is missing.

    Raises like :func:`class_path`.
    """
    (archive,) = read_lock(lock_file)
    folder = cache / lock_file.stem
    contents = folder / archive.sha256[:16]
    with _alone(folder):
        if not contents.exists():
            _download([archive], folder)
            scratch = folder / "unpacking"
            shutil.rmtree(scratch, ignore_errors=True)  # of a start that was killed
            shutil.unpack_archive(folder / archive.path.name, scratch, filter="data")
            scratch.rename(contents)
            (folder / archive.path.name).unlink()
    return contents


def _download(files: list[Locked], folder: Path) -> None:
    """Put ``files`` into ``folder``, each of them only once it is whole and what is locked."""
    print(f"downloading {folder.name} to {folder} (once)", file=sys.stderr, flush=True)
    scratch = folder / "download"
    shutil.rmtree(scratch, ignore_errors=True)  # of a download that was killed
    maven = _maven(scratch)
    with _progress(folder) as progress:
        for file in progress.track(files):
            download = _fetch(maven, file.path)
            _check(download, file.sha256)
            download.replace(folder / file.path.name)
    shutil.rmtree(scratch)


def _progress(folder: Path) -> Progress:
    """Shows on a terminal how many files there are, and that bytes come."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _Arrived(folder))
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


class _Arrived(ProgressColumn):
    """The size of what has come to ``folder`` so far."""

    max_refresh = 0.5

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._before = self._size()

    def render(self, task: Task) -> Text:  # noqa: ARG002 - the signature is rich's
        return Text(filesize.decimal(self._size() - self._before))

    def _size(self) -> int:
        found = 0
        for path in self._folder.rglob("*"):
            with suppress(FileNotFoundError):  # just being moved
                found += path.lstat().st_size
        return found


def _maven(repository: Path) -> "MavenContext":
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - an extra, and only needed to download
        from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
        from jgo.maven import MavenContext  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "the embedded services are downloaded with jgo, which is missing",
            remedy="pip install 'spotstream[embedded]'",
        ) from None
    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    return MavenContext(repo_cache=repository, remote_repos=repositories)


def _fetch(maven: "MavenContext", path: PurePosixPath) -> Path:
    *group, artifact, version, name = path.parts
    classifier, _, packaging = name.removeprefix(f"{artifact}-{version}").removeprefix("-").partition(".")
    component = maven.project(".".join(group), artifact).at_version(version)
    return _resolved(component.artifact(classifier, packaging))


def _resolved(artifact: "Artifact") -> Path:
    try:
        return Path(artifact.resolve())
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
        raise Unreachable(
            f"could not be downloaded: {error}",
            where=artifact.filename,
            remedy="check the network and try again",
        ) from error


def _check(file: Path, sha256: str) -> None:
    actual = _sha256(file)
    if actual != sha256:
        raise Problem(
            f"SHA-256 is {actual}, the locked one is {sha256}",
            where=str(file),
            remedy="delete the file and try again",
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UsageError(
            f"downloads cannot be kept there: {error.strerror}",
            where=str(folder),
            remedy="set XDG_CACHE_HOME to a folder that can be written to",
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _print_lock(coordinates: str) -> None:
    """Resolve ``GROUP:ARTIFACT:VERSION`` (several joined by ``+``) with all that they need at run time.

    With ``:PACKAGING:CLASSIFIER`` behind it, it is that one file.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        print(f"# {coordinates}")
        for artifact in sorted(_artifacts(_maven(repository), coordinates), key=lambda one: one.filename):
            file = _resolved(artifact)
            print(f"{_sha256(file)}  {file.relative_to(repository).as_posix()}")


def _artifacts(maven: "MavenContext", coordinates: str) -> "list[Artifact]":
    one, *more = coordinates.split("+")
    group, name, version, *kind = one.split(":")
    if kind:
        packaging, classifier = kind
        return [maven.project(group, name).at_version(version).artifact(classifier, packaging)]
    dependencies = [maven.create_dependency(coordinate) for coordinate in (one, *more)]
    inputs, transitive = maven.resolver.resolve(dependencies)
    needed = [dependency for dependency in transitive if dependency.scope in ("compile", "runtime")]
    return [dependency.artifact for dependency in (*inputs, *needed)]


if __name__ == "__main__":
    _print_lock(sys.argv[1])
