"""The records of a feed go the way of a file's: validated, booked, audited, replayed."""

import json
import os
import signal
import subprocess

import pytest
from flow import COMMAND, Flow, until
from legacy import BAD, cleaned, example, export, peak_mb, write
from test_feed import Source

pytestmark = pytest.mark.broker


def audited(flow: Flow, name: str) -> dict[str, int]:
    """The audit's numbers of a feed."""
    done = subprocess.run(
        [*COMMAND, "audit", "--json", "--file", f"feed:{name}"],
        env=flow.environment(),
        capture_output=True,
        timeout=90,
        check=False,
    )
    return {key: value for key, value in json.loads(done.stdout).items() if isinstance(value, int)}


def test_an_export_is_booked_once_whatever_kills_the_program(flow: Flow, unique: str) -> None:
    """Killed in the middle and run again; then validated, booked, audited and replayed like a file.

    The export comes through a pipe that holds back what the program is not to reach yet.
    """
    pipe = flow.folder / f"{unique[-40:]}.csv"
    os.mkfifo(pipe)
    source = Source(flow.lab.broker.bootstrap, f"legacy-{pipe.stem}")
    for reached in (25_000, 45_000):
        process, before = example(source.kafka.bootstrap_servers, "legacy_csv.py", pipe), source.committed()
        with pipe.open("w", encoding="latin-1") as stream:
            write(stream, reached)
            until(lambda: source.committed() > before)  # noqa: B023 - called now
            process.kill()
            assert process.wait() == -signal.SIGKILL
    assert 0 < source.committed() < 60_000
    process = example(source.kafka.bootstrap_servers, "legacy_csv.py", pipe)
    export(pipe, 60_000)
    peak_mb(process)
    rows = range(60_000)
    assert source.values() == list(map(cleaned, rows))
    bad = sum(number % BAD == 1 for number in rows)
    worker = flow.start("worker")
    flow.settle(90)
    numbers = {"records": 60_000, "published": 60_000, "rejected": bad, "delivered": 60_000 - bad}
    numbers |= {"dead_lettered": 0, "missing": 0, "duplicates": 0}
    assert audited(flow, source.name).items() >= numbers.items()
    assert set(flow.booked().values()) == {1}
    assert flow.booked().total() == 60_000 - bad
    assert [letter["files"] for letter in flow.listed("--file", source.path)] == [[source.path]] * bad
    status, said = flow.run("replay", "--since", "1h", "--file", source.path)
    assert status == 0, said
    flow.settle()
    assert flow.booked().total() == 60_000 - bad
    assert audited(flow, source.name).items() >= numbers.items()
    assert worker.end(signal.SIGTERM) == 0
