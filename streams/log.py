"""Structured logging to stderr: JSON lines, or text on a terminal."""

import logging
import math
import sys
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any, TextIO, cast

import structlog

from schemas.errors import Problem
from streams.console import printable, safe
from streams.settings import LogSettings

_EVERY_S = 10.0


class _Libraries(logging.Handler):
    """Passes libraries' warnings on in our format, each at most once in ten seconds.

    aiokafka repeats its own a hundred times a second for as long as a broker is away.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._passed: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on, unless it is said again too soon."""
        key, now = (record.name, str(record.msg)), monotonic()
        if now - self._passed.get(key, -math.inf) >= _EVERY_S:
            self._passed[key] = now
            error = record.exc_info[1] if record.exc_info else None
            traceback = None if isinstance(error, Problem) else record.exc_info
            get(record.name).log(record.levelno, record.getMessage(), exc_info=traceback)


class _Unfailing:
    """A stream on which a full disk or a reader that is gone costs lines and nothing else.

    Whoever logs has work to do, libraries' background tasks, too, and an exception would end it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._cut = stream, False

    def write(self, text: str) -> None:
        """As far as it goes; what comes after a line that was cut is a line of its own."""
        try:
            self._stream.write("\n" + text if self._cut else text)
            self._stream.flush()
            self._cut = False
        except (OSError, ValueError):  # the latter: closed
            self._cut = True

    def flush(self) -> None:
        """Nothing: what is written is flushed."""


def _fit_for_a_terminal(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What files, topics and services say is shown, not obeyed; a traceback keeps its lines."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = safe(value).plain if name == "exception" else printable(value)
    return line


def configure(settings: LogSettings) -> None:
    """Set format and level for the whole process."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if as_json
        else [_fit_for_a_terminal, structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [*(one for one in root.handlers if not isinstance(one, _Libraries)), _Libraries()]


def about(**what: str) -> AbstractContextManager[None]:
    """A context in which each line, whoever writes it, carries ``what``; tasks begun in it keep it."""
    return structlog.contextvars.bound_contextvars(**what)


def get(name: str) -> Any:
    """A logger whose events carry ``part=name``; it can be made before :func:`configure`."""
    return structlog.get_logger(part=name)
