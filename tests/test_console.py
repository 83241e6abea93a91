"""What is printed for people: nothing that a terminal obeys, and a table that fits."""

import io

from rich.console import Console

from streams.audit.account import Audit, show
from streams.audit.books import Finding, Statement, Tally
from streams.console import printable, safe


def _shown(audit: Audit, width: int) -> str:
    screen = io.StringIO()
    show(audit, Console(file=screen, width=width))
    return screen.getvalue()


def _audit(*files: Tally, findings: tuple[Finding, ...] = ()) -> Audit:
    total = Tally("all")
    for tally in files:
        total.add(tally)
    return Audit(Statement(list(files), total, list(findings)), 1.25)


def test_control_characters_from_files_are_shown_and_not_obeyed() -> None:
    assert safe("a\x1b[2Jb\x07\r\u202eé\n\tc").plain == "a\\x1b[2Jb\\x07\\r\\u202eé\n\tc"


def test_what_is_part_of_a_line_stays_one_line() -> None:
    assert (
        printable("a\x1b[2J\r\n\tok\u2028\u202e\x9b\udc80é")
        == "a\\x1b[2J\\r\\n\\tok\\u2028\\u202e\\x9b\\udc80é"
    )


def test_the_audit_fits_a_narrow_terminal_and_tells_more_on_a_wide_one() -> None:
    whole = _audit(Tally("/logs/night.csv", records=1_234_567, published=1_234_567, delivered=1_234_567))
    narrow, wide = _shown(whole, 80), _shown(whole, 200)
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.count("1,234,567") == 2
    assert wide.count("1,234,567") == 3
    assert "published" in wide
    assert "published" not in narrow
    assert "every record is accounted for, once" in narrow


def test_the_audit_of_several_files_has_a_line_for_all_and_says_what_is_wrong() -> None:
    lost = Finding("missing", "/b[red].csv", "in a batch without receipt", 3, 8, 1, 70)
    failed = _audit(
        Tally("/a.csv", records=5, delivered=5),
        Tally("/b[red].csv", records=4, delivered=1, missing=3),
        findings=(lost,) * 25,
    )
    shown = _shown(failed, 200)
    assert [line.split()[:2] for line in shown.splitlines() if line.strip().startswith(("/", "all"))] == [
        ["/a.csv", "5"],
        ["/b[red].csv", "4"],
        ["all", "9"],
    ]
    assert (
        "missing: /b[red].csv: 3 records in a batch without receipt, from record 8, avion.raw 1:70" in shown
    )
    assert shown.count("missing: ") == 20
    assert "… and more" in shown
    assert "the audit FAILED" in shown
