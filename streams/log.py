"""Structured logging to stderr: JSON lines, or text on a terminal."""

import logging
import sys
from typing import Any

import structlog

from streams.settings import LogSettings


def configure(settings: LogSettings) -> None:
    """Set format and level for the whole process."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Any:
    """A logger whose events carry ``part=name``; it can be made before :func:`configure`."""
    return structlog.get_logger(part=name)
