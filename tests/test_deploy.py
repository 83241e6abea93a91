"""docs/deploy.md and docs/security.md: what they tell to write and to run is taken."""

import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest

from topics.connection import KafkaSettings

ROOT = Path(__file__).parents[1]
DEPLOY, SECURITY = (ROOT / "docs" / name for name in ("deploy.md", "security.md"))
COMPOSE = (ROOT / "docker" / "compose.yml").read_text()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [DEPLOY, SECURITY], ids=lambda page: page.name)
def test_links_and_files_that_are_named_are_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"\b(?:docker|tests)/[\w./-]+\w", text)
    made_there = ("docker/secrets", "docker/files")
    assert [name for name in named if not name.startswith(made_there) and not (ROOT / name).exists()] == []


def test_settings_are_taken_as_written() -> None:
    written = [KafkaSettings(**tomllib.loads(block)["kafka"]) for block in blocks(SECURITY, "toml")]
    assert [kafka.sasl_mechanism for kafka in written] == ["SCRAM-SHA-512", "OAUTHBEARER"]


def test_variables_of_compose_are_listed_with_their_defaults() -> None:
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", DEPLOY.read_text(), re.MULTILINE))
    found = dict(re.findall(r"\$\{(\w+):-(.*?)\}", COMPOSE))
    assert table.keys() == found.keys()
    for name, told in table.items():
        if told.startswith("`") and told.endswith("`"):
            assert told == f"`{found[name]}`", name


def test_secrets_that_compose_wants_are_made(tmp_path: Path) -> None:
    (block,) = blocks(DEPLOY, "sh")
    subprocess.run(["sh", "-e", "-c", block], cwd=tmp_path, check=True, timeout=30)
    wanted = re.findall(r"\{file: \./secrets/(\w+)\}", COMPOSE)
    made = {path.name: path.read_text().strip() for path in (tmp_path / "docker" / "secrets").iterdir()}
    assert set(made) == set(wanted)
    assert all(len(secret) >= 30 for secret in made.values())
    assert (tmp_path / "docker" / "files").is_dir()


def test_known_vulnerabilities_fail_and_no_answer_does_not() -> None:
    verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]
    unknown = {"name": "a", "skip_reason": "not found"}
    well = {"name": "b", "version": "1", "vulns": []}
    ill = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    assert verdict({"dependencies": [unknown]}) == (
        0,
        "skipped: the service knows none of the packages",
    )
    assert verdict({"dependencies": [unknown, well]})[0] == 0
    assert verdict({"dependencies": [unknown, well, ill]}) == (1, "c 2: CVE-1, fixed in 3")
