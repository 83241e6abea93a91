"""The canonical batch: one Kafka message that is one request to Avstar, fixed before the first attempt.

The body is a pure function of the ordered records, so a retry, a rebalance, a redrive and a replay send the
same bytes under the same key. Where the records came from travels in the headers, never in the body.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import orjson
from isal import igzip, isal_zlib

from schemas import airing
from schemas.hashes import idempotency_key

Headers = list[tuple[str, bytes]]

#: More than a batch has, whatever the settings: 10,000 records, and the first once more for each redrive.
MOST_RECORDS = 20_000

#: Of a body before compression: twice what a batch of as many records with every text at its longest has.
_MOST_BYTES = 134_217_728

_PLACEMENT = re.compile("[0-9a-f]{64}")

_GZIP = 31  #: zlib's number for it, with the largest window

_JSON, _MULTIPART = "application/json", "multipart/form-data"
_RECORDS_PART = b'name="records"\r\nContent-Type: application/x-ndjson\r\n\r\n'


class Upload(NamedTuple):
    """How batches travel: ``auto`` is multipart for records above ``multipart_above_bytes``."""

    strategy: Literal["auto", "json", "multipart"] = "auto"
    multipart_above_bytes: int = 4_194_304  #: of records, before compression


AUTO = Upload()

#: What travels beside the body: header → what it tells, as text.
HEADERS = {
    "batch-id": "the first half of the key",
    "records": "how many are in the batch",
    "content-type": "of the request",
    "content-encoding": "of the request",
    "upload": "`json` or `multipart`",
    "source-partition": "of `avion.raw`",
    "source-first": "first raw offset of the window",
    "source-last": "last raw offset of the window",
    "source-records": "raw records in the window",
    "source-offsets": "raw offsets of the batch's records, as runs relative to the first: `0-41,43-99`",
    "files": "ids of the files' descriptors, with commas",
    "kinds": "kinds of record, with commas",
    "appended-ms": "when the oldest raw record was appended, milliseconds since 1970",
    "airs": "how many of its scheduled spots air in which hour, UTC: `2026-03-01T11=120,2026-03-01T12=98`",
    "redrive-of": "of a redrive: the keys of the dead letters that it sends, with commas",
    "replay": "of a replay: its id",
    "rejected-before": "of a replay: indices of the records that Avstar had rejected, with commas",
}


class Source(NamedTuple):
    """The raw records of one window. Transaction markers and rejected records leave gaps in ``offsets``."""

    partition: int  #: of ``avion.raw``
    first: int  #: raw offset
    last: int  #: raw offset
    records: int  #: raw records from first to last
    offsets: str  #: of the batch's records, in order, as runs relative to ``first``: ``0-41,43-99``

    def check(self, records: int) -> None:
        """Raises ``ValueError`` unless it can be the source of a batch of so many records."""
        if not (0 <= self.partition < 1 << 31 and 0 <= self.first <= self.last < 1 << 63):
            raise ValueError("its source is no range of offsets")
        if not 0 <= records <= MOST_RECORDS:
            raise ValueError(f"{records} records are no batch's")
        stretches = self.stretches()
        if not all(self.first <= first <= last <= self.last for first, last in stretches):
            raise ValueError("source-offsets is not within its source")
        if sum(last - first + 1 for first, last in stretches) != records:
            raise ValueError("source-offsets does not name an offset for each record")

    def stretches(self) -> list[tuple[int, int]]:
        """The batch's records as (first, last) absolute raw offsets, each without a gap."""
        found: list[tuple[int, int]] = []
        for run in self.offsets.split(",") if self.offsets else ():
            start, _, end = run.partition("-")
            found.append((self.first + int(start), self.first + int(end or start)))
        return found

    def expand(self) -> list[int]:
        """The absolute raw offset of every record in the batch, by its index there."""
        return [offset for first, last in self.stretches() for offset in range(first, last + 1)]


def runs(offsets: Sequence[int], first: int) -> str:
    """``offsets`` (ascending) as runs relative to ``first``; what :meth:`Source.expand` reads back."""
    found: list[str] = []
    start = end = -1
    for offset in offsets:
        if offset == end + 1 and start >= 0:
            end = offset
            continue
        if start >= 0:
            found.append(_run(start - first, end - first))
        start = end = offset
    if start >= 0:
        found.append(_run(start - first, end - first))
    return ",".join(found)


def _run(start: int, end: int) -> str:
    return str(start) if start == end else f"{start}-{end}"


