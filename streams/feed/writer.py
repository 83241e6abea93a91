"""The writer: rows that a program has become records as a file would hold them. Pure."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Integral
from typing import Any

from schemas.descriptor import Descriptor
from schemas.errors import UsageError

#: Text, whole numbers, decimals; None, NaN, and pandas' NA and NaT are empty.
Cell = Any

#: A record: heading → cell, or the cells in the header's order, or the bytes as a file would have them.
Row = Mapping[str, Cell] | list[Cell] | tuple[Cell, ...] | bytes

#: What the csv module writes as it is meant; nearly every cell is one of these.
_PLAIN = frozenset({str, int, type(None)})

_MISSING = frozenset({"NAType", "NaTType"})


class _Lines(list[str]):
    """What the csv module writes to: each row in one piece."""

    def write(self, line: str) -> None:
        self.append(line)


class Writer:
    """Writes rows as records of what ``descriptor`` describes, lines ended by CRLF."""

    def __init__(self, descriptor: Descriptor) -> None:
        profile = descriptor.profile
        self._where = descriptor.path
        self._columns = descriptor.header or profile.columns
        self._known = frozenset(self._columns)
        self._encoding = descriptor.encoding
        self._has_rows = profile.format in ("csv", "tsv")
        self._lines = _Lines()
        self._csv = csv.writer(
            self._lines,
            delimiter=profile.delimiter,
            quotechar=profile.quote or None,
            quoting=csv.QUOTE_MINIMAL if profile.quote else csv.QUOTE_NONE,
            lineterminator="\r\n",
        )

    def write(self, rows: Iterable[Row]) -> Iterator[bytes]:
        """A record for each row. Raises :class:`UsageError` that names the row which cannot be written."""
        for number, row in enumerate(rows, 1):
            try:
                yield row if isinstance(row, bytes) and row else self._line(row)
            except _UnwritableError as error:
                where = f"{self._where}, row {number}"
                raise UsageError(error.what, where=where, remedy=error.remedy) from None

    def _line(self, row: Row) -> bytes:
        cells = self._cells(row)
        if not _PLAIN.issuperset(map(type, cells)):
            cells = [
                cell if type(cell) in _PLAIN else self._text(index, cell) for index, cell in enumerate(cells)
            ]
        try:
            self._csv.writerow(cells)
            return self._lines.pop().encode(self._encoding)
        except csv.Error:
            what = "a cell holds a delimiter or a line break, and the profile has no quotes"
            raise _UnwritableError(what, "give the rows a profile with quotes") from None
        except UnicodeEncodeError as error:
            what = f"{error.object[error.start]!r} cannot be written in {self._encoding}"
            raise _UnwritableError(what, 'mend the text, or give the profile encoding = "utf-8"') from None

    def _cells(self, row: Row) -> Sequence[Cell]:
        if not self._has_rows and isinstance(row, (tuple, list, Mapping)):
            raise _UnwritableError("only csv and tsv profiles have rows", "give each record as bytes")
        if isinstance(row, (tuple, list)):
            return row
        if not isinstance(row, Mapping):
            what = "is empty" if row == b"" else f"a {type(row).__name__} is no row"
            raise _UnwritableError(what, "give a mapping, a list or tuple of cells, or bytes")
        if not row.keys() <= self._known:
            unknown = ", ".join(sorted(map(repr, row.keys() - self._known)))
            raise _UnwritableError(f"not in the header: {unknown}", f"it has {', '.join(self._columns)}")
        return [row.get(heading) for heading in self._columns]

    def _text(self, index: int, cell: Cell) -> str:
        """What a less usual cell is in a file."""
        if type(cell).__name__ in _MISSING:
            return ""
        if isinstance(cell, str):
            return str.__str__(cell)
        if isinstance(cell, Integral) and not isinstance(cell, bool):
            return str(int(cell))
        if isinstance(cell, Decimal) and cell.is_finite():
            return f"{cell:f}"
        if isinstance(cell, (float, Decimal)) and cell != cell:  # noqa: PLR0124 - NaN is told so
            return ""
        heading = self._columns[index] if index < len(self._columns) else f"cell {index + 1}"
        what = f"{heading}: a {type(cell).__name__} ({cell!r:.60}) is not what stands in a file"
        raise _UnwritableError(
            what, "give text, whole numbers or decimals; a float has lost what was exported"
        )


class _UnwritableError(Exception):
    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy
