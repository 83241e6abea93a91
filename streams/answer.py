"""What an attempt to send a batch came to, and how an HTTP answer is read. Pure.

200, 207            every record accounted for          Booked
400, 413, 422       the data is at fault                Refused       the only one that ends in the DLQ
429                 the account's limit                 Limited       not an error of anybody
401, 403            the credentials are at fault        Unauthorized  the data is not: wait
no token            the token endpoint is at fault      NoToken       nothing was booked: wait
anything else, or   whether it was booked is unknown:   Unavailable   send again under the same key
nothing, or half    5xx, 409 (in flight), 404, …
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.letter import Exchange, RecordRejection
from streams.retry_after import retry_after_s

_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)
_UNAUTHORIZED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class _Attempt:
    exchange: Exchange
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Booked(_Attempt):
    """Every record ended at Avstar: accepted + duplicates + rejected are the records of the batch."""

    status: int
    accepted: int
    duplicates: int
    rejected: list[RecordRejection]


@dataclass(frozen=True, slots=True)
class Refused(_Attempt):
    """The whole batch was refused, and would be again."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Limited(_Attempt):
    """Too many requests; the account may go on after ``retry_after_s``, where Avstar said so."""

    retry_after_s: float | None
    why: str = "the account's limit is reached"


@dataclass(frozen=True, slots=True)
class Unavailable(_Attempt):
    """No answer, or none that says what became of the records."""

    why: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unauthorized(_Attempt):
    """Avstar does not take our credentials."""

    status: int
    why: str
    retry_after_s: None = None


@dataclass(frozen=True, slots=True)
class NoToken(_Attempt):
    """The token endpoint gave us no token to send with; it is asked again after ``retry_after_s``."""

    why: str
    retry_after_s: float


Answer = Booked | Refused | Limited | Unavailable | Unauthorized | NoToken
Unsettled = Limited | Unavailable | Unauthorized | NoToken

_Count = Annotated[int, Field(ge=0)]


class _Booking(BaseModel):
    """The body of 200 and 207."""

    model_config = ConfigDict(strict=True)

    accepted: _Count
    duplicates: _Count
    rejected: list[RecordRejection] = []

    def accounts_for(self, records: int) -> bool:
        """Whether each of so many records is in exactly one of the three."""
        indexes = {rejection["index"] for rejection in self.rejected}
        distinct = len(indexes) == len(self.rejected) and all(0 <= index < records for index in indexes)
        return distinct and self.accepted + self.duplicates + len(indexes) == records


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    records: int,
    exchange: Exchange,
    latency_ms: int,
    at: datetime,
) -> Answer:
    """Read the whole answer to a batch of so many records; ``headers`` ignore case, ``at`` is now, aware.

    ``exchange`` holds the body as it may be shown.
    """
    if status in {HTTPStatus.OK, HTTPStatus.MULTI_STATUS}:
        return _booked(status, body, records, exchange, latency_ms)
    if status in _REFUSED:
        return Refused(exchange, latency_ms, status, _message(status, exchange))
    wait_s = retry_after_s(headers.get("Retry-After", ""), headers.get("Date", ""), at)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Limited(exchange, latency_ms, wait_s)
    if status in _UNAUTHORIZED:
        return Unauthorized(exchange, latency_ms, status, _message(status, exchange))
    overloaded = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return Unavailable(exchange, latency_ms, _message(status, exchange), wait_s if overloaded else None)


def _booked(status: int, body: bytes, records: int, exchange: Exchange, latency_ms: int) -> Answer:
    try:
        booking = _Booking.model_validate_json(body)
    except ValidationError:
        return Unavailable(exchange, latency_ms, f"{status} with an unreadable body")
    if not booking.accounts_for(records):
        why = f"{status} that does not account for each of the {records} records"
        return Unavailable(exchange, latency_ms, why)
    return Booked(exchange, latency_ms, status, booking.accepted, booking.duplicates, booking.rejected)


def _message(status: int, exchange: Exchange) -> str:
    """``status`` and what the answer says about it, if it says anything; from where secrets are gone."""
    try:
        message = str(orjson.loads(exchange.get("response_body", ""))["message"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        message = ""
    return f"{status} {message}".strip()[:_MESSAGE_CHARACTERS]
