"""The three hashes that identity rests on; all SHA-256, all lower-case hexadecimal outside this module."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import repeat
from typing import Any, Final

import orjson

#: A normalized record, a field for each of its values.
Canonical = dict[str, str | int]
#: Normalized records of one kind, field by field: name → a value for each record, None where it has none.
Columns = Mapping[str, Sequence[Any]]

_REMEMBERED: Final = 1 << 14


def canonical_json(columns: Columns) -> list[bytes]:
    """The canonical form of each record: RFC 8785 (JSON Canonicalization Scheme).

    Members sorted by name, no white space, UTF-8; empty fields are left out, so that a field added to a
    kind later leaves the hashes of today's records as they are. Values are text and whole numbers up to
    2**53 only; the last field in that order is never empty.
    """
    # Put together as Latin-1 text, a character for each byte of UTF-8: that is joined and encoded fastest.
    pieces: list[str | Iterable[str]] = ["{"]
    *names, last = sorted(columns)
    for name in names:
        pieces += _members(name, columns[name])
    pieces += [*_member(last, columns[last]), "}"]
    return [text.encode("latin-1") for text in joined(pieces)]


def joined(pieces: Sequence[str | Iterable[str]]) -> Iterator[str]:
    """Texts put together of pieces side by side: of each column its next value, of a text the whole."""
    columns: list[Iterable[str]] = []
    constant = ""
    for piece in pieces:
        if isinstance(piece, str):
            constant += piece
        else:
            columns += [repeat(constant), piece] if constant else [piece]
            constant = ""
    return map("".join, zip(*columns, repeat(constant), strict=False))


def _members(name: str, values: Sequence[Any]) -> list[str | Iterable[str]]:
    """A column as members, each with a comma behind it, or nothing where it is empty."""
    if None not in values:
        return [*_member(name, values), ","]
    written = joined([*_member(name, [value for value in values if value is not None]), ","])
    return [["" if value is None else next(written) for value in values]]


def _member(name: str, values: Sequence[Any]) -> list[str | Iterable[str]]:
    if values and isinstance(values[0], int):
        return [f'"{name}":', map(str, values)]
    # Most columns are ASCII without anything that JSON escapes: one look at all of it.
    text = "".join(values)
    if text.isascii() and len(orjson.dumps(text)) == len(text) + 2:
        return [f'"{name}":"', values, '"']
    return [f'"{name}":', map(_texts.__getitem__, values)]


class _Texts(dict[str, str]):
    """Text → JSON, in UTF-8 as Latin-1; bounded."""

    def __missing__(self, text: str) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[text] = written = orjson.dumps(text).decode("latin-1")
        return written


_texts = _Texts()


def placement_hash(canonical: bytes) -> str:
    """Of a record: over its canonical form, which holds its kind as ``record_type``."""
    return sha256(canonical).hexdigest()


def idempotency_key(placement_hashes: Iterable[str]) -> str:
    """Of a batch: over the placement hashes of its records (the 32 bytes of each), in order."""
    return sha256(bytes.fromhex("".join(placement_hashes))).hexdigest()


def rejection_key(descriptor: bytes, offset: int, original: bytes) -> str:
    """Of a rejected record's dead letter: over descriptor id, byte offset (8 bytes, big-endian) and bytes."""
    return sha256(b"".join((descriptor, offset.to_bytes(8, "big"), original))).hexdigest()
