"""Lines, quotes and noise of delimited text, for blocks of it at a time. Pure.

Looking at each line by itself costs more than publishing it, so arrays tell the few lines that patterns have
to look at. Everything in the patterns is possessive: no input makes them backtrack.
"""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Lines that one record may span. A field that holds more line breaks was never meant to.
LINES = 1000

Ints = NDArray[np.int64]

_LF = 10


class Dialect(NamedTuple):
    """How fields are told apart, in the file's own bytes. Empty ``quote`` or ``comment``: there are none."""

    delimiter: bytes = b","
    quote: bytes = b'"'
    comment: bytes = b"#"


class Grammar:
    """What a dialect says of lines and records."""

    def __init__(self, dialect: Dialect) -> None:
        self.quote, self._comment, self._delimiter = dialect.quote, dialect.comment, dialect.delimiter
        mark, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
        blanks = [byte for byte in (b" ", b"\t") if byte != dialect.delimiter]
        noise = rb"[%b]*+\r?(?:\n|(?<!\n)\Z)" % b"".join(map(re.escape, blanks))
        if dialect.comment:
            noise = rb"(?:%b|%b)" % (re.escape(dialect.comment), noise)
        #: Whether a line is to be skipped.
        self.is_noise = re.compile(noise).match
        self._noisy = _table(*blanks, b"\r", b"\n", dialect.comment[:1])
        if not dialect.quote:
            return
        # What stands before a quote that opens, and after one that closes, where all is as it should be.
        self._before = _table(dialect.quote, dialect.delimiter, b"\n")
        self._after = _table(dialect.quote, dialect.delimiter, b"\r", b"\n")
        not_mark = _none_of(mark)
        quoted = rb"%b%b(?:%b%b%b)*+" % (mark, not_mark, mark, mark, not_mark)  # up to the closing quote
        plain = _none_of(delimiter)
        # Of one line, as it stands: every quote that opens a field is closed.
        self._closed = re.compile(
            rb"%b(?:(?:^|(?<=%b))%b%b%b%b|(?!^)(?<!%b)%b%b%b)*+"
            % (not_mark, delimiter, quoted, mark, plain, not_mark, delimiter, mark, plain, not_mark)
        ).fullmatch
        field = rb"(?:%b%b(?=%b|\r?(?:\n|\Z))|%b)" % (
            quoted,
            mark,
            delimiter,
            _none_of(delimiter, mark, rb"\n"),
        )
        self._record = re.compile(rb"%b(?:%b%b)*+\r?(?:\n|\Z)" % (field, delimiter, field)).match
        self._beginning = re.compile(
            rb"(?:%b%b)*+(?:%b%b?+\r?\Z|%b\Z)"
            % (field, delimiter, quoted, mark, _none_of(delimiter, mark, rb"\n"))
        ).match

    def is_comment(self, line: bytes) -> bool:
        """Whether it is a comment line, by its first bytes."""
        return bool(self._comment) and line.startswith(self._comment)

    def may_be_noise(self, data: bytes, starts: Ints) -> NDArray[np.bool_]:
        """Whether what begins at ``starts`` may have to be skipped; certain only where it is False."""
        return self._noisy[np.frombuffer(data, np.uint8)[starts]]

    def open_lines(self, data: bytes, ends: Ints) -> list[int]:
        """Indexes of the lines that leave a quoted field open, were a record to start there.

        The lines of ``data`` stand one behind the other and end at ``ends``.
        """
        if not self.quote or self.quote not in data:
            return []
        found = []
        for index in self._odd_lines(data, ends):
            line = data[int(ends[index - 1]) if index else 0 : int(ends[index])]
            if not self._closed(line) and not self.is_noise(line):
                found.append(index)
        return found

    def _odd_lines(self, data: bytes, ends: Ints) -> list[int]:
        """Indexes of the lines with quotes that may be other than in pairs around whole fields."""
        if len(self.quote) > 1 or len(self._delimiter) > 1:
            return list(range(len(ends)))
        text = np.frombuffer(data, np.uint8, ends[-1])
        quotes = np.flatnonzero(text == self.quote[0])
        until = np.searchsorted(quotes, ends)
        counts = np.diff(until, prepend=0)
        odd = (counts & 1).astype(np.bool_)
        first = np.repeat(until - counts, counts)  # of its line, for each quote
        opens = (np.arange(len(quotes)) - first) & 1 == 0
        # At either end of the text a quote stands for the neighbour that it does not have, and is proper.
        neighbours = text.take(np.where(opens, quotes - 1, quotes + 1), mode="clip")
        proper = np.where(opens, self._before[neighbours], self._after[neighbours])
        if not proper.all():
            odd[np.repeat(np.arange(len(ends)), counts)[~proper]] = True
        return np.flatnonzero(odd).tolist()

    def record(self, data: bytes, start: int, whole: int, limit: int) -> bytes:
        """The well-formed record over several lines that starts at ``start``; empty if there is none."""
        found = self._record(data, start, whole)
        if not found or found.end() - start > limit or data.count(b"\n", start, found.end()) > LINES:
            return b""
        return found.group()

    def may_close(self, data: bytes, start: int, limit: int) -> bool:
        """Whether what follows can still make a record of what starts at ``start``."""
        if len(data) - start > limit or data.count(b"\n", start) > LINES:
            return False
        return bool(self._beginning(data, start))


def line_ends(data: bytes, *, final: bool) -> Ints:
    """Where the lines of ``data`` end; the last one only with ``final`` when no line feed ends it."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _LF) + 1
    if final and data and not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    return ends


def _table(*tokens: bytes) -> NDArray[np.bool_]:
    """For every byte, whether one of ``tokens`` is it."""
    return np.isin(np.arange(256), [token[0] for token in tokens if token])


def _none_of(*tokens: bytes) -> bytes:
    """A run of bytes in which none of the (escaped) ``tokens`` begins."""
    if all(len(token) == 1 or (len(token) == 2 and token[:1] == b"\\") for token in tokens):
        return rb"[^%b]*+" % b"".join(tokens)
    return rb"(?:(?!%b)[\s\S])*+" % b"|".join(tokens)
