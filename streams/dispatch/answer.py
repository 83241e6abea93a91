"""What an attempt to send a batch came to, and how an HTTP answer is read. Pure.

200, 207            every record accounted for          Booked
"refuse"            the data is at fault                Refused       the only one that ends in the DLQ
"pause"             the account's limit                 Limited       not an error of anybody
"unauthorized"      the credentials are at fault        Unauthorized  the data is not: wait
no token            the token endpoint is at fault      NoToken       nothing was booked: wait
"retry", "again",   whether it was booked is unknown    Unavailable   send again under the same key
nothing, or half

The words in quotes are what :mod:`.policy` says about a status.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from schemas.letter import Exchange, RecordRejection
from streams.dispatch import rate_limit
from streams.dispatch.policy import Action, Status, action
from streams.dispatch.rate_limit import RateLimit
from streams.dispatch.retry_after import retry_after_s

_MESSAGE_CHARACTERS = 500
_REJECTION_CHARACTERS = 2000  # of its code and its message: a dead letter has to fit into its topic


@dataclass(frozen=True, slots=True)
class _Attempt:
    exchange: Exchange
    latency_ms: int
    limit: RateLimit | None = field(default=None, kw_only=True)  #: what it told of the account's limit


@dataclass(frozen=True, slots=True)
class Booked(_Attempt):
    """Every record ended at Avstar: accepted + duplicates + rejected are the records of the batch."""

    status: int
    accepted: int
    duplicates: int
    rejected: list[RecordRejection]


@dataclass(frozen=True, slots=True)
class Refused(_Attempt):
    """The whole batch was refused, and would be again; ``rejected`` are the records that it says are why."""

    status: int
    message: str
    rejected: list[RecordRejection] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Limited(_Attempt):
    """Too many requests; the account may go on after ``retry_after_s``, where Avstar said so."""

    retry_after_s: float | None
    why: str = "the account's limit is reached"


@dataclass(frozen=True, slots=True)
class Unavailable(_Attempt):
    """No answer, or none that says what became of the records; ``is_error``: the API is at fault."""

    why: str
    retry_after_s: float | None = None
    is_error: bool = True


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

_Count = Annotated[int, Field(ge=0, strict=True)]


def _text(said: Any) -> str:
    """A code or a message: whatever an API makes of them, they do not tell what became of the records."""
    return str(said) if isinstance(said, str | int | float) else ""


class _Named(BaseModel):
    """A record that an answer names."""

    index: _Count
    code: Annotated[str, BeforeValidator(_text)] = ""
    message: Annotated[str, BeforeValidator(_text)] = ""


_Names = Annotated[list[_Named], BeforeValidator(lambda said: [] if said is None else said)]


class _Booking(BaseModel):
    """The body of 200 and 207."""

    accepted: _Count
    duplicates: _Count
    rejected: _Names = []


class _Refusal(BaseModel):
    """The body of a refusal that names the records at fault."""

    rejected: _Names = []
    errors: _Names = []


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    records: int,
    exchange: Exchange,
    latency_ms: int,
    at: datetime,
    policy: Mapping[Status, Action] = MappingProxyType({}),
    hidden: Callable[[str], str] = str,
) -> Answer:
    """Read the whole answer to a batch of so many records; ``headers`` ignore case, ``at`` is now, aware.

    ``policy`` goes before :data:`.policy.POLICY`. ``hidden`` takes secrets out of texts that are kept: an API
    may quote our credentials. The body itself is read as it came, or a secret of digits would spoil a count.
    """
    said = _parsed(body)
    if status in {HTTPStatus.OK, HTTPStatus.MULTI_STATUS}:
        answer = _booked(status, said, records, exchange, latency_ms)
    else:
        wait_s = retry_after_s(headers.get("Retry-After", ""), headers.get("Date", ""), at)
        message = _message(status, said, hidden)
        meant = action(status, policy)
        answer = _not_booked(status, meant, message, wait_s, exchange=exchange, latency_ms=latency_ms)
        if isinstance(answer, Refused):
            answer = replace(answer, rejected=_named(said, records))
    if isinstance(answer, Booked | Refused):
        answer = replace(answer, rejected=[_without(hidden, one) for one in answer.rejected])
    limit = rate_limit.read(headers.get("RateLimit", ""), headers.get("RateLimit-Policy", ""))
    return replace(answer, limit=limit) if limit else answer


def _not_booked(
    status: int,
    action: Action,
    message: str,
    wait_s: float | None,
    *,
    exchange: Exchange,
    latency_ms: int,
) -> Answer:
    match action:
        case "refuse":
            return Refused(exchange, latency_ms, status, message)
        case "pause":
            return Limited(exchange, latency_ms, wait_s)
        case "unauthorized":
            return Unauthorized(exchange, latency_ms, status, message)
    overloaded = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return Unavailable(exchange, latency_ms, message, wait_s if overloaded else None, action == "retry")


def _parsed(body: bytes) -> Any:
    """The JSON of an answer; None when it is none.

    An API that cuts a text inside an emoji writes half a surrogate, which strict parsers refuse: it becomes a
    question mark, or an answer that says "booked" would be asked for again and again.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
        return json.loads(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _booked(status: int, said: Any, records: int, exchange: Exchange, latency_ms: int) -> Answer:
    try:
        booking = _Booking.model_validate(said)
    except ValidationError:
        return Unavailable(exchange, latency_ms, f"{status} with an unreadable body")
    rejected = _rejected(booking.rejected, records)
    if rejected is None or booking.accepted + booking.duplicates + len(rejected) != records:
        why = f"{status} that does not account for each of the {records} records"
        return Unavailable(exchange, latency_ms, why)
    return Booked(exchange, latency_ms, status, booking.accepted, booking.duplicates, rejected)


def _named(said: Any, records: int) -> list[RecordRejection]:
    """The records that a refusal names as those at fault; empty when it names none that can be."""
    try:
        refusal = _Refusal.model_validate(said)
    except ValidationError:
        return []
    return _rejected(refusal.rejected or refusal.errors, records) or []


def _rejected(named: list[_Named], records: int) -> list[RecordRejection] | None:
    """These, in the order of the batch; None when it has not so many records, or one is named twice."""
    by_index = {one.index: one for one in named}
    if len(by_index) != len(named) or any(index >= records for index in by_index):
        return None
    return [
        RecordRejection(index=index, code=one.code, message=one.message)
        for index, one in sorted(by_index.items())
    ]


def _without(hidden: Callable[[str], str], one: RecordRejection) -> RecordRejection:
    code, message = (hidden(one[name])[:_REJECTION_CHARACTERS] for name in ("code", "message"))
    return {**one, "code": code, "message": message}


def _message(status: int, said: Any, hidden: Callable[[str], str]) -> str:
    """``status`` and what the answer says about it, if it says anything."""
    message = said.get("message") if isinstance(said, dict) else None
    text = hidden(message) if isinstance(message, str) else ""
    return f"{status} {text}".strip()[:_MESSAGE_CHARACTERS]
