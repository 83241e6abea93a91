"""The command line as a whole: its reference page, its help, and completion in bash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reference import commands, text

_BIN = Path(sys.executable).parent
_PAGE = Path(__file__).parent.parent / "docs" / "commands.md"


def bash(script: str, home: Path) -> str:
    """What a bash prints that finds our commands, with a home of its own."""
    environment = {"PATH": f"{_BIN}:{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, cwd=home, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


_COMPLETE = """
words() {  # what bash offers for the last one of these words
    local function=$(complete -p spotstream | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); "$function" spotstream; echo "${COMPREPLY[@]}"
}
"""


def test_the_reference_is_the_command_lines_own() -> None:
    assert _PAGE.read_text(encoding="utf-8") == text(), "python tests/reference.py > docs/commands.md"


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
