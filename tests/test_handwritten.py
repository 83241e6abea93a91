"""The validation that the baselines are given accepts what the product accepts, and makes the same of it."""

from schemas import profile
from schemas.descriptor import Descriptor
from schemas.records import Valid
from streams.lab.bench import handwritten
from streams.lab.generate import generate
from streams.validate.judge import Judge


def test_it_does_the_same_work() -> None:
    used = profile.load("avion")
    head, *lines = [line.data for line in generate(6_000, 5, 0.05)]
    lines = [line for line in lines if line.strip()]
    described = Descriptor(
        path="a.csv",
        identity="a" * 32,
        format="csv",
        encoding="utf-8",
        header=tuple(head.decode().rstrip("\r\n").split(",")),
        profile=used,
    )
    verdicts = Judge(described).judge(lines)
    ours = [(one.placement_hash, one.canonical) for one in verdicts if isinstance(one, Valid)]
    assert len(ours) > 5_000
    assert handwritten.Judge(described).accepted(lines) == ours
