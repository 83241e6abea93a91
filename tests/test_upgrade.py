"""From an earlier release's state, stopped in the midst of everything, today's goes on: tests/snapshot.py."""

import gzip
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import snapshot
from flow import COMMAND, Flow
from oracle import verdicts

from streams.lab.up import Lab
from topics.catalogue import VALIDATED

pytestmark = pytest.mark.broker

SNAPSHOTS = sorted((Path(__file__).parent / "snapshots").glob("*.json.xz"))
HASTE = {"BATCH__SECONDS": 0.2, "WORKER__SESSION_TIMEOUT_S": 6, "DLQ__FLOOD_SHARE": 1}


@pytest.fixture(params=SNAPSHOTS, ids=lambda path: path.name.partition(".")[0])
def left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Flow, Any]]:
    """A lab with the state that a release left behind."""
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        state = snapshot.load(request.param, lab)
        with Flow(lab, tmp_path_factory.mktemp("flow")) as flow:
            yield flow, state


def test_nothing_is_lost_and_nothing_done_twice(left: tuple[Flow, Any]) -> None:
    flow, state = left
    before = flow.audit()[1]
    named = (
        "records",
        "published",
        "validated",
        "rejected",
        "batches",
        "delivered",
        "dead_lettered",
        "duplicates",
    )
    assert {name: before[name] for name in named} == {name: state["audit"][name] for name in named}
    assert flow.run("topics", "apply")[0] == 0
    assert flow.run("config", "check")[0] == 0

    accepted: Counter[str] = Counter()
    worker = flow.start("worker", **HASTE)
    for name, (_, form, _) in snapshot.FILES.items():
        path, data = flow.folder / name, snapshot.content(name)
        # Where it is now, nobody has read it: by its content it is what the checkpoint tells of.
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        accepted.update(verdict.placement_hash for verdict in verdicts(data, form) if verdict.placement_hash)
        profile = "avion" if form == "csv" else f"avion-{form}"
        status, said = flow.run("tail", path, "--once", "--profile", profile)
        assert status == 0, said
    flow.settle()

    records = sum(records for records, _, _ in snapshot.FILES.values())
    status, audit = flow.audit()
    assert (status, audit["records"], audit["published"]) == (0, records, records), audit["findings"]
    assert (audit["missing"], audit["duplicates"]) == (0, 0)
    assert audit["dead_lettered"] == state["audit"]["dead_lettered"] > 0
    booked = Counter(state["booked"]) + flow.booked()
    assert max(booked.values()) == 1
    refused = accepted - booked
    assert not booked - accepted
    assert refused.total() > audit["dead_lettered"]

    status, said = flow.run("dlq", "redrive", "--all")
    assert status == 0, said
    flow.settle()
    assert Counter(state["booked"]) + flow.booked() == accepted
    status, audit = flow.audit()
    assert (status, audit["delivered"], audit["dead_lettered"]) == (0, accepted.total(), 0), audit["findings"]
    assert {letter["reason"] for letter in flow.listed()} == {"invalid"}
    assert "Traceback" not in worker.said
    assert worker.end(15) == 0

    read = Counter[str]()
    for kind in VALIDATED:
        done = subprocess.run(
            [*COMMAND, "subscribe", kind], env=flow.environment(), capture_output=True, check=True
        )
        read.update(json.loads(line)["placement_hash"] for line in done.stdout.splitlines())
    assert read == accepted
