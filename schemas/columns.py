"""Records of one kind column by column, and how texts are put together of columns.

A log repeats itself: of most columns there are a few values for thousands of records. So a column holds each
value once, as far as that was seen, and what is done to a column is done to those values only.

Texts are Latin-1 that holds UTF-8, a character for each byte: that is joined and encoded fastest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
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
        return Column(self.values, self._indices[places])

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

    def having(self, indices: Iterable[int]) -> Places:
        """The records that have one of the values at these indices."""
        if self.codes is None:
            return np.array(sorted(indices), np.intp)
        return np.flatnonzero(np.isin(self.codes, list(indices)))


#: Normalized records of one kind, field by field.
Columns = Mapping[str, Column]

#: Pieces side by side: a text stands for itself in every record, a column gives each its own.
Pieces = list[str | Column]


def joined(pieces: Pieces) -> Iterator[str]:
    """The text of each record; there is at least one column."""
    return map("".join, zip(*(_each(piece) for piece in pieces), strict=False))


def _each(piece: str | Column) -> Iterable[str]:
    return repeat(piece) if isinstance(piece, str) else piece.each()


def written(column: Column, write: Reader, absent: str) -> Column:
    """The texts that ``write`` makes of the values that are there, with ``absent`` for what is empty."""
    if None not in column.values:
        return Column(list(write(column.values)), column.codes)
    texts = iter(write([value for value in column.values if value is not None]))
    return Column([absent if value is None else next(texts) for value in column.values], column.codes)
