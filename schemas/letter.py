"""Dead letters and receipts: where a record or a batch ended, with everything needed to judge and mend it."""

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationInfo
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from schemas.batch import Headers, Source


class Reason(TypedDict):
    """One rule that a record breaks: the field, its value as it stood, the rule in words."""

    field: str
    value: str
    rule: str


class Exchange(TypedDict):
    """The HTTP exchange that a delivery ended with, secrets removed."""

    method: str
    url: str
    status: NotRequired[int]
    request_headers: dict[str, str]
    response_headers: NotRequired[dict[str, str]]
    response_body: NotRequired[str]
    error: NotRequired[str]


class Place(BaseModel):
    """Where a raw record stood: file, byte offset, record number; and its raw partition and offset."""

    descriptor: str = ""  #: 32 hex digits
    path: str = ""
    offset: int = 0
    number: int = 0
    partition: int
    raw_offset: int


def now() -> str:
    """The current time, RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _decoded(value: Any, info: ValidationInfo) -> Any:
    return b64decode(value, validate=True) if info.mode == "json" else value


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
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["record", "batch"]
    stage: Literal["tail", "validate", "dispatch"]
    reason: str  #: short and stable, for filters: invalid, unencodable, quarantined, refused, …
    reasons: list[Reason] = []
    original: Original
    record_type: str = ""
    placement_hash: str = ""
    idempotency_key: str = ""
    place: Place | None = None
    source: Source | None = None
    records: int = 1
    traceback: str = ""
    exchange: Exchange | None = None
    attempts: int = 0
    first_failure: str
    last_failure: str
    retry_count: int = 0  #: redrives that failed
    under_way: str = ""  #: since when a redrive is; the outcome of that redrive ends the letter or renews it
    part: str = ""  #: ``n/m`` of a letter too large for one message; each part has a piece of ``original``
    headers: dict[str, str] = {}  #: of the batch, so that a redrive sends what was sent

    def dump(self) -> bytes:
        """The JSON value for the topic."""
        return self.model_dump_json(exclude_defaults=True).encode()

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


class RecordRejection(TypedDict):
    """One entry of a 207 answer."""

    index: int
    code: str
    message: str


class Receipt(BaseModel):
    """The value on ``avstar.receipts`` (JSON): how a batch ended."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["delivered", "dead_lettered", "redriven", "discarded"]
    batch_id: str
    source: Source
    records: int
    http_status: int = 0
    attempts: int = 1
    latency_ms: int = 0  #: of the last attempt
    breaker: Literal["closed", "half-open"] = "closed"  #: at the last attempt; half-open: it was a probe
    accepted: int = 0
    duplicates: int = 0
    rejected: list[RecordRejection] = []
    dlq: list[str] = []  #: keys of the dead letters that this outcome wrote
    parts: list[str] = []  #: keys under which a batch that was refused as a whole was sent in parts
    from_letters: bool = False  #: the batch was made of single records' dead letters, by a redrive
    replay: str = ""  #: of the replay that sent the batch again
    place: Place | None = None  #: of the single record whose dead letter was discarded
    why: str = ""
    at: str

    def dump(self) -> bytes:
        """The JSON value for the topic."""
        return self.model_dump_json(exclude_defaults=True).encode()
