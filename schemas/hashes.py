"""The three hashes that identity rests on; all SHA-256, all lower-case hexadecimal outside this module."""

from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final

import orjson

from schemas.columns import Columns, Pieces, joined, written
from schemas.memo import Memo

#: A normalized record, a field for each of its values.
Canonical = dict[str, str | int]

_REMEMBERED: Final = 1 << 14


def canonical_json(columns: Columns) -> list[bytes]:
    """The canonical form of each record: RFC 8785 (JSON Canonicalization Scheme).

    Members sorted by name, no white space, UTF-8; empty fields are left out, so that a field added to a
    kind later leaves the hashes of today's records as they are. Values are text and whole numbers up to
    2**53 only; the last field in that order is never empty.
    """
    *names, last = sorted(columns)
    pieces: Pieces = ["{"]
    pieces += [written(columns[name], partial(_members, name, ","), "") for name in names]
    pieces.append(written(columns[last], partial(_members, last, "}"), ""))
    return [text.encode("latin-1") for text in joined(pieces)]


def _members(name: str, end: str, values: Sequence[Any]) -> list[str]:
    if values and isinstance(values[0], int):
        return [f'"{name}":{value}{end}' for value in values]
    # Most columns are ASCII without anything that JSON escapes: one look at all of it.
    text = "".join(values)
    if text.isascii() and len(orjson.dumps(text)) == len(text) + 2:
        return [f'"{name}":"{value}"{end}' for value in values]
    return [f'"{name}":{_texts[value]}{end}' for value in values]


#: Text → JSON, in UTF-8 as Latin-1.
_texts: Memo[str, str] = Memo(lambda text: orjson.dumps(text).decode("latin-1"), _REMEMBERED)


def placement_hash(canonical: bytes) -> str:
    """Of a record: over its canonical form, which holds its kind as ``record_type``."""
    return sha256(canonical).hexdigest()


def idempotency_key(placement_hashes: Iterable[str]) -> str:
    """Of a batch: over the placement hashes of its records (the 32 bytes of each), in order."""
    return sha256(bytes.fromhex("".join(placement_hashes))).hexdigest()


def rejection_key(descriptor: bytes, offset: int, original: bytes) -> str:
    """Of a rejected record's dead letter: over descriptor id, byte offset (8 bytes, big-endian) and bytes."""
    return sha256(b"".join((descriptor, offset.to_bytes(8, "big"), original))).hexdigest()
