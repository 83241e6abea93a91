"""The Retry-After header (RFC 9110, 10.2.3): seconds, or an HTTP date."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Longest wait that is believed; after it one request asks again.
CAP_S = 600.0


def retry_after_s(value: str, date: str, at: datetime) -> float | None:
    """Seconds to wait, from 0 to :data:`CAP_S`; None when ``value`` is neither form.

    ``date`` is the Date header of the same answer: where it can be read, a date is counted from it, so that
    a clock that is off on either side does no harm; else from ``at`` (aware).
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return CAP_S if len(value) > 9 else min(CAP_S, float(value))
    until = _http_date(value)
    if until is None:
        return None
    return min(CAP_S, max(0.0, (until - (_http_date(date) or at)).total_seconds()))


def _http_date(value: str) -> datetime | None:
    """Any of the three forms of RFC 9110, 5.6.7; all of them are in UTC."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
