"""XML: where records begin and end, what a broken one costs, and how its fields are found."""

from pathlib import Path

import pytest
from framers import XML, frame
from hypothesis import given
from hypothesis import strategies as st

from schemas import profile
from schemas.descriptor import Descriptor
from schemas.letter import Reason
from schemas.profile import Profile
from schemas.records import Invalid, Valid
from streams.formats.elements import XmlRows
from streams.formats.markup import MARGIN, NESTED, XmlFramer
from streams.formats.rows import Unclear
from streams.validate.judge import Judge

E = pytest.param


@pytest.mark.parametrize(
    ("data", "records"),
    [
        E(b"<?xml version='1.0'?><l><r>1</r> <r>2</r></l>", [b"<r>1</r>", b"<r>2</r>"], id="one line"),
        E(b"<l>\n<r a='1'/>\r\n<r />\n<r\n/></l>", [b"<r a='1'/>", b"<r />", b"<r\n/>"], id="self-closing"),
        E(b"<r>1</r><s>2</s><rs>3</rs>", [b"<r>1</r>", b"<s>2</s>"], id="only the names, and whole"),
        E(b"<p:r><p:a/></p:r><q:r>2</q:r>", [b"<p:r><p:a/></p:r>", b"<q:r>2</q:r>"], id="prefixes"),
        E(b"<r><a><r>1</r></a><r/></r><r>2</r>", [b"<r><a><r>1</r></a><r/></r>", b"<r>2</r>"], id="nested"),
        E(b"<r><s>1</s></r>", [b"<r><s>1</s></r>"], id="another record's name inside"),
        E(b"<!-- <r>0</r> --><?x <r>0</r>?><![CDATA[<r>0</r>]]><r>1</r>", [b"<r>1</r>"], id="in asides"),
        E(b"<r><!-- </r> --><?x </r>?><![CDATA[</r>]]></r>", None, id="end tags in asides"),
        E(
            b"<r a='>' b=\"/>'\">1</r><r/>",
            [b"<r a='>' b=\"/>'\">1</r>", b"<r/>"],
            id="brackets in attributes",
        ),
        E(b"<r>1</r\n><r>2</r  >", [b"<r>1</r\n>", b"<r>2</r  >"], id="spaces in end tags"),
        E(
            b"<r>1<r>2</r><r>3</r></l>",
            [b"<r>1", b"<r>2</r>", b"<r>3</r></l>"][:0] or None,
            id="never closed",
        ),
        E(b"<r>r 1 :r <a/></r>", None, id="the name in its text"),
        E(b"1</r><r>2</r>", [b"</r>", b"<r>2</r>"], id="an end without a start"),
        E(b"<r><a <b></r><r>2</r>", [b"<r><a <b></r>", b"<r>2</r>"], id="a tag in a tag"),
        E(
            b"<r><!-- -- <r>2</r> --></r>",
            [b"<r><!-- -- ", b"<r>2</r>", b"</r>"],
            id="a comment that is none",
        ),
        E(b"<r a='<r>2</r>", [b"<r a='", b"<r>2</r>"], id="an attribute that is not closed"),
        E(b"<r><![CDATA[<r>2</r>", [b"<r><![CDATA[", b"<r>2</r>"], id="a section that is not closed"),
        E(
            b"<!DOCTYPE r [<!ENTITY e 'x'>]><r>2</r>",
            [b"<!DOCTYPE r [<!ENTITY e 'x'>]>", b"<r>2</r>"],
            id="DTD",
        ),
        E(b"< <r>2</r>", [b"< ", b"<r>2</r>"], id="a bracket that begins nothing"),
        E(b"<l><r>1</r></l", [b"<r>1</r>", b"</l"], id="cut in a tag"),
        E(b"<l><r>1</r><r>2", [b"<r>1</r>", b"<r>2"], id="cut in a record"),
        E(b"", [], id="nothing"),
    ],
)
def test_records_end_where_they_should(data: bytes, records: list[bytes] | None) -> None:
    if records is not None:
        assert frame(XML, data).records == records
        assert frame(XML, data, list(range(len(data)))).records == records
    elif data.endswith(b"</r>"):
        assert frame(XML, data + b"<r>2</r>").records == [data, b"<r>2</r>"]
    else:
        assert frame(XML, data).records == [b"<r>1", b"<r>2</r>", b"<r>3</r>"]


pieces = st.sampled_from(
    [
        b"1",
        b"<a/>",
        b"<a b='1'>x</a>",
        b"<!-- <r> -->",
        b"<![CDATA[</r>]]>",
        b"<?p <r> ?>",
        b"<rr/>",
        b"\n",
        b"r ",
    ]
)
records = st.recursive(
    st.lists(pieces, max_size=4).map(lambda inner: b"<r>" + b"".join(inner) + b"</r>"),
    lambda inner: st.lists(inner | pieces, max_size=3).map(
        lambda parts: b"<r x='>'>" + b"".join(parts) + b"</r>"
    ),
    max_leaves=5,
)
between = st.sampled_from(
    [b"", b"\n", b"<w>", b"</w>", b"<!-- <r> -->", b"text", b"<w a='/>'/>", b"<?p <r> ?>"]
)


