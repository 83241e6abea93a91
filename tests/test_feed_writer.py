"""What rows of a program become, as records of a file."""

import math
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from exports import AVION, HEADER, descriptor
from hypothesis import given
from hypothesis import strategies as st

from schemas.descriptor import Descriptor
from schemas.errors import UsageError
from schemas.profile import Profile, load
from streams.feed.writer import Writer
from streams.formats import catalogue as formats

_ABC = Descriptor(
    path="feed:x", identity="feed:x", format="csv", encoding="utf-8", header=("A", "B", "C"), profile=AVION
)


def written(*rows: Any, of: Descriptor = _ABC) -> list[bytes]:
    return list(Writer(of).write(rows))


def as_profile(**changes: Any) -> Descriptor:
    profile = Profile.model_validate(AVION.model_dump() | changes)
    return _ABC.model_copy(
        update={"profile": profile, "format": profile.format, "encoding": profile.encoding}
    )


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="\0", codec="utf-8")),
            min_size=len(HEADER),
            max_size=len(HEADER),
        )
    )
)
def test_what_is_written_is_read_again(rows: list[list[str]]) -> None:
    """By what reads the records of files: line breaks, quotes and delimiters are part of a cell."""
    described = descriptor()
    assert formats.rows(described).read(list(Writer(described).write(rows))) == rows


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("00012", b"00012"),
        (12, b"12"),
        (-3, b"-3"),
        (2**70, b"1180591620717411303424"),
        (None, b""),
        ("", b""),
        (math.nan, b""),
        (pd.NA, b""),
        (pd.NaT, b""),
        (Decimal("10.50"), b"10.50"),
        (Decimal("1E+2"), b"100"),
        (Decimal("NaN"), b""),
        (pd.Series([7], dtype="uint8").to_numpy()[0], b"7"),
        (pd.Series([7, None], dtype="Int64")[0], b"7"),
        (pa.scalar("text").as_py(), b"text"),
        (StrEnum("Status", {"CLEARED": "CLEARED"})("CLEARED"), b"CLEARED"),
        ('say "x"', b'"say ""x"""'),
        ("a,b", b'"a,b"'),
        ("a\rb", b'"a\rb"'),
        ("Motörhead", "Motörhead".encode()),
    ],
    ids=repr,
)
def test_a_cell(cell: Any, text: bytes) -> None:
    assert written(("a", cell, "c")) == [b"a," + text + b",c\r\n"]
    assert written({"B": cell, "C": "c", "A": "a"}) == [b"a," + text + b",c\r\n"]


def test_rows_of_every_sort() -> None:
    rows = (["a", "b", "c"], ("a", "b", "c"), {"C": "c"}, {}, b"as,it,stands\n", ["too", "few"])
    assert written(*rows) == [
        b"a,b,c\r\n",
        b"a,b,c\r\n",
        b",,c\r\n",
        b",,\r\n",
        b"as,it,stands\n",
        b"too,few\r\n",
    ]


def test_rows_in_the_profiles_own_encoding_and_dialect() -> None:
    latin = as_profile(encoding="latin-1", delimiter=";", quote="'")
    assert written(["ä;", "b", "c"], of=latin) == [b"'\xe4;';b;c\r\n"]
    assert written(["ä", "b", "c"], of=as_profile(encoding="utf-16-le")) == ["ä,b,c\r\n".encode("utf-16-le")]
    tsv = as_profile(format="tsv", delimiter="\t", quote="")
    assert written(['"a"', "b,", "c"], of=tsv) == [b'"a"\tb,\tc\r\n']


@pytest.mark.parametrize(
    ("row", "of", "said"),
    [
        ((1, 0.1, 3), _ABC, r"row 2: B: a float \(0\.1\) is not what stands in a file; give text"),
        ((1, math.inf, 3), _ABC, "B: a float"),
        ((1, True, 3), _ABC, "B: a bool"),
        ((1, 2, b"3"), _ABC, "C: a bytes"),
        ((1, 2, 3, [4]), _ABC, "cell 4: a list"),
        ((1, pd.Timestamp("2026-11-24"), 3), _ABC, "B: a Timestamp"),
        ((Decimal("Infinity"), 2, 3), _ABC, "A: a Decimal"),
        ("a,b,c", _ABC, "a str is no row"),
        (7, _ABC, "a int is no row"),
        (b"", _ABC, "is empty"),
        ({"A": 1, "D": 2, "E": 3}, _ABC, "not in the header: 'D', 'E'; it has A, B, C"),
        (("a\ud800", 2, 3), _ABC, "cannot be written in utf-8"),
        (("€", 2, 3), as_profile(encoding="latin-1"), "'€' cannot be written in latin-1"),
        (("a\tb", 2, 3), as_profile(format="tsv", delimiter="\t", quote=""), "no quotes"),
        (("a\nb", 2, 3), as_profile(format="tsv", delimiter="\t", quote=""), "no quotes"),
        (
            (1, 2, 3),
            Descriptor.model_validate(_ABC.model_dump() | {"profile": load("avion-xml"), "format": "xml"}),
            "give each record as bytes",
        ),
    ],
)
def test_what_cannot_be_written_is_named(row: Any, of: Descriptor, said: str) -> None:
    writing = Writer(of).write([b"before", row, b"after"])
    assert next(writing) == b"before"
    with pytest.raises(UsageError, match=said) as caught:
        next(writing)
    assert str(caught.value).startswith("feed:x, row 2: ")
