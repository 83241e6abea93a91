"""What libraries log."""

import errno
import io
import json
import logging
import re
import sys
from contextlib import contextmanager

import pytest
import structlog
from flow import until

from schemas.errors import Problem
from streams import log
from streams.settings import LogSettings


@contextmanager
def logged_to(stream, monkeypatch, form="json"):
    """All that is logged goes there."""
    root = logging.getLogger()
    before = root.handlers
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(LogSettings(format=form))
    yield
    root.handlers = before
    structlog.reset_defaults()


@pytest.fixture
def lines(monkeypatch):
    """The log lines so far, as JSON."""
    said = io.StringIO()
    with logged_to(said, monkeypatch):
        yield lambda: [json.loads(line) for line in said.getvalue().splitlines()]


@pytest.fixture
def disk(monkeypatch):
    """What is logged goes to it."""
    disk = Disk()
    with logged_to(disk, monkeypatch):
        yield disk


def test_only_what_nobody_expected_has_a_traceback(lines):
    """Faust tells with one why a role ends, whatever that is."""
    for error in (Problem("a topic is missing", where="kafka"), RuntimeError("a defect")):
        try:
            raise error
        except Exception as told:
            logging.getLogger(f"library.{type(error).__name__}").exception("Crashed reason=%r", told)
    plain, defect = lines()
    assert "a topic is missing" in plain["event"]
    assert "exception" not in plain
    assert "RuntimeError" in defect["exception"]


def test_a_library_that_repeats_itself_is_heard_once(lines):
    """In our format; while a broker is away aiokafka says the same a hundred times a second."""
    library = logging.getLogger("library.client")
    for attempt in range(100):
        library.warning("cannot connect, attempt %d of 100%%", attempt)
    library.error("gone")
    library.info("of no interest")
    first, second = lines()
    assert (first["part"], first["level"], first["event"]) == (
        "library.client", "warning", "cannot connect, attempt 0 of 100%",
    )  # fmt: skip
    assert (second["level"], second["event"]) == ("error", "gone")


def test_a_librarys_error_keeps_its_traceback(lines):
    """It is the only hint to what went wrong there."""
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("library").exception("failed")
    (line,) = lines()
    assert "KeyError" in line["exception"]


def test_on_a_terminal_nothing_that_is_said_is_obeyed(monkeypatch):
    """A line's values quote files and services; line ends in them would be taken for other lines."""
    said, hostile = io.StringIO(), "x\x1b]0;title\x07\nforged\x9b2J"
    with logged_to(said, monkeypatch, "text"):
        logging.getLogger("library").warning(hostile)
        log.get("one").warning("said", of=hostile, each=[hostile])
        try:
            raise KeyError("lost\x1b[2J")
        except KeyError:
            log.get("one").exception("failed")
    first, second, third, *traceback = said.getvalue().splitlines()
    colours = re.compile(r"\x1b\[[0-9;]*m")
    for line in (first, second, third, *traceback):
        assert colours.sub("", line).isprintable()
    assert "x\\x1b]0;title\\x07\\nforged" in first
    assert second.count("forged") == 2
    assert "failed" in third
    assert traceback[0].startswith("Traceback")


class Disk(io.StringIO):
    """Takes ten characters and fails while it is full."""

    full = False

    def write(self, text):
        if not self.full:
            return super().write(text)
        super().write(text[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_lines_and_nothing_else(disk):
    """An exception in a library's task that only wanted to say something ended the task."""
    for disk.full in (False, True, True, False):
        log.get("one").warning("said", full=disk.full)
        logging.getLogger("library").error("said while %s", disk.full)
    disk.close()
    log.get("one").warning("to nobody")


def test_what_comes_after_a_cut_line_is_a_line(disk):
    disk.full = True
    log.get("one").warning("lost")
    disk.full = False
    log.get("one").warning("there")
    *_, last = disk.getvalue().splitlines()
    assert json.loads(last)["event"] == "there"


@pytest.mark.broker
def test_a_batchs_life_can_be_followed_by_its_id(flow):
    """From the window to the receipt, through failures of which the client, not the lane, tells."""
    flow.tail(flow.log(12_000, seed=81, bad_rate=0.01))
    flow.faults({"kind": "status", "status": 503, "count": 2})
    worker = flow.start("worker", LOG__LEVEL="debug", LOG__FORMAT="json")
    flow.settle()
    ids = [headers["batch-id"].decode() for _, headers in flow.batches()]
    until(lambda: worker.said.count("batch ended") >= len(ids))
    lines = [json.loads(line) for line in worker.said.splitlines() if line.startswith("{")]
    failed = 0
    for batch_id in ids:
        life = [line["event"] for line in lines if line.get("batch_id") == batch_id]
        assert (life.count("batch made"), life.count("batch ended")) == (1, 1)
        failed += life.count("delivery_failed")
    assert failed == 2 == sum(line["event"] == "delivery_failed" for line in lines)
