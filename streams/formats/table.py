"""Rows by column, however they were read."""

from collections.abc import Sequence
from typing import Protocol

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
        return Column(texts) if len(rows) < FEW else _coded(pa.array(texts, pa.string()))


class Parsed:
    """Rows that Arrow has read."""

    def __init__(self, columns: Sequence[pa.StringArray], places: Places) -> None:
        self.places, self._columns = places, columns

    def column(self, number: int, rows: Places) -> Column:
        """See :class:`Table`."""
        found = self._columns[number]
        if len(rows) < len(found):
            found = found.take(pa.array(rows))
        return _coded(found)


def _coded(texts: pa.StringArray) -> Column:
    """Each text once."""
    coded = texts.dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    return Column(distinct, None if len(distinct) == len(texts) else coded.indices.to_numpy())
