"""Dead letters and receipts: where a record or a batch ended, with everything needed to judge and mend it."""

import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from schemas.batch import MOST_RECORDS, Headers, Source

#: ``n/m``; a letter has no more parts than four digits tell.
_PART = re.compile(r"([0-9]{1,4})/([0-9]{1,4})", re.ASCII)


class Reason(TypedDict):
    """One rule that a record breaks: the field, its value as it stood, the rule in words."""

    field: str  #: the export's column; empty: the record as a whole
    value: str  #: as it stood, cut when it is long
    rule: str  #: what it must be


class Exchange(TypedDict):
    """The HTTP exchange that a delivery ended with, secrets removed."""

    method: str  #: always POST
    url: str  #: of the ingest API
    status: NotRequired[int]  #: absent where no answer came
    request_headers: dict[str, str]  #: secrets shown as ``***``
    response_headers: NotRequired[dict[str, str]]  #: secrets shown as ``***``
    response_body: NotRequired[str]  #: its beginning
    error: NotRequired[str]  #: of the network, where no answer came


class Place(BaseModel):
    """Where a raw record stood: file, byte offset, record number; and its raw partition and offset."""

    descriptor: str = Field("", pattern=r"^([0-9a-f]{32})?$")  #: id of the file's descriptor, 32 hex digits
    path: str = ""  #: of the file, or ``feed:NAME``
    offset: int = Field(0, ge=0, lt=1 << 63)  #: of the record's first byte in the file
    number: int = Field(0, ge=0, lt=1 << 63)  #: of the record in the file, from 1
    partition: int = Field(ge=-1, lt=1 << 31)  #: of ``avion.raw``
    raw_offset: int = Field(ge=-1, lt=1 << 63)  #: on that partition; -1 for a record that never came there


def now() -> str:
    """The current time, as :func:`stamp` has it."""
    return stamp(datetime.now(UTC))


def stamp(at: datetime) -> str:
    """A moment, aware: RFC 3339, UTC, milliseconds. Of two texts the later moment's is the greater."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check_moments(*texts: str) -> None:
    for text in texts:
        if text and datetime.fromisoformat(text).tzinfo is None:
            raise ValueError(f"{text} has no time zone")


def _decoded(value: Any, info: ValidationInfo) -> Any:
    if info.mode != "json":
        return value
    if not isinstance(value, str):
        raise ValueError("no text in base64")  # noqa: TRY004 - pydantic takes this one
    return b64decode(value, validate=True)


#: Bytes in Python, standard base64 in JSON (pydantic's own is the URL-safe one, which few tools expect).
Original = Annotated[
    bytes,
    BeforeValidator(_decoded),
    PlainSerializer(lambda value: b64encode(value).decode(), return_type=str, when_used="json"),
]


class DeadLetter(BaseModel):
    """The value on ``avstar.dlq`` (JSON). ``original`` is base64 of the bytes as they stood.

    ``kind`` is ``record`` for a rejected record, keyed by :func:`schemas.hashes.rejection_key`, and ``batch``
    for a batch whose delivery was given up, keyed by its idempotency key; ``original`` is the request body.
    A message that is no batch has a letter as if it were a record: for the descriptor stands its key.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["record", "batch"]  #: what failed
    stage: Literal["tail", "validate", "dispatch"]  #: where it failed
    reason: str  #: short and stable, for filters: invalid, unencodable, quarantined, refused, …
    reasons: list[Reason] = []  #: every rule that is broken, or what Avstar said
    original: Original  #: base64 of the record's bytes as they stood, or of the request body
    record_type: str = ""  #: its kind, or what stood for it
    placement_hash: str = ""  #: of a record that was valid and that Avstar rejected
    idempotency_key: str = ""  #: of the batch that it was in, or is; the key of a message that is none
    place: Place | None = None  #: of a single record
    source: Source | None = None  #: of a batch
    records: int = Field(1, ge=0, le=MOST_RECORDS)  #: how many are in it
    traceback: str = ""  #: of a record that made the code raise
    exchange: Exchange | None = None  #: with Avstar, the last one
    attempts: int = Field(0, ge=0, lt=1 << 53)  #: how often it was tried
    first_failure: str  #: RFC 3339, UTC
    last_failure: str  #: RFC 3339, UTC
    retry_count: int = Field(0, ge=0, lt=1 << 31)  #: redrives that failed
    under_way: str = ""  #: since when a redrive is; the outcome of that redrive ends the letter or renews it
    part: str = ""  #: ``n/m`` of a letter too large for one message; each part has a piece of ``original``
    headers: dict[str, str] = {}  #: of a batch, so that a redrive sends what was sent

    def dump(self) -> bytes:
        """The JSON value for the topic."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def load(cls, value: bytes | None) -> "DeadLetter":
        """Read a value of the topic; raises ``ValueError`` when it is none that we write."""
        letter = cls.model_validate_json(value or b"")
        _check_moments(letter.first_failure, letter.last_failure, letter.under_way)
        if letter.part and not _is_part(letter.part):
            raise ValueError("its part is none")
        if letter.kind == "record" and letter.place is None:
            raise ValueError("a record without its place")
        return letter

    def connect_headers(self, topic: str) -> Headers:
        """Kafka Connect's error headers, so that tools made for its dead-letter queues read ours."""
        partition = self.place.partition if self.place else self.source.partition if self.source else -1
        offset = self.place.raw_offset if self.place else self.source.first if self.source else -1
        message = "; ".join(f"{r['field']}: {r['rule']}" for r in self.reasons) or self.reason
        return [
            ("__connect.errors.topic", topic.encode()),
            ("__connect.errors.partition", b"%d" % partition),
            ("__connect.errors.offset", b"%d" % offset),
            ("__connect.errors.connector.name", b"spotstream"),
            ("__connect.errors.task.id", b"0"),
            ("__connect.errors.stage", self.stage.encode()),
            ("__connect.errors.class.name", f"spotstream.{self.reason}".encode()),
            ("__connect.errors.exception.class.name", f"spotstream.{self.reason}".encode()),
            ("__connect.errors.exception.message", message.encode()),
            ("__connect.errors.exception.stacktrace", self.traceback.encode()),
        ]


