"""Formats: for each what frames a file of it, apart from what reads its records: that takes Arrow, 28 MB."""

from schemas.errors import UsageError
from schemas.profile import Profile
from streams.formats.framing import Framer, Framing
from streams.formats.grammar import Dialect
from streams.formats.markup import XmlFramer
from streams.formats.wide import OTHER, WideFramer


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
