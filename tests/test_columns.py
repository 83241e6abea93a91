"""Columns: whatever values stand for records, and however, the texts are those of the records one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import Column, Pieces, joined, written

VALUES = st.sampled_from([None, "", "a", "b", "cd", "é"])


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    """Some of as many records, with and without codes."""
    count = draw(st.integers(1, 60))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            found.append(Column(draw(st.lists(VALUES, min_size=count, max_size=count))))
        else:
            values = draw(st.lists(VALUES, min_size=1, max_size=6))
            place = st.integers(0, len(values) - 1)
            codes = draw(st.lists(place, min_size=count, max_size=count))
            found.append(Column(values, np.array(codes, np.int32)))
    return found


@given(columns(), st.lists(st.integers(0, 5)))
def test_texts_are_joined_record_by_record(given: list[Column], constants: list[int]) -> None:
    pieces: Pieces = [written(column, lambda there: map(str.upper, there), "-") for column in given]
    for place in constants:
        pieces.insert(min(place, len(pieces)), f"<{place}>")
    each = [[piece] * given[0].count if isinstance(piece, str) else piece.each() for piece in pieces]
    assert list(joined(pieces)) == ["".join(texts) for texts in zip(*each, strict=True)]
    upper = [["-" if value is None else value.upper() for value in column.each()] for column in given]
    assert [piece.each() for piece in pieces if isinstance(piece, Column)] == upper


@given(columns())
def test_records_are_picked(given: list[Column]) -> None:
    for column in given:
        each = column.each()
        there = column.are(lambda value: value is not None)
        assert there.tolist() == [value is not None for value in each]
        picked = np.flatnonzero(there)
        assert column.only(picked).each() == [value for value in each if value is not None]
        again = Column.of_some(column.only(picked).each(), picked, column.count)
        assert again.each() == each
        wanted = [index for index, value in enumerate(column.values) if value == "a"]
        assert column.having(wanted).tolist() == [place for place, value in enumerate(each) if value == "a"]
