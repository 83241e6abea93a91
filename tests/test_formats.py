"""All four formats: the same records come to the same verdicts and placement hashes, in every encoding."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import oracle
import pytest

from schemas import profile
from schemas.errors import UsageError
from schemas.profile import Profile
from schemas.records import Invalid, Valid, Verdict
from streams.lab.generate import Line, generate
from streams.lab.spelling import Format
from streams.settings import TailSettings
from streams.tail.head import examine
from streams.tail.source import OpenFile, Source
from streams.validate.judge import Judge

FORMATS: tuple[Format, ...] = get_args(Format)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]


def used_for(form: str, **keys: object) -> Profile:
    """The built-in profile of a format, some keys otherwise."""
    name = "avion" if form == "csv" else f"avion-{form}"
    return Profile.model_validate(profile.load(name).model_dump() | keys)


def judged(path: Path, used: Profile) -> list[tuple[int, Verdict]]:
    """The verdicts on a file's records by their numbers, as tail and validate would come to them."""
    file = OpenFile(str(path))
    try:
        head = file.examine(used, final=True)
        assert head
        source = Source(file, head, used, TailSettings(block_bytes=4096), partitions=1, known=None)
        judge = Judge(source.descriptor)
        found: list[tuple[int, Verdict]] = []
        while (framed := source.read(final=True)) is not None:
            assert not framed.oversized
            found += zip(framed.numbers, judge.judge(framed.records), strict=True)
        assert source.position == file.size()
        return found
    finally:
        file.close()


def hashes(verdicts: Sequence[tuple[int, Verdict]]) -> list[str]:
    return [verdict.placement_hash if isinstance(verdict, Valid) else "" for _, verdict in verdicts]


def log(form: Format, records: int = 3000, bad_rate: float = 0.1) -> list[Line]:
    return list(generate(records, 11, bad_rate, form))


@pytest.fixture(scope="module", params=FORMATS)
def form(request: pytest.FixtureRequest) -> Format:
    return request.param


@pytest.fixture(scope="module")
def lines(form: Format) -> list[Line]:
    return log(form)


def test_every_verdict_is_the_generator_s_and_every_hash_the_oracle_s(
    form: Format, lines: list[Line], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_bytes(data := b"".join(line.data for line in lines))
    verdicts = judged(path, used_for(form))
    expected = [line for line in lines if line.number]
    assert [number for number, _ in verdicts] == [line.number for line in expected]
    for line, (_, verdict) in zip(expected, verdicts, strict=True):
        if line.fault is None:
            assert isinstance(verdict, Valid), (line, verdict)
            assert verdict.kind == line.record_type
        else:
            assert isinstance(verdict, Invalid), (line, verdict)
            found = {reason["field"] for reason in verdict.reasons}
            assert found == set(line.fields or ("",)), (line, verdict)
    assert hashes(verdicts) == [verdict.placement_hash for verdict in oracle.verdicts(data, form)]


def test_the_same_records_have_the_same_hashes_in_every_format(tmp_path: Path) -> None:
    found = []
    for form in FORMATS:
        path = tmp_path / form
        path.write_bytes(b"".join(line.data for line in log(form)))
        found.append(hashes(judged(path, used_for(form))))
    assert found[0] == found[1] == found[2] == found[3]
    assert len(set(found[0])) == 2701


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_and_gzip_change_nothing(form: Format, encoding: str, packed: bool, tmp_path: Path) -> None:
    lines = log(form, 400, 0.0)
    text = b"".join(line.data for line in lines).decode()
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.write_text(text, "utf-8", newline="")
    data = text.encode(encoding)
    other.write_bytes(gzip.compress(data[:9000]) + gzip.compress(data[9000:]) if packed else data)
    # A byte order mark tells the encoding; without one the profile does.
    says = "latin-1" if encoding in ("utf-8-sig", "utf-16") else encoding
    assert hashes(judged(other, used_for(form, encoding=says))) == hashes(judged(plain, used_for(form)))


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_one_byte_encodings(form: Format, encoding: str, tmp_path: Path) -> None:
    text = b"".join(line.data for line in log(form, 400, 0.0)).decode()
    text = text.encode(encoding, "replace").decode(encoding)
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.write_text(text, "utf-8", newline="")
    declared = text.replace('encoding="UTF-8"', f'encoding="{encoding}"')
    other.write_text(declared, encoding, newline="")
    says = "utf-8" if form == "xml" else encoding
    found = hashes(judged(other, used_for(form, encoding=says)))
    assert found == hashes(judged(plain, used_for(form)))
    assert all(found)


@pytest.mark.parametrize("ends", [("\r\n",), ("\n",), ("\r\n", "\n")], ids=["CRLF", "LF", "both"])
def test_line_ends_of_either_sort_or_both(form: Format, ends: tuple[str, ...], tmp_path: Path) -> None:
    pieces = [line.data.decode().rstrip("\r\n") for line in log(form, 200, 0.0)]
    path = tmp_path / "log"
    text = "".join(piece + ends[index % len(ends)] for index, piece in enumerate(pieces))
    path.write_text(text, "utf-8", newline="")
    assert hashes(judged(path, used_for(form))) == [
        v.placement_hash for v in oracle.verdicts(text.encode(), form)
    ]


@pytest.mark.parametrize(
    ("form", "data", "told"),
    [
        ("csv", "Type,Spot\n".encode("utf-32"), "UTF-32 cannot be read"),
        ("csv", "Type,Spot\n".encode("utf-16-le"), "NUL bytes"),
        ("csv", b"Type,Spot\r,More\n", "carriage return in its middle"),
        ("xml", b"a,b\n", "not an XML document"),
        ("xml", b"<!-- c --><!DOCTYPE a [<!ENTITY b 'c'>]><a><Record/></a>", "document type"),
        ("xml", b"<a><b/><b/></a>", "no <Record> in its first 15 bytes"),
        ("xml", b'<?xml version="1.0" encoding="utf-32"?><a><Record/></a>', "utf-32 cannot be read"),
        ("xml", b'<?xml version="1.0" encoding="nonsense"?><a><Record/></a>', "nonsense cannot be read"),
        ("xml", b'<?xml version="1.0" encoding="UTF-16"?><a><Record/></a>', "it is not UTF-16"),
    ],
)
def test_what_cannot_be_read_is_refused(form: str, data: bytes, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        examine(data, used_for(form), "log", final=True)


def test_utf_16_without_a_byte_order_mark_needs_its_byte_order() -> None:
    with pytest.raises(UsageError, match="no byte order mark"):
        examine(b"a\n", used_for("csv", encoding="utf-16"), "log", final=True)


def test_a_document_without_records_is_one() -> None:
    head = examine(
        b"<?xml version='1.0'?>\n<TrafficLog>\n</TrafficLog>\n", used_for("xml"), "log", final=True
    )
    assert head
    assert (head.encoding, head.start) == ("utf-8", 0)


def test_a_header_that_is_not_there_yet_is_waited_for() -> None:
    data = "<?xml version='1.0' encoding='UTF-16'?><TrafficLog><Record/>".encode("utf-16")
    used = used_for("xml")
    assert [examine(data[:size], used, "log", final=False) for size in range(len(data))] == [None] * len(data)
    assert examine(data, used, "log", final=False)
