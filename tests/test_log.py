"""What libraries log."""

import errno
import io
import json
import logging
import sys

import pytest
import structlog
from flow import until

from streams import log
from streams.settings import LogSettings


@pytest.fixture
def lines(monkeypatch):
    """The log lines so far, as JSON."""
    root = logging.getLogger()
    before, said = root.handlers, io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    log.configure(LogSettings(format="json"))
    yield lambda: [json.loads(line) for line in said.getvalue().splitlines()]
    root.handlers = before
    structlog.reset_defaults()


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


class Disk(io.StringIO):
    """Takes ten characters and fails while it is full."""

    full = False

    def write(self, text):
        if not self.full:
            return super().write(text)
        super().write(text[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_lines_and_nothing_else(monkeypatch):
    """An exception in a library's task that only wanted to say something ended the task."""
    root = logging.getLogger()
    before, said = root.handlers, Disk()
    monkeypatch.setattr(sys, "stderr", said)
    log.configure(LogSettings(format="json"))
    try:
        for said.full in (False, True, True, False):
            log.get("one").warning("said", full=said.full)
            logging.getLogger("library").error("said while %s", said.full)
        said.close()
        log.get("one").warning("to nobody")
    finally:
        root.handlers = before
        structlog.reset_defaults()


def test_what_comes_after_a_cut_line_is_a_line(monkeypatch):
    said = Disk()
    monkeypatch.setattr(sys, "stderr", said)
    try:
        log.configure(LogSettings(format="json"))
        said.full = True
        log.get("one").warning("lost")
        said.full = False
        log.get("one").warning("there")
    finally:
        logging.getLogger().handlers = [
            one for one in logging.getLogger().handlers if not isinstance(one, log._Libraries)
        ]
        structlog.reset_defaults()
    *_, last = said.getvalue().splitlines()
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
