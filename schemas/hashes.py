"""The three hashes that identity rests on; all SHA-256, all lower-case hexadecimal outside this module."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

import orjson

Canonical = dict[str, str | int]


def canonical_json(record: Canonical) -> bytes:
    """The canonical form of a normalized record: RFC 8785 (JSON Canonicalization Scheme).

    Members sorted by name, no white space, UTF-8; empty fields are left out, so that a field added to a
    kind later leaves the hashes of today's records as they are. Values are text and whole numbers only,
    for which orjson writes exactly what RFC 8785 asks.
    """
    # A copy at its own size: keeping orjson's results as they are, with the kilobyte each was written in, was
    # measured at 6.8 us a record against 1.1 for copies.
    return bytes(memoryview(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)))


def canonical_json_all(records: Sequence[Canonical]) -> list[bytes]:
    """:func:`canonical_json` of each, in half the time: written as one array and cut between the objects."""
    objects = orjson.dumps(records, option=orjson.OPT_SORT_KEYS)[2:-2].split(b"},{")
    if len(objects) != len(records):  # there are none, or a text holds what we cut at
        return [canonical_json(record) for record in records]
    return [b"{%b}" % text for text in objects]


def placement_hash(canonical: bytes) -> str:
    """Of a record: over its canonical form, which holds its kind as ``record_type``."""
    return sha256(canonical).hexdigest()


def idempotency_key(placement_hashes: Iterable[str]) -> str:
    """Of a batch: over the placement hashes of its records (the 32 bytes of each), in order."""
    return sha256(bytes.fromhex("".join(placement_hashes))).hexdigest()


def rejection_key(descriptor: bytes, offset: int, original: bytes) -> str:
    """Of a rejected record's dead letter: over descriptor id, byte offset (8 bytes, big-endian) and bytes."""
    return sha256(b"".join((descriptor, offset.to_bytes(8, "big"), original))).hexdigest()
