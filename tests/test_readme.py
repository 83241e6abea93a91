"""The README's commands, run as written in a copy of the repository."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from streams.cli import app
from streams.lab.generate import generate, write

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", _README, re.MULTILINE | re.DOTALL)
#: That one is what runs this.
_OURSELVES = "make test\n"
_ENDED_BY_AUDIT = "every record is accounted for, once"
_CHECKED = "500 records"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds, with our environment in the place of the one that `make install` would make.

    And a file in the place of the reader's own.
    """
    folder = tmp_path_factory.mktemp("readme") / "spotstream"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (_ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / "ready").touch()
    with (folder / "mine.csv").open("wb") as stream:
        write(stream, generate(500, seed=1, bad_rate=0))
    return folder


def _run(block: str, folder: Path) -> str:
    """Run a block in a shell that stops at the first command that fails; gives what it printed."""
    foreign = ("SPOTSTREAM_", "MAKE", "MFLAGS", "ARGS")  # of the make that runs us
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    with subprocess.Popen(
        ["sh", "-e", "-c", block],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=150)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGTERM)  # with what it has put into the background
    assert shell.returncode == 0, output
    return output


def test_has_the_blocks_that_are_run_here() -> None:
    assert _OURSELVES in _BLOCKS
    assert len(_BLOCKS) == 5


@pytest.mark.broker
@pytest.mark.parametrize("block", [block for block in _BLOCKS if block != _OURSELVES])
def test_commands_run_as_written(block: str, clone: Path) -> None:
    assert (_CHECKED if "profile check" in block else _ENDED_BY_AUDIT) in _run(block, clone)


def test_has_every_command() -> None:
    described = set(re.findall(r"^\| `spotstream (\w+)` \|", _README, re.MULTILINE))
    assert described == set(typer.main.get_command(app).commands)


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", _README)
    assert links
    assert [link for link in links if not (_ROOT / link).exists()] == []
