"""``spotstream demo``: the whole pipeline, started, watched, audited, and gone without a trace."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from flow import until
from processes import left_after

from streams.lab.demo import _take_environment
from streams.lab.generate import generate, write
from streams.lab.writer import Writer

_DEMO = [sys.executable, "-m", "streams.cli", "demo"]
_GONE_S = 15


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where a demo keeps its temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


class Demo:
    """A demo that runs; ``errors`` is what it has written to stderr so far."""

    def __init__(self, scratch: Path, *arguments: str) -> None:
        self.scratch, self.errors = scratch, ""
        self.process = subprocess.Popen(
            [*_DEMO, *arguments], env=_environment(scratch), stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.errors += line

    def end(self, number: signal.Signals) -> int:
        """Send a signal; gives the exit status, once nothing of it runs any more."""
        self.process.send_signal(number)
        status = self.process.wait(_GONE_S)
        assert left_after(_started_under(self.scratch), _GONE_S) == []
        self.join()
        return status

    def join(self) -> None:
        """Read the last of what it has written."""
        self._reader.join(_GONE_S)


@contextmanager
def _demo(scratch: Path, *arguments: str) -> Iterator[Demo]:
    demo = Demo(scratch, *arguments)
    try:
        yield demo
    finally:
        demo.process.kill()
        demo.process.wait()


def _environment(scratch: Path) -> dict[str, str]:
    # The token is of another worker's pages.
    return os.environ | {"TMPDIR": str(scratch), "SPOTSTREAM_WORKER__WEB_TOKEN": "another"}


def _started_under(scratch: Path) -> list[psutil.Process]:
    """All processes that have inherited the environment of a demo on ``scratch``."""

    def inherited(process: psutil.Process) -> bool:
        try:
            return process.environ().get("TMPDIR") == str(scratch)
        except psutil.Error:
            return False

    return list(filter(inherited, psutil.process_iter()))


def _run(scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_DEMO, *arguments], env=_environment(scratch), capture_output=True, text=True, check=False
    )


@pytest.mark.broker
def test_accounts_for_every_record_of_a_growing_log(scratch: Path) -> None:
    done = _run(scratch, "--records", "30000", "--bad-rate", "0.03", "--seed", "5", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    numbers = {name: told[name] for name in ("records", "published", "validated", "rejected", "delivered")}
    assert numbers == {
        "records": 30_000,
        "published": 30_000,
        "validated": 29_100,
        "rejected": 900,
        "delivered": 29_100,
    }
    assert (told["dead_lettered"], told["missing"], told["duplicates"]) == (0, 0, 0)
    assert told["batches"] >= 6
    assert told["seconds"] > 0
    assert told["records_per_second"] == pytest.approx(30_000 / told["seconds"], rel=0.01)
    shown = re.findall(r"validated ([\d,]+), rejected [\d,]+, booked [1-9]", done.stderr)
    assert shown
    assert "0" not in shown
    everyone = {"tail", "worker", "validate", "dispatch", "kafka", "registry", "sandbox"}
    assert told["rss_mb"].keys() == told["cpu_s"].keys() == everyone
    assert all(20 < told["rss_mb"][name] < 400 for name in ("tail", "worker", "validate", "dispatch"))
    assert list(scratch.iterdir()) == []
    assert _started_under(scratch) == []


def _starting(demo: Demo) -> bool:
    return bool(list(demo.scratch.glob("*/kafka/log")))


def _waiting_for_the_worker(demo: Demo) -> bool:
    return "starting the worker" in demo.errors


def _flowing(demo: Demo) -> bool:
    return "booked" in demo.errors


@pytest.mark.broker
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (_starting, signal.SIGINT),
        (_waiting_for_the_worker, signal.SIGTERM),
        (_flowing, signal.SIGINT),
    ],
)
def test_ends_on_a_signal_without_a_trace(
    scratch: Path, moment: Callable[[Demo], bool], number: signal.Signals
) -> None:
    with _demo(scratch, "--records", "5000000") as demo:
        until(lambda: moment(demo))
        assert demo.end(number) == 130
        assert list(scratch.iterdir()) == []
        assert "Traceback" not in demo.errors


@pytest.mark.broker
def test_takes_its_processes_along_when_it_is_killed(scratch: Path) -> None:
    with _demo(scratch, "--records", "5000000") as demo:
        until(lambda: _flowing(demo))
        names = {process.name() for process in _started_under(scratch)}
        assert "java" in names
        assert demo.end(signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.broker
def test_ends_with_the_log_of_a_command_that_fails(scratch: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "noise.csv").write_bytes(bytes(range(256)) * 100)
    done = _run(scratch, "--file", str(logs))
    assert (done.returncode, done.stdout) == (1, "")
    assert "spotstream: spotstream tail: ended with status 1; the end of its log" in done.stderr
    assert "noise.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(scratch.iterdir()) == []
    assert _started_under(scratch) == []


@pytest.mark.broker
def test_fails_when_the_audit_and_the_generator_disagree(scratch: Path) -> None:
    with _demo(scratch, "--records", "20000") as demo:
        until(lambda: list(scratch.glob("*/avion.csv")))
        with next(scratch.glob("*/avion.csv")).open("ab") as log:
            log.write(b"not one of the generator's\r\n")
        assert demo.process.wait(150) == 1
        assert left_after(_started_under(scratch), _GONE_S) == []
        demo.join()
    assert "spotstream: the generated log: 20,000 records were written, 200 of them bad, but" in demo.errors


@pytest.mark.parametrize("content", [None, b"", bytes(range(256)) * 100, b"Lorem,Ipsum\r\ndolor,sit\r\n"])
def test_refuses_a_file_that_is_no_log_at_once(scratch: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "file.csv"
    if content is not None:
        file.write_bytes(content)
    done = _run(scratch, "--file", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"spotstream: {file}: ")
    assert done.stderr.count("\n") == 1
    assert list(scratch.iterdir()) == []


def test_settings_that_lead_away_from_the_lab_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    away = {
        "KAFKA__BOOTSTRAP_SERVERS": "kafka:9092", "registry__username": "me", "AVSTAR__PROXY": "http://proxy:80",
        "WORKER__WEB_TOKEN": "hush", "WORKER__WEB_TOKEN_FILE": "/run/token", "worker__web_host": "10.0.0.7",
        "WORKER__PEER_URL": "http://other:6067",
    }  # fmt: skip
    kept = {"SPOTSTREAM_BATCH__SECONDS": "2", "SPOTSTREAM_WORKER__DRAIN_S": "4", "HOME": "/root"}
    found = {f"SPOTSTREAM_{name}": value for name, value in away.items()} | kept
    monkeypatch.setattr(os, "environ", found)
    _take_environment({"SPOTSTREAM_WORKER__WEB_PORT": "20001"})
    assert found == kept | {"SPOTSTREAM_WORKER__WEB_PORT": "20001"}


def test_a_writer_writes_what_was_generated(tmp_path: Path) -> None:
    with (tmp_path / "whole").open("wb") as whole:
        truth = write(whole, generate(100_000, 7, 0.1))
    writer = Writer(tmp_path / "grown", generate(100_000, 7, 0.1))
    torn = False
    with writer.path.open("rb") as grown:
        writer.start()
        while not writer.finished:
            assert writer.error is None
            grown.seek(-1, os.SEEK_END)
            torn = torn or grown.read(1) != b"\n"
            time.sleep(0.001)
    assert writer.truth == truth
    assert writer.path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert torn