@given(st.lists(st.tuples(between, records), max_size=8), st.lists(st.integers(0, 300), max_size=5))
def test_well_formed_records_are_found_whatever_is_in_and_between_them(
    parts: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    data = b"<l>" + b"".join(gap + record for gap, record in parts) + b"</l>"
    assert frame(XML, data, cuts).records == [record for _, record in parts]


@given(
    st.lists(st.sampled_from([b"<r>1</r>", b"<r><a><r>2</r></a></r>", b"<s/>"]), min_size=1, max_size=9),
    st.integers(0, 9),
    st.sampled_from(
        [b"<r>", b"<r><a>", b"<r><!-- x ", b"<r><![CDATA[x ", b"<r><?p ", b"<r a='", b'<r><a b="', b"<r"]
    ),
)
def test_a_record_that_is_not_closed_costs_its_neighbours_nothing(
    good: list[bytes], index: int, bad: bytes
) -> None:
    expected = [*good[:index], bad + b"\n", *good[index:]]
    assert frame(XML, b"\n".join([*good[:index], bad, *good[index:]]) + b"\n").records[: len(expected)] == (
        expected if index < len(good) else frame(XML, b"\n".join([*good, bad]) + b"\n").records
    )


def test_a_record_above_the_limit_is_told_and_the_next_one_found() -> None:
    long = b"<r>" + b"x" * 5000 + b"</r>"
    for cuts in ([], list(range(0, 5000, 100))):
        framed = frame(XML, b"<l><r>1</r>" + long + b"<r>2</r></l>", cuts, limit=2000)
        assert framed.records == [b"<r>1</r>", b"<r>2</r>"]
        assert list(framed.numbers) == [1, 3]
        assert [(line.offset, line.number, line.length) for line in framed.oversized] == [(11, 2, len(long))]


def test_a_comment_above_the_limit_does_not_hide_the_rest() -> None:
    data = b"<l><!-- " + b"x" * 5000 + b"<r>1</r> --><r>2</r>"
    for cuts in ([], list(range(0, 5000, 100))):
        framed = frame(XML, data, cuts, limit=2000)
        assert framed.records == [b"<r>1</r>", b"<r>2</r>"]
        assert len(framed.oversized) == 1


def test_records_are_not_waited_for_longer_than_that() -> None:
    framer = XmlFramer([b"r"], 1_048_576)
    assert framer.feed(b"<r>" + b"<r>1</r>" * NESTED).records == []
    assert len(framer.feed(b"<r>1</r>").records) == NESTED + 2
    framer = XmlFramer([b"r"], 2000)
    assert framer.feed(b"<r>" + b"x" * 1990).records == []
    assert framer.feed(b"<r>1</r>").records == [b"<r>" + b"x" * 1990, b"<r>1</r>"]
    assert framer.feed(b"<r>" + b"x" * (2000 + MARGIN)).records == []
    assert framer.held == 2003 + MARGIN


PROFILE = profile.load("avion-xml").model_dump() | {"record_type": "spot"}


def rows(text: str, **fields: str) -> list[str] | Reason:
    used = Profile.model_validate(
        PROFILE | {"xml": {"record": "r", "fields": PROFILE["xml"]["fields"] | fields}}
    )
    file = Descriptor(path="x", identity="0", format="xml", encoding="utf-8", profile=used)
    (row,) = XmlRows(file).read([text.encode()])
    if isinstance(row, dict):
        return row
    if isinstance(row, Unclear):
        return row.reasons[0]
    return [cell for name, cell in zip(used.xml.fields, row, strict=True) if name in fields]


@pytest.mark.parametrize(
    ("text", "path", "cell"),
    [
        ("<r><a>1</a></r>", "a", "1"),
        ("<r a='1'><b/></r>", "@a", "1"),
        ("<r><a><b>1</b></a></r>", "a/b", "1"),
        ("<r><a b='1'>2</a></r>", "a/@b", "1"),
        ("<r/>", "name()", "r"),
        ("<p:r/>", "name()", "r"),
        ("<r/>", "a", ""),
        ("<r><a/></r>", "a/b", ""),
        ("<r><a/></r>", "@b", ""),
        ("<p:r xmlns:p='u'><p:a q:b='2' xmlns:q='v'>1</p:a></p:r>", "a/@b", "2"),
        ("<p:r><p:a>Note: x</p:a></p:r>", "a", "Note: x"),
        ("<r xml:lang='en'><a>1</a></r>", "a", "1"),
        ("<r xmlns='u'><a>1</a></r>", "a", "1"),
        ("<r><a>&lt;&#233;&amp;<![CDATA[<b>&c;]]></a></r>", "a", "<é&<b>&c;"),
        ("<r><a>1<!-- x -->2<?p q?>3</a></r>", "a", "123"),
        ("<r><z/><z/><a>1</a></r>", "a", "1"),
        ("<r><r><a>2</a></r><a>1</a></r>", "a", "1"),
    ],
)
def test_a_path_leads_to_text(text: str, path: str, cell: str) -> None:
    assert rows(text, spot_id=path) == [cell]


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        ("<r><a>1</r>", "", "must be a well-formed element: mismatched tag"),
        ("<r><a>1", "", "must be a well-formed element: no element found"),
        ("<r>&e;</r>", "", "must be a well-formed element: undefined entity"),
        ("<r>&#0;</r>", "", "must be a well-formed element: reference to invalid character number"),
        ("<r>\0</r>", "", "must be a well-formed element: not well-formed (invalid token)"),
        ("<r/><r/>", "", "must be a well-formed element: junk after document element"),
        ("<p:r/><p:r/>", "", "must be a well-formed element: junk after document element"),
        ("<p:r/>x", "", "must be a well-formed element: junk after document element"),
        ("<p:r/></_><_>", "", "must be a well-formed element: junk after document element"),
        ("<r a='1' a='2'/>", "", "must be a well-formed element: duplicate attribute"),
        ("<!DOCTYPE r [<!ENTITY e 'x'>]><r>&e;</r>", "", "must be an element"),
        ("<?xml version='1.0'?><r/>", "", "must be an element"),
        ("</r>", "", "must be a well-formed element: not well-formed (invalid token)"),
        ("text", "", "must be an element"),
        ("<r><a>1</a><a>1</a></r>", "spot_id", "must be there once, a is there 2 times"),
        ("<r><a>1<b/></a></r>", "spot_id", "must be text and hold no elements"),
        ("<r><a><b/></a></r>", "spot_id", "must be text and hold no elements"),
    ],
)
def test_what_cannot_be_told_is_rejected_with_its_reason(text: str, field: str, rule: str) -> None:
    found = rows(text, spot_id="a")
    assert isinstance(found, dict)
    assert (found["field"], found["rule"]) == (field, rule)


