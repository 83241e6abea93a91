"""What is printed for people: nothing that a terminal obeys, and a table that fits."""

import io

import pytest
from rich.console import Console

from schemas.errors import Problem
from streams import cli, doctor
from streams.audit.account import Audit, show
from streams.audit.books import Finding, Statement, Tally
from streams.console import printable, safe
from streams.settings import Settings
from topics import provision
from topics.drift import Action, Change


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


HOSTILE = "x\x1b]0;title\x07\nok    kafka: all is well\r\x9b2J"


def _is_one_line(said: str) -> bool:
    return said.endswith("\n") and said[:-1].isprintable()


def test_an_error_is_one_line_that_the_terminal_does_not_obey(monkeypatch, capsys) -> None:
    """It may quote a file's name, or what a service has said."""
    monkeypatch.setattr("sys.argv", ["spotstream", "profile", "show", HOSTILE])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert _is_one_line(said)
    assert "no such profile" in said


def test_lines_of_a_log_stand_below_an_error_as_lines(monkeypatch, capsys) -> None:
    def fail(**_: object) -> None:
        raise Problem("did not start", where="kafka", below=["the disk is full", HOSTILE])

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    first, second, third = capsys.readouterr().err.splitlines()
    assert (first, second) == ("spotstream: kafka: did not start", "the disk is full")
    assert third.isprintable()


def test_a_wrong_setting_is_one_line_of_config_check(monkeypatch, capsys) -> None:
    monkeypatch.setenv("SPOTSTREAM_TAIL__PROFILE", HOSTILE)
    monkeypatch.setattr("sys.argv", ["spotstream", "config", "check"])
    with pytest.raises(SystemExit):
        cli.main()
    assert _is_one_line(capsys.readouterr().err)


def test_a_service_that_answers_forges_no_verdict_of_the_doctor(monkeypatch, capsys) -> None:
    found = [doctor.Verdict("registry", "fail", f"was refused: {HOSTILE}", HOSTILE)]
    monkeypatch.setattr(doctor, "examine", lambda *_: found)
    assert doctor.run(Settings(), (), timeout_s=1, as_json=False) == 1
    said = capsys.readouterr().out
    assert _is_one_line(said)
    assert said.startswith("fail  registry: was refused: x\\x1b]0;title\\x07\\nok")


def test_what_a_broker_says_of_its_topics_is_one_line_each(monkeypatch, capsys) -> None:
    changes = [Change(Action.ALTER, "avion.raw", "compression.type", HOSTILE, "producer")]
    for command in ("plan", "apply"):
        monkeypatch.setattr(provision, command, lambda *_, **__: changes)
        monkeypatch.setattr("sys.argv", ["spotstream", "topics", command])
        with pytest.raises(SystemExit):
            cli.main()
        assert _is_one_line(capsys.readouterr().out)


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
