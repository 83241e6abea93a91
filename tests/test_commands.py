"""The pages that are made of the code, the commands' help, and completion in bash."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import fields
import pytest
import reference
from reference import commands

from schemas.batch import HEADERS, Source, build
from schemas.errors import Unreachable
from schemas.letter import DeadLetter, Receipt
from streams.cli import main
from streams.dispatch.message import REDRIVE_OF, REJECTED_BEFORE, REPLAY
from streams.recovery import deadletters
from streams.settings import Settings
from streams.worker import Supervisor

_BIN = Path(sys.executable).parent
_DOCS = Path(__file__).parent.parent / "docs"


def bash(script: str, home: Path) -> str:
    """What a bash prints that finds our commands, with a home of its own."""
    environment = {"PATH": f"{_BIN}:{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, cwd=home, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command in this process: its status, what it prints, and what it says is wrong."""

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["spotstream", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_debug_adds_the_traceback_and_changes_no_status(run: Run, debug: tuple[str, ...]) -> None:
    status, out, said = run("profile", "show", "none.toml", *debug)
    assert (status, out) == (2, "")
    assert said.startswith("Traceback (most recent call last):") == bool(debug)
    assert said.splitlines()[-1].startswith("spotstream: none.toml: ")


@pytest.mark.parametrize("debug", [False, True])
async def test_debug_reaches_the_roles_of_a_worker(
    debug: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setenv("SPOTSTREAM_KAFKA__TIMEOUT_S", "1")
    supervisor = Supervisor(Settings(), debug=debug)
    assert await supervisor._run_once("dispatch") == Unreachable.exit_status
    said = capfd.readouterr().err
    assert ("Traceback (most recent call last):" in said) == debug
    assert "127.0.0.1:9" in said.splitlines()[-1]


def test_the_version_is_told(tmp_path: Path) -> None:
    with (_DOCS.parent / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert bash("spotstream --version", tmp_path) == f"spotstream {version}\n"


_COMPLETE = """
words() {  # what bash offers for the last one of these words
    local function=$(complete -p spotstream | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); "$function" spotstream; echo "${COMPREPLY[@]}"
}
"""


@pytest.mark.parametrize(("page", "maker"), [("commands.md", reference), ("topics.md", fields)])
def test_a_page_that_is_made_is_as_it_would_be_made_today(page: str, maker: ModuleType) -> None:
    found = (_DOCS / page).read_text(encoding="utf-8")
    assert found == maker.text(), f"python tests/{maker.__name__}.py > docs/{page}"


def test_every_field_and_header_of_what_lies_on_topics_is_explained() -> None:
    for model in (DeadLetter, Receipt):
        assert {name for name, _, meaning in fields.fields(model) if meaning} == set(model.model_fields)
    built = build([("00" * 32, b'{"a":1}')]).headers(Source(0, 0, 0, 1, "0"), [], [], 0)
    assert HEADERS.keys() == {*dict(built), REDRIVE_OF, REPLAY, REJECTED_BEFORE}


def test_every_command_and_option_says_what_it_does() -> None:
    for name, command in commands():
        assert command.help, name
        for parameter in command.params:
            assert parameter.hidden or parameter.help or parameter.param_type_name == "argument", (
                name,
                parameter,
            )


def offered(home: Path, source: str, *lines: str) -> list[set[str]]:
    script = source + _COMPLETE + "\n".join(f"words {line}" for line in lines)
    return [set(line.split()) for line in bash(script, home).splitlines()[-len(lines) :]]


@pytest.mark.parametrize("way", ["show", "install"])
def test_bash_completes(tmp_path: Path, way: str) -> None:
    if way == "install":
        bash("spotstream --install-completion; true", tmp_path)
        source = 'source "$HOME/.bashrc"\n'
    else:
        source = 'shown=$(spotstream --show-completion); eval "$shown"\n'
    first, topics, tail, role = offered(
        tmp_path,
        source,
        "spotstream d",
        "spotstream topics ''",
        "spotstream tail --o",
        "spotstream worker --role v",
    )
    assert first == {"demo", "dlq", "doctor"}
    assert topics == {"plan", "apply"}
    assert tail == {"--once"}
    assert role == {"validate"}


@pytest.mark.parametrize("command", [("replay", "--since", "1d"), ("dlq", "list")])
def test_a_kind_that_there_is_not_is_refused_and_not_looked_for(run: Run, command: tuple[str, ...]) -> None:
    status, out, err = run(*command, "--kind", "promo")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("spotstream: promo: no such kind of record; one of spot, avail, billing, makegood")
    assert line.endswith("record, batch") == (command[0] == "dlq")


def test_kinds_of_letters_are_those_of_records_as_people_call_them_and_two_more(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [
        deadletters.Summary(key, kind, "dispatch", "refused", record_type, 1, (), 1, "")
        for key, kind, record_type in [("a", "record", "spot"), ("b", "record", "avail"), ("c", "batch", "")]
    ]
    monkeypatch.setattr(deadletters, "summaries", lambda _: letters)
    for kind, keys in {"spots": "a", "Avail": "b", "record": "ab", "batch": "c", "": "abc"}.items():
        status, out, _ = run("dlq", "list", "--json", "--kind", kind)
        assert (status, [json.loads(line)["key"] for line in out.splitlines()]) == (0, list(keys))


def test_replay_without_a_selection_says_how_one_looks(run: Run) -> None:
    status, _, err = run("replay", "--kind", "spots")
    assert (status, err) == (
        2,
        "spotstream: give either --since or --offsets; as in --since 1d, or --offsets 3:1000-1999\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tail"], "spotstream tail: Missing argument 'PATH…'"),
        (["tail", "--onec", "x"], "spotstream tail: No such option: --onec"),
        (["nope"], "spotstream: No such command 'nope'"),
        (["dlq", "--nope"], "spotstream dlq: No such option: --nope"),
        (["dlq", "discard", "k"], "spotstream dlq discard: Missing option '--why'"),
        (
            ["generate", "--records", "x"],
            "spotstream generate: Invalid value for '--records': Input should be",
        ),
        (["audit", "--debug", "x"], "spotstream audit: Got unexpected extra argument(s) (x)"),
    ],
)
def test_wrong_usage_is_one_line_that_says_where_help_is(run: Run, arguments: list[str], said: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(said)
    assert line.endswith(f"; see `{said.partition(':')[0]} --help`")


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 2), (["dlq"], 2), (["dlq", "--help"], 0), (["--version"], 0)]
)
def test_help_is_help_and_not_an_error(run: Run, arguments: list[str], status: int) -> None:
    found, out, err = run(*arguments)
    assert (found, err) == (status, "")
    assert "spotstream" in out


def test_ctrl_c_ends_a_command_as_it_ends_any_program(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deadletters, "summaries", interrupted)
    assert run("dlq", "list") == (130, "", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tail", ""), "a PATH is empty"),
        (("tail", "log.csv", ""), "a PATH is empty"),
        (("doctor", ""), "a PATH is empty"),
        (("demo", "--file", ""), "a PATH is empty"),
        (
            ("tail", "log.csv", "--done-dir", ""),
            "spotstream tail: Invalid value for '--done-dir': it is empty",
        ),
        (("sandbox", "--data-dir", ""), "spotstream sandbox: Invalid value for '--data-dir': it is empty"),
        (("up", "--data-dir", ""), "spotstream up: Invalid value for '--data-dir': it is empty"),
        (("doctor", "--timeout", "inf"), "--timeout"),
        (("doctor", "--timeout", "nan"), "--timeout"),
        (("profile", "check", "log.csv", "--mapped", "9" * 30), "--mapped"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    arguments: tuple[str, ...], told: str, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("sys.argv", ["spotstream", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
