"""The product's judge against the generator's knowledge and the oracle: every verdict and every hash."""

import pytest
from oracle import verdicts

from schemas import profile
from schemas.descriptor import Descriptor
from schemas.records import Invalid, Valid
from streams.formats.framing import Framer
from streams.formats.grammar import Dialect
from streams.lab.generate import HEADINGS, Line, generate
from streams.validate.judge import Judge


def _judged(data: bytes) -> list[Valid | Invalid]:
    framed = Framer(Dialect(), 1_048_576).feed(data, final=True)
    avion = profile.load("avion")
    header = tuple(HEADINGS.values())
    file = Descriptor(
        path="log.csv", identity="00", format="csv", encoding="utf-8", header=header, profile=avion
    )
    return Judge(file).judge(framed.records[1:])


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return [line for line in generate(6000, seed=11, bad_rate=0.1) if line.number or b"#" not in line.data]


@pytest.fixture(scope="module")
def data(lines: list[Line]) -> bytes:
    return b"".join(line.data for line in lines)


def test_oracle_and_generator_agree(lines: list[Line], data: bytes) -> None:
    records = [line for line in lines if line.number]
    found = list(verdicts(data))
    assert [verdict.number for verdict in found] == [line.number for line in records]
    for verdict, line in zip(found, records, strict=True):
        assert bool(verdict.placement_hash) == (line.fault is None), (line, verdict)


def test_judge_and_generator_agree_on_verdicts_kinds_and_fields(lines: list[Line], data: bytes) -> None:
    records = [line for line in lines if line.number]
    for verdict, line in zip(_judged(data), records, strict=True):
        if line.fault is None:
            assert isinstance(verdict, Valid), (line, verdict)
            assert verdict.kind == line.record_type
        else:
            assert isinstance(verdict, Invalid), (line, verdict)
            assert {reason["field"] for reason in verdict.reasons} == set(line.fields or ("",)), (
                line,
                verdict,
            )


def test_judge_and_oracle_agree_on_every_hash(data: bytes) -> None:
    ours = [verdict.placement_hash if isinstance(verdict, Valid) else "" for verdict in _judged(data)]
    assert ours == [verdict.placement_hash for verdict in verdicts(data)]
    assert len({placement for placement in ours if placement}) == 5400


def test_the_oracle_joins_lines_only_where_quotes_are_in_order() -> None:
    header = ",".join(HEADINGS.values()).encode()
    data = header + b'\n"open,1\nnext,"a,b"\n"two\nlines",x\n\n# "comment\nlast,"never closed\n'
    assert [verdict.number for verdict in verdicts(data)] == [1, 2, 3, 4]
