"""Mapping profiles: loading, headings, layouts; and the commands that show and use them."""

import gzip
import json
import re
import sys
import tomllib
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
from streams.lab.spelling import Format

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


def test_a_profile_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL, "utf-8-sig")
    assert profile.load(path).name == "mine"
    assert profile.read(path) == MINIMAL


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
        (MINIMAL + "delimiter = '\"'", "quote: it is the delimiter, too"),
        (MINIMAL + 'delimiter = "\\n"', "delimiter: a line's end"),
        (MINIMAL + 'delimiter = "\\r"', "delimiter: a line's end"),
        (MINIMAL + 'delimiter = "\\u0000"', "delimiter: a line's end or NUL"),
        (MINIMAL + 'quote = "\\n"', "quote: a line's end"),
        (MINIMAL + 'comment = "#\\n"', "comment: a line's end"),
        (MINIMAL + "comment = '\"x'", "comment: records whose first field is quoted begin so"),
        (MINIMAL + 'comment = "W"', "comment: a letter or digit begins records, too"),
        (MINIMAL + 'comment = "2"', "comment: a letter or digit begins records, too"),
        (MINIMAL + 'comment = "SP"', "comment: records of the type SPOT begin so"),
        (MINIMAL + 'comment = "MG"', "comment: records of the type MG begin so"),
        (MINIMAL + 'encoding = "unicode_escape"', "files in unicode_escape cannot be read"),
        (MINIMAL + 'encoding = "raw_unicode_escape"', "files in raw_unicode_escape cannot be read"),
        (MINIMAL + 'encoding = "iso2022_jp"', "files in iso2022_jp cannot be read"),
    ],
)
def test_a_wrong_profile_is_told_by_its_key(tmp_path: Path, toml: str, told: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(UsageError) as caught:
        profile.load(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "toml", ['comment = "TOTAL"', 'comment = ""', 'comment = "//"', 'quote = ""', 'encoding = "latin-1"']
)
def test_what_only_looks_odd_is_right(tmp_path: Path, toml: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + toml)
    assert profile.load(path)


def test_files_that_were_published_with_a_contradiction_stay_readable() -> None:
    """Their profile is in their descriptor: without it all their records would be lost."""
    before = descriptor(used=AVION.model_copy(update={"comment": "S"}))
    assert Descriptor.load(before.dump()) == before


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


def test_what_a_file_holds_and_is_called_forges_no_line_of_the_report(tmp_path, monkeypatch, capsys) -> None:
    """A cell may hold line ends and what a terminal obeys; so may a file's name."""
    path = tmp_path / "log\nrejected 0\x1b[2J.csv"
    row = '"SPOT\naccepted 9: 9 spot\x1b]0;title\x07"' + "," * (len(HEADER) - 1)
    path.write_text(f"{','.join(HEADER)}\n{row}\n")
    assert run(monkeypatch, "check", str(path)) == 1
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.splitlines())
    assert [line for line in said.splitlines() if line.startswith(("accepted", "rejected"))] == [
        "accepted 0: 0 spot, 0 avail, 0 billing, 0 makegood",
        "rejected 1",
    ]
    assert "\\x1b]0;title" in said


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


DOCUMENT = (Path(__file__).parents[1] / "docs/profiles.md").read_text("utf-8")


def test_every_key_column_and_directive_is_documented() -> None:
    keys = [*Profile.model_fields, *profile.Codes.model_fields, *profile.Span.model_fields]
    keys += profile.Markup.model_fields
    for key in keys:
        assert re.search(rf"[`\[.]{key}[`\].]", DOCUMENT) or f"[xml.{key}]" in DOCUMENT, key
    for kind, columns in COLUMNS.items():
        (row,) = re.findall(rf"^\| {kind} \| (.*) \|$", DOCUMENT, re.MULTILINE)
        told = [f"`{name}`" if name in REQUIRED[kind] else f"*`{name}`*" for name in columns]
        assert row == ", ".join(told)
    for directive in profile.DIRECTIVES:
        assert f"`{directive}`" in DOCUMENT