def test_fields_that_cannot_be_told_are_rejected_with_all_other_reasons_of_their_record() -> None:
    file = Descriptor(
        path="x", identity="0", format="xml", encoding="utf-8", profile=profile.load("avion-xml")
    )
    good = (
        b"<Record type='SPOT'><Station>WABC</Station><AirDate>10/26/2026</AirDate><SpotID>SP-1</SpotID>"
        b"<Campaign>C-1</Campaign><Advertiser><Name>Acme</Name></Advertiser><Length>30</Length>"
        b"<Daypart>PR</Daypart><Status>scheduled</Status><Money><Rate>1.50</Rate></Money>"
        b"<BillCode>CASH</BillCode></Record>"
    )
    doubled = good.replace(b"<Campaign>", b"<SpotID>SP-2</SpotID><Campaign>C-0</Campaign><Campaign>")
    worse = doubled.replace(b"CASH", b"GIFT").replace(b"<Length>30", b"<Length><s/>30")
    judged = Judge(file).judge([good, doubled, worse, b"<Record><AirDate/><AirDate/></Record>"])
    assert isinstance(judged[0], Valid)
    found = [
        (verdict.record_type, {(one["field"], one["value"]) for one in verdict.reasons}, len(verdict.reasons))
        for verdict in judged[1:]
        if isinstance(verdict, Invalid)
    ]
    untold = {("spot_id", "SP-1, SP-2"), ("campaign_id", "C-0, C-1")}
    assert found == [
        ("spot", untold, 2),
        ("spot", untold | {("duration_s", ""), ("billing_code", "GIFT")}, 4),
        ("", {("broadcast_date", ", "), ("record_type", "")}, 2),
    ]


def test_a_record_cannot_grow_or_read_anything(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("told")
    laughs = "".join(f"<!ENTITY e{i + 1} '{f'&e{i};' * 10}'>" for i in range(9))
    for inner in (f"<!ENTITY e0 'x'>{laughs}", f"<!ENTITY e9 SYSTEM 'file://{secret}'>"):
        document = f"<!DOCTYPE r [{inner}]><r><a>&e9;</a></r>".encode()
        for record in frame(XML, document).records:
            found = rows(record.decode(), spot_id="a")
            assert isinstance(found, dict), found
            assert found["rule"] in ("must be an element", "must be a well-formed element: undefined entity")


def test_a_deep_record_is_read_without_falling() -> None:
    depth = 200_000
    assert rows("<r><a>1</a>" + "<b>" * depth + "</b>" * depth + "</r>", spot_id="a") == ["1"]


@given(
    st.recursive(
        st.sampled_from(["<a>1</a>", "<a b='2'/>", "<b>3</b>", "x", "<p:a/>", "<b p:b='4' b='5'>6</b>"]),
        lambda inner: st.tuples(st.sampled_from("ab"), st.lists(inner, max_size=3)).map(
            lambda part: f"<{part[0]}>{''.join(part[1])}</{part[0]}>"
        ),
        max_leaves=6,
    ),
    st.sampled_from(["a", "b", "@b", "a/b", "a/@b", "b/@b", "a/a/b", "a/b/@b", "name()"]),
)
def test_the_quick_way_to_the_fields_comes_to_the_same(inner: str, path: str) -> None:
    text = f"<r b='0'>{inner}</r>"
    quick = rows(text, spot_id=path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(XmlRows, "_gather", lambda *_: False)
        assert rows(text, spot_id=path) == quick
