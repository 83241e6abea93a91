"""A request to ``/v2/ingest`` as it comes off the wire: JSON or multipart, plain or gzip, always bounded."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from isal import isal_zlib

from schemas.letter import RecordRejection
from streams.lab.ledger import HASH_BYTES
from streams.lab.refusal import Refusal

_GZIP = 31  # window bits: 15, with gzip's header and trailer
_MANIFEST_BYTES = 65_536


class Upload(NamedTuple):
    """A batch. ``hashes`` (32 bytes) stand beside ``records``; a malformed record has b"" and a rejection."""

    batch_id: str
    records: list[Any]
    hashes: list[bytes]
    rejected: list[RecordRejection]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the record hashes in order, hex: what makes two requests under one key the same."""
        return sha256(b"".join(self.hashes)).hexdigest()


async def read(request: web.Request, *, max_bytes: int, max_records: int) -> Upload:
    """Read and check a batch; a :class:`Refusal` (400, 413, 415, 422) when it is none.

    ``max_bytes`` bounds what is in memory, after decompression.
    """
    encoding = _encoding(request.headers.get("Content-Encoding", ""))
    if request.content_type == "application/json":
        body = await _decoded(request.content.readany, encoding, max_bytes)
        batch_id, records = _batch(_json(body, "the body"))
    elif request.content_type == "multipart/form-data":
        content = request.content
        if encoding == "gzip":
            content = _stream(await _decoded(request.content.readany, encoding, max_bytes))
        batch_id, records = await _multipart(request.headers, content, max_bytes)
    else:
        raise Refusal(415, "unsupported_media_type", "send application/json or multipart/form-data")
    if not records:
        raise Refusal(422, "empty_batch", "a batch holds at least one record")
    if len(records) > max_records:
        raise Refusal(413, "too_many_records", f"a batch holds {max_records} records at the most")
    return Upload(batch_id, records, *_hashes(records))


async def _multipart(
    headers: Mapping[str, str], content: StreamReader, max_bytes: int
) -> tuple[str, list[Any]]:
    """A ``manifest`` (JSON: batch_id, records: how many), then ``records`` (NDJSON)."""
    try:
        parts = MultipartReader(headers, content)
        manifest = _json(await _part(parts, "manifest", _MANIFEST_BYTES), "the manifest")
        lines = await _part(parts, "records", max_bytes)
        if await parts.next() is not None:
            raise Refusal(400, "malformed", "a part too many")
    except (ValueError, HttpProcessingError) as error:
        raise Refusal(400, "malformed", f"not multipart: {error}") from None
    records = _ndjson(lines)
    if not isinstance(manifest, dict) or manifest.get("records", len(records)) != len(records):
        raise Refusal(422, "count_mismatch", f"{len(records)} records are not what the manifest says")
    return _batch(manifest | {"records": records})


async def _part(parts: MultipartReader, name: str, max_bytes: int) -> bytes:
    part = await parts.next()
    if not isinstance(part, BodyPartReader) or part.name != name:
        raise Refusal(400, "malformed", f"the part {name} is not where it should be")
    return await _decoded(part.read_chunk, "", max_bytes)


async def _decoded(chunk: Callable[[], Awaitable[bytes]], encoding: str, max_bytes: int) -> bytes:
    """All chunks, decompressed as they come: a bomb is refused when it passes ``max_bytes``, not later."""
    unpack = isal_zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    pieces: list[bytes] = []
    left = max_bytes
    while packed := await chunk():
        try:
            piece = unpack.decompress(packed, left + 1) if unpack else packed
        except isal_zlib.error as error:  # type: ignore[misc] # isal's stub declares it an instance
            raise Refusal(400, "malformed", f"not gzip: {error}") from None
        left -= len(piece)
        if left < 0:
            raise Refusal(413, "too_large", f"more than {max_bytes} bytes")
        pieces.append(piece)
    if unpack and (not unpack.eof or unpack.unused_data):
        raise Refusal(400, "malformed", "not one whole gzip member")
    return b"".join(pieces)


def _encoding(header: str) -> str:
    encoding = header.strip().lower()
    if encoding not in {"", "identity", "gzip"}:
        raise Refusal(415, "unsupported_encoding", "send gzip or no Content-Encoding")
    return encoding


def _stream(body: bytes) -> StreamReader:
    """``body`` as something that :class:`MultipartReader` reads."""
    loop = asyncio.get_running_loop()
    stream = StreamReader(BaseProtocol(loop), len(body), loop=loop)  # a limit that never pauses the protocol
    stream.feed_data(body)
    stream.feed_eof()
    return stream


def _json(body: bytes, what: str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "malformed", f"{what} is not JSON: {error}") from None


def _ndjson(lines: bytes) -> list[Any]:
    rows = enumerate(lines.split(b"\n"), 1)
    return [_json(row, f"line {number} of the records") for number, row in rows if row.strip()]


def _batch(batch: Any) -> tuple[str, list[Any]]:
    if not isinstance(batch, dict) or not isinstance(batch.get("records"), list):
        raise Refusal(400, "malformed", "the body must be an object with a list of records")
    batch_id = batch.get("batch_id")
    if not isinstance(batch_id, str) or not batch_id:
        raise Refusal(400, "malformed", "batch_id is missing")
    return batch_id, batch["records"]


def _hashes(records: list[Any]) -> tuple[list[bytes], list[RecordRejection]]:
    """The records' hashes and what is wrong with them, all at once where nothing is."""
    try:
        keys = [record["idempotency_key"] for record in records]
        packed = bytes.fromhex("".join(keys))
        kinds = {record["record_type"] for record in records}
    except (LookupError, TypeError, ValueError):
        return _hashes_one_by_one(records)
    whole = set(map(len, keys)) == {2 * HASH_BYTES} and len(packed) == HASH_BYTES * len(keys)
    if not whole or not all(isinstance(kind, str) and kind for kind in kinds):
        return _hashes_one_by_one(records)
    return [packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)], []


def _hashes_one_by_one(records: list[Any]) -> tuple[list[bytes], list[RecordRejection]]:
    hashes: list[bytes] = []
    rejected: list[RecordRejection] = []
    for index, record in enumerate(records):
        try:
            record_hash = bytes.fromhex(record["idempotency_key"])
            code = "" if len(record_hash) == HASH_BYTES else "invalid_idempotency_key"
        except (LookupError, TypeError, ValueError):
            record_hash, code = b"", "invalid_idempotency_key"
        if not code and not (isinstance(record.get("record_type"), str) and record["record_type"]):
            code = "invalid_record_type"
        hashes.append(b"" if code else record_hash)
        if code:
            rejected.append({"index": index, "code": code, "message": "missing or malformed"})
    return hashes, rejected