@pytest.mark.parametrize("table", re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL))
def test_the_documented_pieces_of_profiles_are_right(table: str) -> None:
    given = tomllib.loads(table)
    kind = {"fixed": "spot", "xml": "spot"}.get(given.get("format", "csv"))
    rest = {name: f"Else/{name}" for name in REQUIRED["spot"]}
    if kind and "xml" in given:
        given["xml"]["fields"] = rest | given["xml"]["fields"]
    elif kind:
        places = {name: {"start": 100 + at, "length": 1} for at, name in enumerate(rest) if name != "station"}
        given["fixed"]["spot"] = places | given["fixed"]["spot"]
    used = Profile.model_validate({"name": "x", "time_zone": "UTC", "currency": "USD"} | given)
    assert used.format == given.get("format", "csv")


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ('format = "fixed"', 'fixed is needed with format = "fixed"'),
        ('format = "csv"\n[xml]\nrecord = "r"\nfields = {}', "only there"),
        (
            'format = "fixed"\nheader = true\n[fixed.all]\nrecord_type = {start = 1, length = 2}',
            "are not for fixed",
        ),
        ('format = "fixed"\n[fixed.all]\nstation = {start = 0, length = 2}', "fixed.all.station.start"),
        ('format = "fixed"\n[fixed.all]\nspot = {start = 1, length = 2}', "no such column: spot"),
        ('format = "fixed"\n[fixed.all]\nstation = {start = 1, length = 2}', "fixed.all has no record_type"),
        (
            'format = "fixed"\nfixed.all.record_type = {start = 1, length = 2}\n'  # noqa: ISC004 - one text
            "fixed.all.rate = {start = 3, length = 2}\nfixed.spot.rate = {start = 5, length = 2}",
            "in fixed.all and in fixed.spot: rate",
        ),
        ('format = "xml"\n[xml]\nrecord = []\nfields = {}', "at least one name"),
        ('format = "xml"\n[xml]\nrecord = "a:b"\nfields = {}', "without prefix"),
        ('format = "xml"\n[xml]\nrecord = "r"\nfields = {spot_id = "a//b"}', "'a//b' is not as Child"),
        ('format = "xml"\n[xml]\nrecord = "r"\nfields = {spotid = "a"}', "no such column: spotid"),
        ('format = "xml"\n[xml]\nrecord = "r"\nfields = {spot_id = "a"}', "no column for record_type"),
        ('encoding = "shift_jis"', "shift_jis cannot be read"),
        ("line_length = 999999999999999999999999", "line_length: "),
    ],
)
def test_a_wrong_profile_of_another_format_is_told(tmp_path: Path, toml: str, told: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + toml)
    with pytest.raises(UsageError) as caught:
        profile.load(path)
    assert told in str(caught.value)


@pytest.mark.parametrize("form", ["csv", "tsv", "fixed", "xml"])
def test_check_works_on_every_format_plain_and_gzip(
    form: Format, tmp_path: Path, monkeypatch, capsys
) -> None:
    lines = list(generate(500, 4, 0.1, form))
    data = b"".join(line.data for line in lines)
    plain, packed = tmp_path / "log", tmp_path / "log.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    used = "avion" if form == "csv" else f"avion-{form}"
    reports = []
    for path in (plain, packed):
        options = ["--profile", used, "--json", "--first", "1000", "--mapped", "3"]
        assert run(monkeypatch, "check", str(path), *options) == 1
        reports.append(json.loads(capsys.readouterr().out) | {"file": ""})
    assert reports[0] == reports[1]
    assert reports[0]["records"] == 500
    assert [found["number"] for found in reports[0]["rejections"]] == [
        line.number for line in lines if line.fault
    ]
    good = [line.record_type for line in lines if line.number and not line.fault]
    assert [record["record_type"] for record in reports[0]["mapped"]] == good[:3]


def test_check_tells_that_a_file_is_damaged(tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"".join(line.data for line in generate(500, 4)))[:-20])
    assert run(monkeypatch, "check", str(path)) == 1
    assert "the rest cannot be read: gzip: it ends in the middle of a member" in capsys.readouterr().out
