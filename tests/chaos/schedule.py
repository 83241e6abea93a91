"""Which faults happen when: drawn from a seed alone, so that a seed is a run that can be had again."""

import random
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

#: Every kind of fault, and how long it lasts at the least and at the most, in seconds.
KINDS = {
    "tailer killed": (0, 0),
    "tailer frozen, another in its place": (8, 20),
    "second tailer of the same name": (0, 0),
    "tailer out of file descriptors": (4, 8),
    "validate killed": (0, 0),
    "dispatch killed": (0, 0),
    "worker killed, all three processes": (0, 0),
    "validate frozen past its session": (10, 15),
    "dispatch frozen past its session": (10, 15),
    "role out of file descriptors": (4, 8),
    "rebalance storm": (4, 8),
    "rolling restart": (0, 0),
    "broker killed": (2, 8),
    "controller killed": (2, 8),
    "group coordinator killed": (2, 8),
    "coordinator of an open transaction killed": (2, 8),
    "all brokers killed": (2, 8),
    "registry killed": (2, 8),
    "Avstar killed": (2, 8),
    "token servers away": (20, 45),
    "link slow": (5, 12),
    "link stalled": (4, 14),
    "link one-way": (4, 14),
    "link half-open": (0, 0),
    "link cut": (2, 10),
    "Avstar: 401": (2, 5),
    "Avstar: 403": (3, 8),
    "Avstar: 409": (3, 8),
    "Avstar: 429": (3, 8),
    "Avstar: 429 in seconds": (3, 8),
    "Avstar: 500": (3, 8),
    "Avstar: 503": (3, 8),
    "Avstar: connection reset": (3, 8),
    "Avstar: answer lost": (3, 8),
    "Avstar: half an answer": (3, 8),
    "Avstar: not JSON": (3, 8),
    "Avstar: no answer": (3, 8),
    "Avstar: slow": (3, 8),
    "Avstar: late": (3, 8),
    "broker's disk full": (4, 10),
    "done folder full": (5, 12),
    "disk of logs full": (5, 12),
    "tailer's clock jumps": (5, 12),
    "worker's clock jumps": (5, 12),
}
#: These take disks and clocks of our own, which cannot be had everywhere.
ON_DISKS = frozenset({"broker's disk full", "done folder full", "disk of logs full"})
BY_CLOCKS = frozenset({"tailer's clock jumps", "worker's clock jumps"})


class Fault(NamedTuple):
    """One fault of a round."""

    kind: str
    after_s: float  #: counted from the round's beginning
    seconds: float  #: how long it lasts
    target: float  #: 0 to 1: which of those that it may strike

    def choose(self, among: list[Any]) -> Any:
        """The target among those there are."""
        return among[int(self.target * len(among))]


def rounds(seed: int, only: Collection[str] = ()) -> Iterator[list[Fault]]:
    """Rounds of faults without end: one alone, whose recovery can be measured, or up to four together.

    Each kind (of ``only``, if it names some) comes once before any comes again.
    """
    chance = random.Random(seed)
    deck: list[str] = []
    while True:
        faults = []
        for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
            deck = deck or chance.sample(kinds := [k for k in KINDS if not only or k in only], len(kinds))
            kind = deck.pop()
            seconds = chance.uniform(*KINDS[kind])
            faults.append(Fault(kind, chance.uniform(0, 5) if faults else 0, seconds, chance.random()))
        yield faults
