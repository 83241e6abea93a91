"""Chaos: the schedule is the seed's, the books notice what they should, and a short run loses nothing."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from chaos import books
from chaos.run import Run
from chaos.schedule import KINDS, rounds

from streams.lab.generate import generate


def test_a_seed_is_a_schedule() -> None:
    """The same seed gives the same faults, and before any comes again each has come."""
    first, again, other = (list(islice(rounds(seed), 30)) for seed in (7, 7, 8))
    assert first == again != other
    kinds = [fault.kind for faults in first for fault in faults]
    assert sorted(kinds[: len(KINDS)]) == sorted(KINDS)
    assert {kind for faults in islice(rounds(1, ["link cut"]), 5) for kind, *_ in faults} == {"link cut"}


@pytest.mark.parametrize("form", ["csv", "fixed"])
def test_the_books_notice(form: str) -> None:
    """A record that is not booked, one that is twice, a letter too many and one too few, a wrong audit."""
    kept = books.Books(Counter(), Counter(), {})
    books.enter(kept, b"".join(line.data for line in generate(500, 3, 0.05, form)), form)
    guilty = {min(kept.accepted)}
    booked = kept.accepted - Counter(guilty)
    letters = [{"original": record} for record in kept.rejected.elements()]
    letters.append({"original": kept.originals[min(guilty)]})
    audit = {"records": 500, "published": 500, "delivered": booked.total(), "rejected": len(letters)}
    audit |= {"dead_lettered": 0, "missing": 0, "duplicates": 0}
    assert (kept.records, kept.rejected.total()) == (500, 25)

    def wrong(**other: object) -> list[str]:
        told = {"booked": booked, "audit": audit, "found": letters} | other
        return books.balance(kept, guilty, **told).disagreements

    some = max(booked)
    assert wrong() == []
    assert "not booked" in " ".join(wrong(booked=booked - Counter([some])))
    assert "booked twice" in " ".join(wrong(booked=booked + Counter([some])))
    assert "should not be" in " ".join(wrong(booked=booked + Counter(guilty)))
    assert "too many" in " ".join(wrong(found=[*letters, {"original": kept.originals[some]}]))
    assert "without a dead letter" in " ".join(wrong(found=letters[1:]))
    assert wrong(audit=audit | {"missing": 1}) == ["audit: missing 1, by the books 0"]


@pytest.mark.broker
@pytest.mark.timeout(300)
def test_a_short_run(tmp_path: Path) -> None:
    """Three brokers, three tailers, two workers: kills, a stalled link and a broker that goes, at once."""
    only = ["tailer killed", "validate killed", "link stalled", "broker killed", "Avstar: answer lost"]
    result = Run(tmp_path, seed=338, minutes=10, kinds=only, per_s=30, most=2).run()
    assert result["lost"] == result["doubled"] == 0
    assert [line for line in result["wrong"] if not line.startswith("late")] == []
    assert sorted(fault["kind"] for fault in result["faults"]) == sorted(only)
