"""Records of one kind column by column, and how texts are put together of columns.

Texts are Latin-1 that holds UTF-8, a character for each byte: that is joined and encoded fastest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

#: Normalized records of one kind, field by field: name → a value for each record, None where it has none.
Columns = Mapping[str, Sequence[Any]]

#: Pieces side by side: a text stands for itself in every record, a column gives each its next value.
Pieces = list[str | Iterable[str]]


def joined(pieces: Pieces) -> Iterator[str]:
    """The text of each record; as many as the shortest column has."""
    columns: list[Iterable[str]] = []
    constant = ""
    for piece in pieces:
        if isinstance(piece, str):
            constant += piece
        else:
            columns += [repeat(constant), piece] if constant else [piece]
            constant = ""
    return map("".join, zip(*columns, repeat(constant), strict=False))


def optional(values: Sequence[Any], write: Callable[[Sequence[Any]], Pieces], absent: str) -> Pieces:
    """The pieces that ``write`` makes of a column, with ``absent`` where it is empty."""
    if None not in values:
        return write(values)
    written = joined(write([value for value in values if value is not None]))
    return [[absent if value is None else next(written) for value in values]]
