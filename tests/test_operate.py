"""docs/operate.md and docs/guarantees.md: every command in them runs, every place that they name is there."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flow import Flow, Log, until

from streams.lab.generate import generate, write
from topics.catalogue import RAW
from topics.connection import KafkaSettings
from topics.reader import read_all

_DOCS = Path(__file__).parent.parent / "docs"
_PAGES = [_DOCS / "operate.md", _DOCS / "guarantees.md"]
_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", _PAGES[0].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_has_the_commands_that_are_run_here() -> None:
    named = set(re.findall(r"^spotstream (\w+(?: [a-z]+)?)", "\n".join(_BLOCKS), re.MULTILINE))
    assert {"doctor log", "topics plan", "topics apply", "dlq redrive", "dlq discard"} <= named
    assert {"replay", "worker", "audit", "config check"} <= {name.split(" --")[0] for name in named}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_and_tests_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
    tests = re.findall(r"`(tests/\w+\.py)`", text)
    assert [test for test in tests if not (_DOCS.parent / test).exists()] == []


@pytest.mark.broker
def test_commands_run_as_written(flow: Flow) -> None:
    path = flow.folder / "log.csv"
    with path.open("wb") as stream:
        truth = write(stream, list(generate(500, 71, 0.05)))
    log = Log(path, truth, {})
    worker = flow.start("worker", BATCH__SECONDS=0.2)
    flow.tail(log)
    flow.settle()
    until(lambda: flow.audit()[0] == 0)
    keys = [key for key, letter, _ in flow.letters() if letter.reason == "invalid"]
    good = next(verdict for verdict in log.verdicts if verdict.placement_hash)
    (flow.folder / "mended-row.csv").write_bytes(log.records[log.verdicts.index(good)])
    shown = subprocess.run(
        ["spotstream", "profile", "show", "avion"], env=environment(flow), capture_output=True, check=True
    )
    (flow.folder / "mended.toml").write_bytes(shown.stdout)
    given = {"KEY": keys[0], "OTHER_KEY": keys[1], "PARTITION": str(partition(flow.kafka))}
    for block in _BLOCKS:
        done = subprocess.run(
            ["sh", "-e", "-c", block], cwd=flow.folder, env=environment(flow) | given,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        if "redrive" in block:
            until(lambda: not {*keys[:2]} & {letter["key"] for letter in flow.listed()})
        flow.settle()
    worker.end(signal.SIGTERM)


def environment(flow: Flow) -> dict[str, str]:
    """The flow's, with our commands on the path."""
    ours = flow.environment()
    return ours | {"PATH": f"{Path(sys.executable).parent}:{ours['PATH']}"}


def partition(kafka: KafkaSettings) -> int:
    """Where the records lie."""
    return next(iter(read_all(kafka, RAW.name))).partition()
