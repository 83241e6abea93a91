"""Every interleaving of two owners, as far as the model in protocol.py goes: none doubles, skips or robs."""

from pathlib import Path

import pytest
from protocol import Rules, Violation, check

_GUARANTEES = Path(__file__).parents[1] / "docs" / "guarantees.md"
ROBBED: frozenset[Violation] = frozenset({"robbed"})


def test_no_interleaving_breaks_the_protocol() -> None:
    """No raw record is in two batches, none is behind the position and in no batch, no owner is robbed."""
    checked = check(Rules())
    assert checked.violation == "", checked.way
    assert checked.done
    assert f"{checked.states:,} states" in " ".join(_GUARANTEES.read_text("utf-8").split())


def test_a_transaction_whose_end_nobody_told_is_done_once() -> None:
    """It is begun anew after another fence, unless the position says that it was committed after all."""
    rules = Rules(doubts=1, generations=2)
    checked = check(rules)
    assert checked.violation == "", checked.way
    assert checked.done
    assert f"{checked.states:,} states" in " ".join(_GUARANTEES.read_text("utf-8").split())
    for broken in ({"asks_after": False}, {"generation_checked": False}):
        checked = check(rules._replace(**broken), ROBBED)
        assert checked.violation == "in two batches"
        assert "A fences again" in checked.way


@pytest.mark.parametrize(
    ("rules", "violation"),
    [
        (Rules(generation_checked=False), "robbed"),
        (Rules(offset="after"), "in two batches"),
        (Rules(offset="before"), "skipped"),
        (Rules(reads_each_time=False), "in two batches"),
        (Rules(fence_first=False, generation_checked=False), "in two batches"),
        (Rules(fence_first=False, stable_reads=False), "in two batches"),
    ],
)
def test_a_broken_rule_is_found(rules: Rules, violation: Violation) -> None:
    """By its worst consequence: where there is one that doubles or skips, robbing is not looked at."""
    checked = check(rules, frozenset() if violation == "robbed" else ROBBED)
    assert checked.violation == violation, checked.way


@pytest.mark.parametrize(
    "rules",
    [Rules(generation_checked=False, stable_reads=False), Rules(fence_first=False)],
    ids=["fenced first", "checked and stable"],
)
def test_either_of_two_protections_is_enough(rules: Rules) -> None:
    """Against doubling and skipping; with more rules there are only fewer interleavings.

    Neither is left to itself on purpose: each covers the other's defects.
    """
    checked = check(rules, ROBBED)
    assert checked.violation == "", checked.way
    assert checked.done


def test_the_zombie_that_fences_late() -> None:
    """Unless the broker checks the generation, a zombie that takes over late works in the owner's place."""
    way = check(Rules(generation_checked=False)).way
    assert way.index("A joins") < way.index("B joins") < way.index("B fences") < way.index("A fences")
    assert way[-1] == "A commits"
