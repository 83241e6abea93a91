"""What libraries log."""

import io
import json
import logging
import sys

import pytest
import structlog

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
