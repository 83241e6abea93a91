"""Faults that the sandbox plays by script: what strikes, how often, when, and whom.

A fault strikes at one of three moments of a request: ``headers`` (nothing of the body read yet), ``body``
(read and understood, nothing booked) or ``booked`` (booked and stored, nothing answered).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, Self
from zlib import crc32

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.letter import RecordRejection

Moment = Literal["headers", "body", "booked"]
Kind = Literal[
    "latency",  # the request waits `seconds`, then goes on
    "reset",  # the connection is reset (TCP RST)
    "lost_answer",  # booked, then the connection is reset
    "hang",  # no answer within `seconds`; then a reset
    "truncated",  # half an answer, then the connection ends
    "not_json",  # 200 with a page in HTML
    "slow",  # the answer comes byte by byte over `seconds`
    "status",  # `status`, with `retry_after` if it is given
    "reject",  # single records are rejected: a 207
    "no_dedupe",  # the sandbox forgets to look for duplicates
    "keys_only",  # it knows its keys, but books a record under each of them
]
_USUALLY_BOOKED = ("lost_answer", "truncated", "not_json", "slow")
#: What is done to the booking itself.
_OF_BOOKING: frozenset[Kind] = frozenset({"reject", "no_dedupe", "keys_only"})
_GOES_ON = _OF_BOOKING | {"latency"}
_WHOLE = 2**32


class Fault(BaseModel):
    """One fault. With ``field`` or ``hashes`` it strikes only requests that hold such a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    path: Literal["/v2/ingest", "/oauth/token"] = "/v2/ingest"
    at: Moment = "body"
    probability: float = Field(1.0, strict=True, ge=0, le=1, description="of striking a request")
    count: int | None = Field(None, strict=True, ge=1, description="strikes at the most")
    after_s: float = Field(0.0, strict=True, ge=0, description="not before, counted from the PUT")
    for_s: float | None = Field(None, strict=True, gt=0, description="not longer than")
    seconds: float = Field(0.0, strict=True, ge=0, description="of latency, hang and slow")
    status: int = Field(503, strict=True, ge=400, le=599)
    retry_after: int | None = Field(
        None, strict=True, ge=0, le=31_536_000, description="seconds, for the Retry-After header"
    )
    retry_after_form: Literal["seconds", "date"] = "seconds"
    field: str = Field("", description="a field of records…")
    value: str | Annotated[int, Field(strict=True)] = Field("", description="…and its value")
    hashes: frozenset[str] = Field(frozenset(), description="record hashes")
    names: bool = Field(False, description="whether `status` names the records that it struck for")
    record_probability: float = Field(
        1.0, strict=True, ge=0, le=1, description="share of records that `reject` takes"
    )
    code: str = "scripted"
    message: str = "a fault of the sandbox's script"

    @model_validator(mode="before")
    @classmethod
    def _usual_moment(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "at" in given:
            return given
        if given.get("path") == "/oauth/token":
            return given | {"at": "headers"}
        return given | {"at": "booked"} if given.get("kind") in _USUALLY_BOOKED else given

    @model_validator(mode="after")
    def _possible(self) -> Self:
        by_records = self.field or self.hashes
        if self.kind in _OF_BOOKING and self.at != "body":
            raise ValueError(f"{self.kind} happens at `body`")
        if by_records and self.at == "headers":
            raise ValueError("records are not known yet at `headers`")
        if self.path == "/oauth/token" and self.at != "headers":
            raise ValueError(f"{self.path} has only faults at `headers`")
        return self

    @property
    def ends_the_request(self) -> bool:
        """Whether the request gets no further than this fault."""
        return self.kind not in _GOES_ON

    def matches(self, record: Any, record_hash: bytes) -> bool:
        """Whether ``field`` or ``hashes`` name this record; with neither, every record is meant."""
        if self.hashes and record_hash.hex() in self.hashes:
            return True
        if self.field:
            return isinstance(record, dict) and record.get(self.field) == self.value
        return not self.hashes

    def named(self, records: Sequence[Any], hashes: Sequence[bytes]) -> list[RecordRejection]:
        """The records that a refusal of the whole batch names, if it names any."""
        return [
            {"index": index, "code": self.code, "message": self.message}
            for index, record in enumerate(records)
            if self.names and self.matches(record, hashes[index])
        ]

    def rejections(
        self, records: Sequence[Any], hashes: Sequence[bytes], seed: int
    ) -> Iterator[RecordRejection]:
        """The records that a ``reject`` takes out of a batch; drawn from the hash: always the same ones."""
        share = self.record_probability
        for index, record_hash in enumerate(hashes):
            if crc32(record_hash, seed) < share * _WHOLE and self.matches(records[index], record_hash):
                yield {"index": index, "code": self.code, "message": self.message}


class Script(BaseModel):
    """What ``PUT /sandbox/faults`` takes. The same seed and order of requests give the same strikes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, strict=True, ge=0, lt=_WHOLE)
    faults: tuple[Fault, ...] = ()


class Faults:
    """The script that is being played, with its counters. ``clock`` gives seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.play(Script())

    def play(self, script: Script) -> None:
        """Start ``script`` from its beginning."""
        self.script = script
        self._started = self._clock()
        self._hits = [0] * len(script.faults)
        self._dice = [random.Random(f"{script.seed}/{number}") for number in range(len(script.faults))]

    def report(self) -> dict[str, Any]:
        """The script as JSON, each fault with its ``hits``."""
        played = self.script.model_dump(mode="json")
        for fault, hits in zip(played["faults"], self._hits, strict=True):
            fault["hits"] = hits
        return played

    def strike(
        self, path: str, at: Moment, records: Sequence[Any] = (), hashes: Sequence[bytes] = ()
    ) -> list[Fault]:
        """The faults that strike a request at this moment; at most one, the last, ends it."""
        struck: list[Fault] = []
        passed = self._clock() - self._started
        for number, fault in enumerate(self.script.faults):
            if fault.path != path or fault.at != at or not self._due(number, fault, passed):
                continue
            if (fault.field or fault.hashes) and not any(map(fault.matches, records, hashes)):
                continue
            if self._dice[number].random() >= fault.probability:
                continue
            self._hits[number] += 1
            struck.append(fault)
            if fault.ends_the_request:
                break
        return struck

    def _due(self, number: int, fault: Fault, passed: float) -> bool:
        used_up = fault.count is not None and self._hits[number] >= fault.count
        over = fault.for_s is not None and passed >= fault.after_s + fault.for_s
        return not used_up and not over and passed >= fault.after_s
