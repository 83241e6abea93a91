"""Moments on the command line: RFC 3339, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

from schemas.errors import UsageError

_AGO = re.compile(r"(\d{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = "write 2026-03-01T06:00:00Z or 2026-03-01T06:00:00-05:00, or how long ago: 90m, 2h, 1d"


def parse(text: str, now: datetime, *, name: str) -> datetime:
    """The moment that ``text`` means, aware; ``now`` is aware, ``name`` is the option's, for the error.

    What is before 1970 is 1970: times below 0 mean other things to Kafka.
    Raises :class:`UsageError` for anything else, a local time without offset included: whose it would be
    is never guessed.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            moment = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            raise UsageError("a time without its offset from UTC", where=f"{name} {text}", remedy=_FORMS)
        return max(moment.astimezone(UTC), _BEGINNING)
    except (ValueError, OverflowError):
        raise UsageError("not a moment", where=f"{name} {text}", remedy=_FORMS) from None
