"""Standard output that cannot be written, or not in UTF-8: told in a line, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_COMMAND = f"{sys.executable} -m streams.cli"


def _run(command: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SPOTSTREAM_")}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("spotstream", _COMMAND)], env=ours | variables,
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    "command",
    ["generate --records 1", "generate --records 5000", "profile show avion", "config show", "--help"],
)
def test_a_full_disk_is_told_wherever_it_shows(command: str, tmp_path: Path) -> None:
    done = _run(f"spotstream {command} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "spotstream: standard output: cannot be written: No space left on device\n"


def test_an_error_is_told_beside_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    done = _run("spotstream profile check nothing.csv > /dev/full", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nothing.csv" in done.stderr


@pytest.mark.parametrize("records", [3, 3000])
def test_a_truth_that_cannot_be_written_is_named(records: int, tmp_path: Path) -> None:
    done = _run(f"spotstream generate --records {records} --bad-rate 1 --truth /dev/full > log.csv", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "spotstream: /dev/full: cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", ["generate --records 1", "config show", "worker"])
def test_without_an_output_nothing_begins(command: str, tmp_path: Path) -> None:
    """The next file or connection that is opened would get what is printed."""
    done = _run(f"spotstream {command} >&-", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "standard output: is closed" in done.stderr


@pytest.mark.parametrize("form", ["auto", "json"])
def test_without_standard_error_nothing_is_told_and_all_goes_on(form: str, tmp_path: Path) -> None:
    """Errors are not output."""
    (tmp_path / "empty.csv").touch()
    done = _run("spotstream tail empty.csv --once 2>&-", tmp_path, SPOTSTREAM_LOG__FORMAT=form)
    assert (done.returncode, done.stdout) == (2, "")
    done = _run("spotstream generate --records 1 >&- 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_what_an_encoding_has_no_letters_for_is_written_as_escapes(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "x"\ndescription = "Größe"\ntime_zone = "UTC"\ncurrency = "USD"\n'
    )
    done = _run("spotstream profile show mine.toml", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert 'description = "Gr\\xf6\\xdfe"' in done.stdout


def test_whoever_has_enough_of_it_may_go(tmp_path: Path) -> None:
    done = _run("spotstream generate --records 100000 | head -n 1 > first", tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert (tmp_path / "first").read_text("utf-8").count("\n") == 1
