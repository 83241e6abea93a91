"""Rows by column, however they were read."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from schemas.columns import Column, Places

Row = Sequence[str]

#: Of fewer records than that it takes longer to let Arrow look at them.
FEW = 500


class Table(Protocol):
    """Rows of one file. ``places`` says which of the raw records each row is of."""

    places: Places

    def column(self, number: int, rows: Places) -> Column:
        """The texts of a column, from 0, in these rows."""
        ...


class Listed:
    """Rows that were read one by one."""

    def __init__(self, rows: Sequence[Row], places: Places) -> None:
        self.places, self._rows = places, rows

    def column(self, number: int, rows: Places) -> Column:
        """See :class:`Table`."""
        texts = [self._rows[row][number] for row in rows]
        if len(rows) < FEW:
            return Column(texts)
        numbers: dict[str, int] = {}
        codes = [numbers.setdefault(text, len(numbers)) for text in texts]
        return Column(list(numbers), np.array(codes))


class Parsed:
    """Rows that Arrow has read."""

    def __init__(self, columns: Sequence[pa.StringArray], places: Places) -> None:
        self.places, self._columns = places, columns

    def column(self, number: int, rows: Places) -> Column:
        """See :class:`Table`."""
        found = self._columns[number]
        if len(rows) < len(found):
            found = found.take(_array(rows))
        coded = found.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        if len(texts) == len(found):
            return Column(texts)
        return Column(texts, np.frombuffer(coded.indices.buffers()[1], np.int32, len(found)))


def _array(places: Places) -> pa.Int64Array:
    """As Arrow has it. Its own way from numpy and back imports pandas where that is there: 45 MB."""
    return pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places.astype(np.int64))])
