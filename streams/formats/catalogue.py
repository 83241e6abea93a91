"""Formats: for each what frames a file of it and what reads its records."""

from schemas.descriptor import Descriptor
from schemas.errors import UsageError
from schemas.profile import Profile
from streams.formats.elements import XmlRows
from streams.formats.framing import Framer, Framing
from streams.formats.grammar import Dialect
from streams.formats.markup import XmlFramer
from streams.formats.positions import FixedRows
from streams.formats.rows import DelimitedRows, Rows
from streams.formats.wide import OTHER, WideFramer

_ROWS: dict[str, type[DelimitedRows | FixedRows | XmlRows]] = {
    "csv": DelimitedRows,
    "tsv": DelimitedRows,
    "fixed": FixedRows,
    "xml": XmlRows,
}


def rows(descriptor: Descriptor) -> Rows:
    """What reads the records of a file."""
    return _ROWS[descriptor.format](descriptor)


def framer(
    profile: Profile, encoding: str, limit: int, *, position: int = 0, number: int = 0, pending: int = 0
) -> Framing:
    """A framer for records of up to ``limit`` bytes, from the start or from where a checkpoint says.

    ``encoding`` is a file's own, so one of UTF-16's two byte orders and never just ``utf-16``. Raises
    :class:`UsageError` where what tells fields or records apart cannot be written in it.
    """
    wide = encoding in ("utf-16-le", "utf-16-be")
    units = "latin-1" if wide else encoding

    def make(limit: int, position: int, number: int, pending: int) -> Framing:
        if profile.xml:
            names = [_written(name, units) for name in profile.xml.record]
            return XmlFramer(names, limit, position=position, number=number, pending=pending)
        dialect = Dialect(*(_written(s, units) for s in (profile.delimiter, profile.quote, profile.comment)))
        return Framer(dialect, limit, position=position, number=number, pending=pending)

    if not wide:
        return make(limit, position, number, pending)
    little = encoding == "utf-16-le"
    return WideFramer(make, limit, little=little, position=position, number=number, pending=pending)


def _written(text: str, encoding: str) -> bytes:
    try:
        written = text.encode(encoding)
    except UnicodeEncodeError:
        written = bytes([OTHER])
    if encoding == "latin-1" and bytes([OTHER]) in written:
        raise UsageError(f"{text!r} cannot tell records apart in this encoding", remedy="change the profile")
    return written
