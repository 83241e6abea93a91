"""The canonical batch: one Kafka message that is one request to Avstar, fixed before the first attempt.

The body is a pure function of the ordered records, so a retry, a rebalance, a redrive and a replay send the
same bytes under the same key. Where the records came from travels in the headers, never in the body.
"""

from collections.abc import Sequence
from typing import NamedTuple

from isal import igzip

from schemas.hashes import idempotency_key

Headers = list[tuple[str, bytes]]


class Source(NamedTuple):
    """The raw records of one window: partition, first and last raw offset, and how many stand between.

    ``offsets`` names the raw offsets whose records are in the batch, in order, as runs
    (``"0-41,43-99"``, relative to ``first``): transaction markers and rejected records leave gaps.
    """

    partition: int
    first: int
    last: int
    records: int
    offsets: str

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
    content_type: str = "application/json"
    content_encoding: str = "gzip"

    def headers(
        self, source: Source, files: Sequence[str], kinds: Sequence[str], appended_ms: int
    ) -> Headers:
        """What travels beside the body on ``avstar.batches``; ``appended_ms``: the oldest raw time stamp."""
        return [
            ("batch-id", self.batch_id.encode()),
            ("records", b"%d" % self.records),
            ("content-type", self.content_type.encode()),
            ("content-encoding", self.content_encoding.encode()),
            ("upload", b"json"),
            ("source-partition", b"%d" % source.partition),
            ("source-first", b"%d" % source.first),
            ("source-last", b"%d" % source.last),
            ("source-records", b"%d" % source.records),
            ("source-offsets", source.offsets.encode()),
            ("files", ",".join(files).encode()),
            ("kinds", ",".join(kinds).encode()),
            ("appended-ms", b"%d" % appended_ms),
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


def build(records: Sequence[tuple[str, bytes]]) -> Batch:
    """Make the batch of ``records``: (placement hash, canonical JSON object) in order, at least one.

    Each record of the body is its canonical form with ``idempotency_key`` put in front, so no record is
    dumped twice. Compression carries no time stamp: the same records give the same bytes.
    """
    key = idempotency_key(placement for placement, _ in records)
    batch_id = key[:32]
    parts = [b'{"idempotency_key":"%b",%b' % (placement.encode(), body[1:]) for placement, body in records]
    body = b'{"batch_id":"%b","records":[%b]}' % (batch_id.encode(), b",".join(parts))
    return Batch(key, batch_id, igzip.compress(body, 1, mtime=0), len(records))
