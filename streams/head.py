"""What the first bytes of a file tell: its encoding, its header row, where its records begin. Pure."""

import csv
from codecs import BOM_UTF8
from typing import NamedTuple

from schemas.errors import UsageError
from schemas.profile import Profile
from streams.framing import Dialect, Framer

#: Within so many bytes a file has to show its header.
SIZE = 262_144


class Head(NamedTuple):
    """``start`` is the offset of the first line that is not the header's or before it."""

    encoding: str
    header: tuple[str, ...]
    dialect: Dialect
    start: int


def examine(data: bytes, profile: Profile, where: str, *, final: bool) -> Head | None:
    """Judge the first bytes of a file, :data:`SIZE` of them if it has so many.

    None when its header is not there yet; with ``final`` none will come. Raises :class:`UsageError` for what
    is not text, has no header, or has headings that the profile does not know.
    """
    # Only of the first line: further on a NUL is the fault of one record, which is rejected alone.
    if b"\0" in data.partition(b"\n")[0]:
        raise UsageError("not a text file: it holds NUL bytes", where=where, remedy="give CSV in UTF-8")
    if final and not data:
        raise UsageError("the file is empty", where=where)
    dialect = _dialect(profile, where)
    begin = len(BOM_UTF8) if data.startswith(BOM_UTF8) else 0
    encoding = "utf-8" if begin else profile.encoding
    if not profile.header:
        _layout(profile, (), where)
        return Head(encoding, (), dialect, begin) if data else None
    framer = Framer(dialect, SIZE, position=begin)
    framed = framer.feed(data[begin:], final=final)
    if not framed.records:
        if final or framed.oversized or len(data) >= SIZE:
            raise UsageError("no header row", where=where, remedy="the first line has to name the columns")
        return None
    line = framed.records[0]
    header = _fields(line, encoding, profile, where)
    _layout(profile, header, where)
    return Head(encoding, header, dialect, framed.offsets[0] + len(line))


def _dialect(profile: Profile, where: str) -> Dialect:
    encoding = profile.encoding
    if "\n,".encode(encoding) != b"\n,":
        raise UsageError(f"files in {encoding} cannot be read", where=where, remedy="give it in UTF-8")
    return Dialect(*(text.encode(encoding) for text in (profile.delimiter, profile.quote, profile.comment)))


def _fields(line: bytes, encoding: str, profile: Profile, where: str) -> tuple[str, ...]:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"the header row is not {encoding}: {error.reason}", where=where) from None
    text = text.rstrip("\r\n")
    if not profile.quote:
        return tuple(text.split(profile.delimiter))
    try:
        return tuple(next(csv.reader([text], delimiter=profile.delimiter, quotechar=profile.quote)))
    except csv.Error as error:
        raise UsageError(f"the header row cannot be split: {error}", where=where) from None


def _layout(profile: Profile, header: tuple[str, ...], where: str) -> None:
    try:
        profile.layout(header)
    except UsageError as error:
        raise UsageError(error.what, where=where, remedy=error.remedy) from None
