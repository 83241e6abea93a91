"""Delimited records read many at once, by Arrow: a tenth of the time of reading them one by one.

Arrow is lenient where :mod:`.rows` is strict and reads some things otherwise. So it gets plain records only:
one line each, without NUL or lone CR, in which a quote opens a field, closes one or is doubled, as RFC 4180
has it. The others, a few in a hundred, are left to be read one by one.
"""

import codecs
from collections.abc import Sequence
from contextlib import suppress
from itertools import compress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from schemas.columns import Places
from streams.formats.table import Parsed

_NUL, _LF, _CR = 0, 10, 13
_BOM = np.frombuffer(codecs.BOM_UTF8, np.uint8)

#: Bytes of a plain record, at the most: so all that is read at once is within Arrow's 2 GiB.
_LARGEST = 1 << 16

pa.set_memory_pool(pa.system_memory_pool())  # its own keeps 14 MB more

_Bytes = NDArray[np.uint8]
_Flags = NDArray[np.bool_]


class Parser:
    """Reads the plain records of one file. A row has ``width`` cells; ``quote`` may be empty."""

    def __init__(self, encoding: str, delimiter: str, quote: str, width: int) -> None:
        self._encoding = encoding
        self._is_utf8 = codecs.lookup(encoding).name == "utf-8"
        self._delimiter, self._quote = ord(delimiter), ord(quote) if quote else -1
        names = [str(number) for number in range(width)]
        self._names = names
        self._convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, check_utf8=False
        )
        self._ready = width > 0 and delimiter.isascii() and quote.isascii()

    def parse(self, values: Sequence[bytes]) -> tuple[Parsed | None, list[int]]:
        """Of raw records, line terminators included: the rows of the plain ones, and which are left."""
        if not self._ready or not values:
            return None, list(range(len(values)))
        values = self._in_utf8(values)
        plain = self._plain(b"".join(values), np.fromiter(map(len, values), np.int64, len(values)))
        places = np.flatnonzero(plain)
        columns, others = self._read(b"".join(compress(values, plain))) if len(places) else ([], [])
        plain[places[others]] = False
        left: list[int] = np.flatnonzero(~plain).tolist()
        return (Parsed(columns, np.flatnonzero(plain)) if plain.any() else None), left

    def _read(self, data: bytes) -> tuple[list[pa.StringArray], list[int]]:
        """The columns, and which rows have more cells or fewer."""
        others: list[int] = []

        def misshapen(row: csv.InvalidRow) -> str:
            others.append(row.number - 1)
            return "skip"

        table = csv.read_csv(
            pa.py_buffer(data),
            csv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(data) + 1),
            csv.ParseOptions(
                delimiter=chr(self._delimiter),
                quote_char=False if self._quote < 0 else chr(self._quote),
                ignore_empty_lines=False,
                invalid_row_handler=misshapen,
            ),
            self._convert,
        )
        return [column.chunk(0) for column in table.columns if column.num_chunks], others

    def _in_utf8(self, values: Sequence[bytes]) -> Sequence[bytes]:
        """With nothing for those that cannot be decoded."""
        if self._is_utf8:
            with suppress(UnicodeDecodeError):
                b"".join(values).decode()
                return values
        return [self._recoded(value) for value in values]

    def _recoded(self, value: bytes) -> bytes:
        try:
            return value.decode(self._encoding).encode()
        except UnicodeError:
            return b""

    def _plain(self, data: bytes, sizes: NDArray[np.int64]) -> _Flags:
        """Which records are; they lie in ``data``, in UTF-8, one behind the other."""
        found = np.frombuffer(data, np.uint8)
        ends = np.cumsum(sizes)
        starts = ends - sizes
        plain: _Flags = (sizes > 2) & (sizes <= _LARGEST)  # of an empty line Arrow makes a row of blanks
        plain[plain] = found[ends[plain] - 1] == _LF
        for byte, from_end in ((_NUL, 0), (_LF, 1), (_CR, 2)):
            at = np.flatnonzero(found == byte)
            of = np.searchsorted(ends, at, side="right")
            plain[of[at != ends[of] - from_end]] = False
        plain[self._misquoted(found, starts, ends)] = False
        heads = found[starts[plain, None] + np.arange(len(_BOM))]
        plain[plain] = (heads != _BOM).any(axis=1)  # Arrow would drop it from the first record that it gets
        return plain

    def _misquoted(self, found: _Bytes, starts: Places, ends: Places) -> Places:
        """The records in which a quote does not stand where RFC 4180 has it."""
        at = np.flatnonzero(found == self._quote)
        of = np.searchsorted(ends, at, side="right")
        order = np.arange(len(at)) - np.searchsorted(of, of)  # of a quote among its record's
        opens = order % 2 == 0
        beside = (np.diff(at) == 1) & (order[1:] > 0)
        before, after = found[at - 1], found[np.minimum(at + 1, len(found) - 1)]
        at_start = (at == starts[of]) | (before == self._delimiter)
        at_end = (after == self._delimiter) | (after == _LF) | (after == _CR)
        doubled = np.where(opens, np.append(False, beside), np.append(beside, False))
        wrong = ~(doubled | np.where(opens, at_start, at_end))
        never_closed = np.flatnonzero(np.bincount(of, minlength=1) % 2)
        return np.append(of[wrong], never_closed)
