"""Mapping profiles: loading, headings, layouts; and the commands that show and use them."""

import json
import sys
from pathlib import Path

import pytest
from exports import AVION, HEADER, descriptor
from hypothesis import given
from hypothesis import strategies as st

from schemas import profile
from schemas.descriptor import Descriptor
from schemas.errors import UsageError
from schemas.profile import Layout, Profile
from schemas.records import COLUMNS, REQUIRED
from streams.cli import main
from streams.lab.generate import generate

MINIMAL = 'name = "mine"\ntime_zone = "Europe/Vienna"\ncurrency = "EUR"\n'


def test_the_built_in_profiles_load() -> None:
    assert "avion" in profile.names()
    for name in profile.names():
        assert profile.load(name).name == name


def test_a_profile_needs_little(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + 'format = "tsv"\n')
    mine = profile.load(path)
    assert (mine.delimiter, mine.quote, mine.comment, mine.encoding) == ("\t", '"', "#", "utf-8")
    assert mine.layout(HEADER).columns == HEADER


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("nonsense", "not valid TOML"),
        ('name = "x"\ncurrency = "EUR"', "time_zone: Field required"),
        (MINIMAL + 'colour = "red"', "colour: no such key"),
        (MINIMAL + "[codes]\ncolour = []", "codes.colour: no such key"),
        (MINIMAL + '[headings]\nspotid = ["x"]', "headings: no such column: spotid"),
        (
            MINIMAL + '[headings]\nspot_id = ["No"]\nline_no = ["N.O."]',
            "'No' stands for line_no and for spot_id",
        ),
        (MINIMAL + '[headings]\nspot_id = ["Ad ID"]', "stands for ad_id and for spot_id"),
        (MINIMAL + '[record_types]\nspot = ["A"]\navail = ["a"]', "'A' stands for avail and for spot"),
        (MINIMAL.replace("Europe/Vienna", "Europe/Wien"), "time_zone: no such time zone: Europe/Wien"),
        (MINIMAL + '[stations]\nWABC = "East"', "stations: no such time zone: East"),
        (MINIMAL.replace("EUR", "EURO"), "currency: not an ISO 4217 currency: EURO"),
        (MINIMAL + 'date_format = "%q"', "date_format: %q is not one of"),
        (MINIMAL + 'date_format = "%m/%Y"', "date_format has no day"),
        (MINIMAL + 'encoding = "utf-9"', "encoding: no such encoding: utf-9"),
        (MINIMAL + 'format = "xml"', 'xml is needed with format = "xml", and only there'),
        (MINIMAL + 'delimiter = ";;"', "delimiter: String should have at most 1 character"),
        (MINIMAL + "header = false", "columns are needed"),
    ],
)
def test_a_wrong_profile_is_told_by_its_key(tmp_path: Path, toml: str, told: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(UsageError) as caught:
        profile.load(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no such profile; built-in are avion"):
        profile.load("avoin")


@given(
    st.permutations(HEADER),
    st.sampled_from([" ", "_", "-", ".", ""]),
    st.sampled_from(["upper", "lower", "title"]),
)
def test_headings_match_in_any_order_case_and_spacing(order: list[str], gap: str, case: str) -> None:
    header = [f" {getattr(name, case)().replace('_', gap)} " for name in order]
    assert AVION.layout(header) == Layout(tuple(order), None)


def test_other_spellings_and_unknown_headings() -> None:
    header = ["Type", "Spot #", "SpotNote", *sorted(REQUIRED["spot"] - {"spot_id"}), ""]
    columns = AVION.layout(header).columns
    assert columns[:3] == ("record_type", "spot_id", "")
    assert columns[-1] == ""


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ([], "no column for record_type among ''"),
        (["SPOT", "WABC", "03/09/2026"], "no column for record_type among 'SPOT, WABC, 03/09/2026'"),
        (["record_type", *sorted(REQUIRED["spot"] - {"rate"})], "spot records lack the columns rate;"),
        ([*HEADER, "Spot #"], "two headings for spot_id: 'spot_id' and 'Spot #'"),
    ],
)
def test_an_unknown_layout_is_told(header: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        AVION.layout(header)
    assert "unknown layout: " + told in str(caught.value)


def test_a_fixed_kind_needs_its_own_columns_only() -> None:
    spots = AVION.model_copy(update={"record_type": "spot"})
    assert spots.layout(sorted(REQUIRED["spot"])).kind == "spot"
    with pytest.raises(UsageError, match="spot records lack"):
        spots.layout(COLUMNS["avail"])


def test_a_file_without_a_header_has_the_profiles_columns() -> None:
    mute = Profile.model_validate(AVION.model_dump() | {"header": False, "columns": HEADER})
    assert mute.layout() == Layout(HEADER, None)


def test_a_descriptor_carries_its_profile_whole() -> None:
    before = descriptor()
    after = Descriptor.load(before.dump())
    assert after == before
    assert after.id == before.id


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["spotstream", "profile", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    lines = list(generate(3000, seed=5, bad_rate=0.02))
    path.write_bytes(b"".join(line.data for line in lines))
    return path


def test_check_tells_each_rejection_by_line(log: Path, monkeypatch, capsys) -> None:
    lines = list(generate(3000, seed=5, bad_rate=0.02))
    expected, at = [], 1
    for line in lines:
        if line.fault is not None:
            expected.append((at, line.number))
        at += line.data.count(b"\n")
    assert run(monkeypatch, "check", str(log), "--json", "--first", "1000") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["rejected"] == len(expected) > 20
    assert [found["line"] for found in report["rejections"]] == [line for line, _ in expected]
    assert report["records"] == sum(report["accepted"].values()) + report["rejected"]
    data = log.read_bytes()
    for found in report["rejections"]:
        assert data[: found["offset"]].count(b"\n") + 1 == found["line"]


def test_check_as_text_and_a_clean_file(log: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "check", str(log), "--first", "2") == 1
    text = capsys.readouterr().out
    assert text.count("\nline ") == 2
    assert " more\n" in text
    clean = tmp_path / "clean.csv"
    clean.write_bytes(b"".join(line.data for line in generate(50, seed=1, bad_rate=0.0)))
    assert run(monkeypatch, "check", str(clean), "--profile", "avion") == 0
    assert "50 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"\0\1\2" * 100, "not a text file"),
        (b"\n\n# nothing\n", "no header row"),
        (b"a,b,c\n1,2,3\n", "unknown layout"),
    ],
)
def test_check_refuses_what_is_no_log(
    content: bytes | None, told: str, tmp_path, monkeypatch, capsys
) -> None:
    path = tmp_path / "log.csv"
    if content is not None:
        path.write_bytes(content)
    assert run(monkeypatch, "check", str(path)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert str(path) in error
    assert error.count("\n") == 1


def test_list_and_show(tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "list") == 0
    assert "avion " in capsys.readouterr().out
    assert run(monkeypatch, "show", "avion") == 0
    copied = tmp_path / "copy.toml"
    copied.write_text(capsys.readouterr().out)
    assert profile.load(copied) == AVION
    assert run(monkeypatch, "show", "nope") == 2
