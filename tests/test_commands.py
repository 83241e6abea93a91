"""The pages that are made of the code, the commands' help, and completion in bash."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import fields
import pytest
import reference
from reference import commands

from schemas.batch import HEADERS, Source, build
from schemas.letter import DeadLetter, Receipt
from streams.dispatch.message import REDRIVE_OF, REJECTED_BEFORE, REPLAY

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
