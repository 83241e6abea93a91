"""Records of one kind column by column, and how texts are put together of columns.

A log repeats itself: of most columns there are a few values for thousands of records. So a column holds each
value once, as far as that was seen, and what is done to a column is done to those values only.

Texts are Latin-1 that holds UTF-8, a character for each byte: that is joined and encoded fastest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

#: Indices, or the places of records.
Places = NDArray[np.integer[Any]]

#: Makes one value of each text, or of each other value.
Reader = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(slots=True, eq=False)
class Column:
    """Record ``i`` has the value ``values[codes[i]]``, without codes ``values[i]``; None is no value.

    A value may stand in ``values`` more than once, or for no record at all.
    """

    values: list[Any]
    codes: Places | None = None

    @classmethod
    def constant(cls, value: Any, count: int) -> Self:
        """The same for ``count`` records."""
        return cls([value], np.zeros(count, np.intp))

    @classmethod
    def of_some(cls, values: list[Any], records: Places, count: int) -> Self:
        """These records have these values, the others of ``count`` none."""
        if len(values) == count:
            return cls(values)
        codes = np.full(count, len(values))
        codes[records] = np.arange(len(values))
        return cls([*values, None], codes)

    @classmethod
    def paired(cls, few: "Column", many: "Column", read: Callable[[Any], Reader]) -> "Column":
        """What the reader that ``read`` gives for a record's value of ``few`` makes of that of ``many``."""
        ones = {value: number for number, value in enumerate(dict.fromkeys(few.values))}
        if len(ones) == 1:
            return many.read(read(few.values[0]))
        size = len(many.values)
        of_few = np.array([ones[value] for value in few.values])
        pairs, codes = np.unique(of_few[few._indices] * size + many._indices, return_inverse=True)
        bounds = np.searchsorted(pairs, np.arange(len(ones) + 1) * size).tolist()
        others = [many.values[place] for place in (pairs % size).tolist()]
        values: list[Any] = []
        for one, begin, end in zip(ones, bounds, bounds[1:], strict=False):
            values += read(one)(others[begin:end])
        return cls(values, codes)

    @property
    def count(self) -> int:
        """How many records."""
        return len(self.values if self.codes is None else self.codes)

    @property
    def _indices(self) -> Places:
        return np.arange(len(self.values)) if self.codes is None else self.codes

    def read(self, reader: Reader) -> "Column":
        """What the reader makes of each value."""
        return Column(list(reader(self.values)), self.codes)

    def only(self, places: Places) -> "Column":
        """The column of those records."""
        if self.codes is None:
            return Column([self.values[place] for place in places.tolist()])
        return Column(self.values, self.codes[places])

    def each(self) -> list[Any]:
        """The value of each record."""
        if self.codes is None:
            return self.values
        if len(self.values) == 1:
            return self.values * len(self.codes)
        values = np.empty(len(self.values), object)
        values[:] = self.values
        found: list[Any] = values[self.codes].tolist()
        return found

    def index(self, record: int) -> int:
        """Where in ``values`` that of the record is."""
        return record if self.codes is None else int(self.codes[record])

    def are(self, test: Callable[[Any], bool]) -> NDArray[np.bool_]:
        """Of each record whether its value passes."""
        passed = np.fromiter(map(test, self.values), bool, len(self.values))
        return passed if self.codes is None else passed[self.codes]

    def having(self, indices: Iterable[int]) -> Places:
        """The records that have one of the values at these indices."""
        wanted = np.zeros(len(self.values), bool)
        wanted[list(indices)] = True
        return np.flatnonzero(wanted if self.codes is None else wanted[self.codes])


#: Normalized records of one kind, field by field.
Columns = Mapping[str, Column]

#: Pieces side by side: a text stands for itself in every record, a column gives each its own.
Pieces = list[str | Column]


def joined(pieces: Pieces) -> Iterator[str]:
    """The text of each record; there is at least one column."""
    count = next(piece.count for piece in pieces if isinstance(piece, Column))
    columns: list[Column] = []
    for piece in pieces:
        column = Column.constant(piece, count) if isinstance(piece, str) else piece
        both = _together(columns[-1], column, count // 8) if columns else None
        columns[-1:] = [both] if both else [*columns[-1:], column]
    return map("".join, zip(*(column.each() for column in columns), strict=True))


def _together(one: Column, other: Column, most: int) -> Column | None:
    """Two neighbours as one column of all the texts that they can be together, if those are few."""
    if one.codes is None or other.codes is None or len(one.values) * len(other.values) > most:
        return None
    texts = [first + second for first in one.values for second in other.values]
    return Column(texts, one.codes * len(other.values) + other.codes)


def written(column: Column, write: Reader, absent: str) -> Column:
    """The texts that ``write`` makes of the values that are there, with ``absent`` for what is empty."""
    values = column.values
    texts = list(write([value for value in values if value is not None] if None in values else values))
    at = -1
    for _ in range(len(values) - len(texts)):  # few: most columns hold nothing once
        at = values.index(None, at + 1)
        texts.insert(at, absent)
    return Column(texts, column.codes)