def _is_part(text: str) -> bool:
    found = _PART.fullmatch(text)
    return found is not None and 1 <= int(found[1]) <= int(found[2])


class RecordRejection(TypedDict):
    """One entry of a 207 answer."""

    index: int  #: of the record in the batch, from 0
    code: str  #: Avstar's
    message: str  #: Avstar's


class Receipt(BaseModel):
    """The value on ``avstar.receipts`` (JSON): how a batch ended."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["delivered", "dead_lettered", "redriven", "discarded"]  #: the outcome
    batch_id: str  #: the first half of the idempotency key
    source: Source  #: the raw records of its window
    records: int = Field(ge=0, le=MOST_RECORDS)  #: in the batch
    http_status: int = 0  #: of the last answer; 0: there was none
    attempts: int = 1  #: requests that it took
    latency_ms: int = 0  #: of the last attempt
    breaker: Literal["closed", "half-open"] = "closed"  #: at the last attempt; half-open: it was a probe
    accepted: int = Field(0, ge=0, le=MOST_RECORDS)  #: records that are booked by it, or were under its key
    duplicates: int = Field(0, ge=0, le=MOST_RECORDS)  #: records that Avstar knew already
    rejected: list[RecordRejection] = []  #: records that Avstar refused, each a dead letter
    dlq: list[str] = []  #: keys of the dead letters that this outcome wrote
    parts: list[str] = []  #: keys under which a batch that was refused as a whole was sent in parts
    from_letters: bool = False  #: the batch was made of single records' dead letters, by a redrive
    replay: str = ""  #: of the replay that sent the batch again
    place: Place | None = None  #: of the single record whose dead letter was discarded
    why: str = ""  #: of a discarded one: the reason that was given
    at: str  #: RFC 3339, UTC

    @property
    def booked(self) -> tuple[int, int]:
        """Records that are booked by it, and that Avstar knew already.

        A replay's it knew: to a key that it knows, Avstar says what it said the first time.
        """
        return (0, self.accepted + self.duplicates) if self.replay else (self.accepted, self.duplicates)

    def dump(self) -> bytes:
        """The JSON value for the topic."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def load(cls, value: bytes | None) -> "Receipt":
        """Read a value of the topic; raises ``ValueError`` when it is none that we write."""
        receipt = cls.model_validate_json(value or b"")
        _check_moments(receipt.at)
        if receipt.status != "discarded":
            receipt.source.check(receipt.records)
        if not all(0 <= rejection["index"] < receipt.records for rejection in receipt.rejected):
            raise ValueError("it names records that are not there")
        return receipt
