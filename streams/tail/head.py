"""What the first bytes of a file tell: its encoding, its header row, where its records begin. Pure."""

import csv
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE, lookup
from typing import NamedTuple

from schemas.errors import UsageError
from schemas.profile import Profile, is_readable
from streams.formats.framers import framer
from streams.formats.wide import narrow

#: Within so many bytes a file has to show its header, or its first record where it has none.
SIZE = 262_144

_MARKS = {BOM_UTF8: "utf-8", BOM_UTF16_LE: "utf-16-le", BOM_UTF16_BE: "utf-16-be"}
_DECLARED = re.compile(
    rb"<\?xml\s+version\s*=\s*[\"'][^\"'<>]*[\"']\s+encoding\s*=\s*[\"']([A-Za-z][\w.-]*)[\"']"
)
_PROLOG = re.compile(rb"(?:\s++|<!--(?:[^-]++|-(?!-))*+-->|<\?(?:[^?]++|\?(?!>))*+\?>)*+")
_TAG = re.compile(rb"<[^\s<>/!?]")


class Head(NamedTuple):
    """``start`` is the offset of the first line that is not the header's or before it."""

    encoding: str
    header: tuple[str, ...]
    start: int


def examine(data: bytes, profile: Profile, where: str, *, final: bool) -> Head | None:
    """Judge the first bytes of a file, :data:`SIZE` of them if it has so many.

    None when its header is not there yet; with ``final`` none will come. Raises :class:`UsageError` for what
    is not text, has no header, or has headings that the profile does not know.
    """
    if final and not data:
        raise UsageError("the file is empty", where=where)
    if not data or (len(data) < 4 and not final):
        return None  # a byte order mark may be in two parts
    try:
        encoding, begin = _encoding(data, profile)
        final = final or len(data) >= SIZE
        if profile.xml:
            return _examine_markup(data[begin:], profile, Head(encoding, (), begin), final=final)
        if not profile.header:
            return Head(encoding, (), begin)
        return _examine_lines(data[begin:], profile, encoding, begin, final=final)
    except UsageError as error:
        raise UsageError(error.what, where=where, remedy=error.remedy) from None


def _encoding(data: bytes, profile: Profile) -> tuple[str, int]:
    """The file's own, and how many bytes say so at its start."""
    if data.startswith((BOM_UTF32_LE, BOM_UTF32_BE)):
        raise UsageError("files in UTF-32 cannot be read", remedy="give it in UTF-8")
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding, len(mark)
    name = lookup(profile.encoding).name
    if profile.xml:
        return _encoding_of_markup(data, name), 0
    if name == "utf-16":
        raise UsageError(
            "no byte order mark", remedy='its profile has to say encoding = "utf-16-le" or "utf-16-be"'
        )
    _refuse_binary(data, name)
    return _own_name(name), 0


def _encoding_of_markup(data: bytes, default: str) -> str:
    if data.startswith(b"<\0"):
        return "utf-16-le"
    if data.startswith(b"\0<"):
        return "utf-16-be"
    _refuse_binary(data, "utf-8")
    declared = _DECLARED.match(data)
    name = declared[1].decode() if declared else default
    if not is_readable(name) or lookup(name).name.startswith("utf-16"):
        raise UsageError(f"files in {name} cannot be read, or it is not {name}", remedy="give it in UTF-8")
    return _own_name(lookup(name).name)


def _own_name(codec: str) -> str:
    # The byte order mark is before the first record, not in it, and that codec is slow.
    return "utf-8" if codec == "utf-8-sig" else codec


def _refuse_binary(data: bytes, encoding: str) -> None:
    # Only of the first line: further on a NUL is the fault of one record, which is rejected alone.
    if not encoding.startswith("utf-16") and b"\0" in data.partition(b"\n")[0]:
        raise UsageError(
            "not a text file: it holds NUL bytes",
            remedy='give text; for UTF-16 without byte order mark its profile says encoding = "utf-16-le"',
        )


def _examine_lines(data: bytes, profile: Profile, encoding: str, begin: int, *, final: bool) -> Head | None:
    framed = framer(profile, encoding, SIZE, position=begin).feed(data, final=final)
    if not framed.count:
        if final or framed.oversized:
            raise UsageError("no header row", remedy="the first line has to name the columns")
        return None
    line = framed.records[0]
    header = _fields(line, encoding, profile)
    profile.layout(header)
    return Head(encoding, header, int(framed.offsets[0]) + len(line))


def _fields(line: bytes, encoding: str, profile: Profile) -> tuple[str, ...]:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"the header row is not {encoding}: {error.reason}") from None
    text = text.rstrip("\r\n")
    if not profile.quote:
        return tuple(text.split(profile.delimiter))
    try:
        return tuple(next(csv.reader([text], delimiter=profile.delimiter, quotechar=profile.quote)))
    except csv.Error as error:
        why = "it has a carriage return in its middle" if "\r" in text else error
        raise UsageError(f"the header row cannot be split: {why}") from None


def _examine_markup(data: bytes, profile: Profile, head: Head, *, final: bool) -> Head | None:
    """See that it is a document, without document type, and that it has records."""
    if head.encoding.startswith("utf-16"):
        data = narrow(data[: len(data) & ~1], little=head.encoding == "utf-16-le")
    prolog = _PROLOG.match(data)
    root = data[prolog.end() :] if prolog else data
    if root[:9] == b"<!DOCTYPE":
        raise UsageError(
            "the document has a document type (<!DOCTYPE), which could define entities",
            remedy="have it exported without one",
        )
    if not _TAG.match(root):
        if final or (root and not root.startswith(b"<")):
            raise UsageError("not an XML document", remedy="is it of another format?")
        return None
    framed = framer(profile, _units(head.encoding), SIZE).feed(data, final=final)
    if framed.count or framed.oversized or (final and len(_TAG.findall(root)) == 1):
        return head
    if final:
        names = ", ".join(f"<{name}>" for name in profile.xml.record) if profile.xml else ""
        raise UsageError(f"no {names} in its first {len(data)} bytes", remedy="see xml.record in its profile")
    return None


def _units(encoding: str) -> str:
    """The encoding of what :func:`streams.formats.wide.narrow` gives."""
    return "latin-1" if encoding.startswith("utf-16") else encoding
