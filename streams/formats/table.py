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

    def columns(self, numbers: Sequence[int], rows: Places) -> list[Column]:
        """The texts of these columns, from 0, in these rows."""
        ...


class Listed:
    """Rows that were read one by one."""

    def __init__(self, rows: Sequence[Row], places: Places) -> None:
        self.places, self._rows = places, rows

    def columns(self, numbers: Sequence[int], rows: Places) -> list[Column]:
        """See :class:`Table`."""
        found = [self._rows[row] for row in rows.tolist()]
        return [self._column([row[number] for row in found]) for number in numbers]

    @staticmethod
    def _column(texts: list[str]) -> Column:
        if len(texts) < FEW:
            return Column(texts)
        numbers: dict[str, int] = {}
        codes = [numbers.setdefault(text, len(numbers)) for text in texts]
        return Column(list(numbers), np.array(codes))


class Parsed:
    """Rows that Arrow has read."""

    def __init__(self, columns: Sequence[pa.StringArray], places: Places) -> None:
        self.places, self._columns = places, columns

    def columns(self, numbers: Sequence[int], rows: Places) -> list[Column]:
        """See :class:`Table`."""
        arrays = [self._columns[number] for number in numbers]
        if len(rows) < len(self.places):
            batch = pa.RecordBatch.from_arrays(arrays, list(map(str, numbers)))
            arrays = batch.take(_array(rows)).columns
        return [self._column(array) for array in arrays]

    @staticmethod
    def _column(found: pa.StringArray) -> Column:
        coded = found.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        if len(texts) == len(found):
            return Column(texts)
        return Column(texts, np.frombuffer(coded.indices.buffers()[1], np.int32, len(found)))


def _array(places: Places) -> pa.Int64Array:
    """As Arrow has it. Its own way from numpy and back imports pandas where that is there: 45 MB."""
    return pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places.astype(np.int64))])
