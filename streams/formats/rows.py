"""Raw records to rows: decoding, splitting, and the shape of a row. What cells mean is not known here."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schemas.descriptor import Descriptor
from schemas.letter import Reason
from streams.formats.parser import Parser
from streams.formats.table import FEW, Listed, Row, Table

_SHOWN = 200  #: characters of a value in a reason; the dead letter has the original bytes


def shown(value: str) -> str:
    """A value as a reason shows it: as it stood, cut when it is long."""
    return value if len(value) <= _SHOWN else value[:_SHOWN] + "…"


class Unclear(NamedTuple):
    """A row with fields that cannot be told, ``reasons`` why; in the row they are as a reason shows them."""

    row: Row
    reasons: list[Reason]


class Rows(ABC):
    """Reads the records of one file. See :func:`.catalogue.rows` for those of each format."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def read(self, values: Sequence[bytes]) -> list[Row | Reason | Unclear]:
        """One row for each raw record, in order, or why it has none."""
        try:
            return list(self._read([value.decode(self._encoding) for value in values]))
        except UnicodeDecodeError:
            pass
        texts = [self._decoded(value) for value in values]
        rows = iter(self._read([text for text in texts if isinstance(text, str)]))
        return [next(rows) if isinstance(text, str) else text for text in texts]

    def tables(self, values: Sequence[bytes]) -> tuple[list[Table], dict[int, list[Reason]]]:
        """The same rows by column, in tables, and why the raw records at these places have none, or one of
        which not everything can be told.
        """
        return self._listed(values, list(range(len(values))))

    def _listed(
        self, values: Sequence[bytes], places: Sequence[int]
    ) -> tuple[list[Table], dict[int, list[Reason]]]:
        """Of the records at ``places``, read one by one."""
        rows: list[Row] = []
        of: list[int] = []
        reasons: dict[int, list[Reason]] = {}
        for place, row in zip(places, self.read([values[place] for place in places]), strict=True):
            if isinstance(row, dict):
                reasons[place] = [row]
                continue
            if isinstance(row, Unclear):
                reasons[place] = row.reasons
            rows.append(row.row if isinstance(row, Unclear) else row)
            of.append(place)
        return [Listed(rows, np.array(of))] if rows else [], reasons

    def _decoded(self, value: bytes) -> str | Reason:
        try:
            return value.decode(self._encoding)
        except UnicodeDecodeError as error:
            wrong = f"{value[error.start : error.end].hex(' ')} at byte {error.start}"
            return Reason(field="", value=wrong, rule=f"must be {self._encoding}: {error.reason}")

    @abstractmethod
    def _read(self, texts: list[str]) -> Sequence[Row | Reason | Unclear]:
        """The same of decoded records, line terminators included."""


class DelimitedRows(Rows):
    """CSV and TSV. ``width`` is the number of cells in a row; one may be wider, by blank cells."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(descriptor.encoding)
        profile = descriptor.profile
        self._delimiter, self._quote = profile.delimiter, profile.quote
        self._dialect = {
            "delimiter": profile.delimiter,
            "quotechar": profile.quote or None,
            "quoting": csv.QUOTE_MINIMAL if profile.quote else csv.QUOTE_NONE,
            "strict": True,
        }
        headings = list(descriptor.header if profile.header else profile.columns)
        while headings and not headings[-1].strip():
            headings.pop()
        self.width = len(headings)
        self._parser = Parser(descriptor.encoding, profile.delimiter, profile.quote, self.width)

    def tables(self, values: Sequence[bytes]) -> tuple[list[Table], dict[int, list[Reason]]]:
        """See :meth:`Rows.tables`."""
        if len(values) < FEW:
            return super().tables(values)
        parsed, left = self._parser.parse(values)
        listed, reasons = self._listed(values, left)
        return [parsed, *listed] if parsed else listed, reasons

    def _read(self, texts: list[str]) -> list[Row | Reason]:
        lines = [text.rstrip("\r\n") for text in texts]
        rows = self._split(lines)
        width = self.width
        return [
            row
            if len(row) == width and "\0" not in line
            else (row if isinstance(row, dict) else self._misshapen(line, row))
            for line, row in zip(lines, rows, strict=True)
        ]

    def _split(self, lines: list[str]) -> list[Row | Reason]:
        delimiter, quote = self._delimiter, self._quote
        if not quote:
            return [line.split(delimiter) for line in lines]
        quoted = [line for line in lines if quote in line]
        if not quoted:
            return [line.split(delimiter) for line in lines]
        unquoted = iter(self._unquote(quoted))
        return [next(unquoted) if quote in line else line.split(delimiter) for line in lines]

    def _unquote(self, lines: list[str]) -> list[Row | Reason]:
        """Split lines with quotes in them."""
        rows: list[Row | Reason] = []
        reader = csv.reader(lines, **self._dialect)  # type: ignore[arg-type] # its stub wants literals
        while reader.line_num < len(lines):
            try:
                rows.extend(reader)
            except csv.Error as error:
                rule = f"must be a row of {self.width} cells: {error}"
                rows.append(Reason(field="", value=shown(lines[reader.line_num - 1]), rule=rule))
        if len(rows) == len(lines):
            return rows
        # A quote was left open and the module read on into the next line; so each is read alone.
        return [row for line in lines for row in self._unquote([line])]

    def _misshapen(self, line: str, row: Row) -> Row | Reason:
        if "\0" in line:
            return Reason(field="", value=shown(line), rule="must not hold a NUL character")
        if len(row) > self.width and not any(cell.strip() for cell in row[self.width :]):
            return row
        rule = f"must have {self.width} cells like the heading row, has {len(row)}"
        return Reason(field="", value=shown(line), rule=rule)