class Batch(NamedTuple):
    """One request: ``key`` (64 hex digits), ``batch_id`` (from it), compressed ``body``, record count."""

    key: str
    batch_id: str
    body: bytes
    records: int
    content_type: str = _JSON
    content_encoding: str = "gzip"

    @property
    def upload(self) -> Literal["json", "multipart"]:
        """The strategy that it was built with."""
        return "multipart" if self.content_type.startswith(_MULTIPART) else "json"

    def headers(
        self,
        source: Source,
        files: Sequence[str],
        kinds: Sequence[str],
        appended_ms: int,
        airs: Iterable[str] = (),
    ) -> Headers:
        """What travels beside the body on ``avstar.batches``; ``appended_ms``: the oldest raw time stamp.

        ``airs``: of each record, as :func:`schemas.airing.hour` has it.
        """
        return [
            ("batch-id", self.batch_id.encode()),
            ("records", b"%d" % self.records),
            ("content-type", self.content_type.encode()),
            ("content-encoding", self.content_encoding.encode()),
            ("upload", self.upload.encode()),
            ("source-partition", b"%d" % source.partition),
            ("source-first", b"%d" % source.first),
            ("source-last", b"%d" % source.last),
            ("source-records", b"%d" % source.records),
            ("source-offsets", source.offsets.encode()),
            ("files", ",".join(files).encode()),
            ("kinds", ",".join(kinds).encode()),
            ("appended-ms", b"%d" % appended_ms),
            (airing.HEADER, airing.header(airs, appended_ms).encode()),
        ]


def source_of(headers: dict[str, bytes]) -> Source:
    """Read the source range back from a batch's headers."""
    return Source(
        int(headers["source-partition"]),
        int(headers["source-first"]),
        int(headers["source-last"]),
        int(headers["source-records"]),
        headers["source-offsets"].decode(),
    )


def build(records: Sequence[tuple[str, bytes]], upload: Upload = AUTO) -> Batch:
    """Make the batch of ``records``: (placement hash, canonical JSON object) in order, at least one.

    Each record of the body is its canonical form with ``idempotency_key`` put in front, so no record is
    dumped twice. Compression carries no time stamp: the same records give the same bytes.
    """
    key = idempotency_key(placement for placement, _ in records)
    batch_id = key[:32]
    parts = [
        b"".join((b'{"idempotency_key":"', placement.encode(), b'",', body[1:]))
        for placement, body in records
    ]
    size = sum(map(len, parts))
    if upload.strategy == "json" or (upload.strategy == "auto" and size <= upload.multipart_above_bytes):
        body = b'{"batch_id":"%b","records":[%b]}' % (batch_id.encode(), b",".join(parts))
        return Batch(key, batch_id, _compressed(body), len(records))
    body = _multipart(batch_id.encode(), parts)
    return Batch(key, batch_id, _compressed(body), len(records), content_types(batch_id)[1])


def content_types(batch_id: str) -> tuple[str, str]:
    """What the body of a batch of this id may be: JSON, or multipart."""
    return _JSON, f"{_MULTIPART}; boundary={batch_id}"


def records_of(batch: Batch) -> list[dict[str, Any]]:
    """The records of ``batch`` as they are sent, in order. ``ValueError`` when it was not built here."""
    records = _parsed(plain(batch.body, batch.content_encoding), batch.upload)
    if not isinstance(records, list) or len(records) != batch.records or not all(map(_is_ours, records)):
        raise ValueError(f"the body does not hold {batch.records} records of ours")
    return records


def _parsed(body: bytes, upload: str) -> Any:
    if upload == "json":
        whole = orjson.loads(body)
        return whole.get("records") if isinstance(whole, dict) else None
    _, found, lines = body.partition(_RECORDS_PART)
    lines, ended, _ = lines.partition(b"\r\n")
    if not found or not ended:
        raise ValueError("no records part in the body")
    return [orjson.loads(line) for line in lines.split(b"\n")]


def _is_ours(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("record_type", ""), str):
        return False
    placement = record.get("idempotency_key")
    return isinstance(placement, str) and bool(_PLACEMENT.fullmatch(placement))


def plain(body: bytes, content_encoding: str) -> bytes:
    """``body`` as it is under its encoding. ``ValueError`` when it is not encoded so, or far too large."""
    if content_encoding != "gzip":
        return body
    unpacking = isal_zlib.decompressobj(wbits=_GZIP)
    try:
        unpacked: bytes = unpacking.decompress(body, _MOST_BYTES)
    except isal_zlib.error as error:  # type: ignore[misc] # isal's stub: an instance
        raise ValueError(f"not gzip: {error}") from None
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError(f"not gzip as a whole, or of more than {_MOST_BYTES} bytes")
    return unpacked


def _multipart(batch_id: bytes, parts: Sequence[bytes]) -> bytes:
    """The manifest, then the records as NDJSON. The boundary is the batch id: the same batch, the same body.

    No record can end a part: a delimiter begins with CR, and JSON has none.
    """
    return b"".join(
        (
            b"--%b\r\nContent-Disposition: form-data; " % batch_id,
            b'name="manifest"\r\nContent-Type: application/json\r\n\r\n',
            b'{"batch_id":"%b","records":%d}' % (batch_id, len(parts)),
            b"\r\n--%b\r\nContent-Disposition: form-data; " % batch_id,
            _RECORDS_PART,
            b"\n".join(parts),
            b"\r\n--%b--\r\n" % batch_id,
        )
    )


def _compressed(body: bytes) -> bytes:
    packed: bytes = igzip.compress(body, 1, mtime=0)
    return packed
