"""The RateLimit fields as the IETF draft has them, and as they should not be."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.dispatch.rate_limit import read


@pytest.mark.parametrize(
    ("limit", "policy", "expected"),
    [
        ("", "", None),
        ('"minute";r=59;t=30', "", (59, 30, inf)),
        ('"minute";r=59;t=30', '"minute";q=600;w=60', (59, 30, 600)),
        ("", '"minute";q=600;w=60', (inf, 0, 600)),
        ("", '"second";q=10;w=1', (inf, 0, 600)),
        ("minute;r=0;t=7", "minute;q=6;w=60", (0, 7, 6)),
        ('"m";r=50;t=10, "d";r=50;t=500', '"m";q=60;w=60, "d";q=10000;w=86400', (50, 500, 60)),
        ("", '"d";q=1;w=31536000', None),  # what is left of a long one is of use, its rate is not
        ("", '"burst";q=600;w=60, "month";q=10000;w=2592000', (inf, 0, 600)),
        ("", '"m";q=100;w=600, "n";q=100;w=601', (inf, 0, 10)),
        ('"bytes";r=0;t=9, "n";r=5;t=9', '"bytes";q=9;w=9;qu="content-bytes", "n";q=9;w=60', (5, 9, 9)),
        ('"m";r=5;t=999999', "", (5, 600, inf)),  # no longer than any wait is believed
        ('"m";r=5', "", None),  # of no use without the time
        ('"m";r=5;t=0', "", None),
        ('"m";r=-1;t=5', "", None),
        ('"m";r=1.5;t=5', "", None),
        ('"m";r=?1;t=5', "", None),
        ('"m";r=5;t=5;', "", None),
        ("limit=100, remaining=50, reset=50", "", None),
        ('("a" "b");r=5;t=5', "", None),
        ("ä", "ä", None),
    ],
)
def test_reads(limit: str, policy: str, expected: tuple[float, float, float] | None) -> None:
    assert read(limit, policy) == expected


@given(st.text(), st.text())
def test_never_stumbles(limit: str, policy: str) -> None:
    read(limit, policy)
