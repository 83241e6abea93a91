"""Load: hours at most of what is possible, bursts, backlogs, many files, many letters. Minutes to hours each.

``LOAD_…`` in the environment make them shorter; docs/reliability.md tells what was run.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from flow import COMMAND, until
from load import Plant

from streams.lab.generate import generate
from streams.lab.up import Lab

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(0)]


def _given(name: str, usual: float) -> float:
    return float(os.environ.get(f"LOAD_{name}", usual))


#: What a slope may add in a day without being called one.
BOUNDS = {"rss MB": 100.0, "descriptors": 20.0, "threads": 10.0, "lag": 50_000.0}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """One of its own: a ledger of millions is nobody else's."""
    with Lab(tmp_path / "lab") as running:
        yield running


def told(what: str, **figures: object) -> None:
    """One line for the document."""
    rounded = {name: round(one, 1) if isinstance(one, float) else one for name, one in figures.items()}
    print(f"\n{what}: {json.dumps(rounded)}", flush=True)


def whole(plant: Plant) -> None:
    """All that was written is accounted for, and booked once."""
    audit = plant.audit()
    numbers = {"records": plant.written, "missing": 0, "duplicates": 0, "dead_lettered": 0}
    assert {name: audit[name] for name in numbers} == numbers
    assert audit["delivered"] == plant.good
    assert plant.ledger()["duplicates_booked"] == 0


def capacity(plant: Plant, records: int) -> float:
    """Records a second from a line's making to its booking, when there is no end of lines."""
    began = time.monotonic()
    plant.feed(records)
    plant.await_booked(3600)
    return records / (time.monotonic() - began)


def play(lab: Lab, *faults: dict[str, Any]) -> None:
    """Have Avstar play these."""
    url, data = f"{lab.sandbox.url}/sandbox/faults", json.dumps({"faults": faults}).encode()
    urllib.request.urlopen(urllib.request.Request(url, data=data, method="PUT"), timeout=30).close()


def test_a_soak(lab: Lab, tmp_path: Path) -> None:
    """At 70 % of capacity, something failing each half minute: nothing grows of what never failed itself."""
    minutes = _given("SOAK_MINUTES", 120)
    chance, over = random.Random(1), threading.Event()
    with Plant(lab, tmp_path, seed=1000, workers=2) as plant:
        plant.start(plant.tailer, *plant.workers)
        capacity(plant, 20_000)  # all are warm
        per_s = 0.7 * capacity(plant, 60_000)

        def fail() -> None:
            """Half of Avstar's answers, the second worker or one of its roles, the registry."""
            while not over.wait(30):
                kind = chance.choice(("role", "worker", "503", "lost_answer", "429", "registry"))
                if kind == "registry":
                    lab.registry.restart()
                elif kind == "worker":
                    plant.workers[1].kill()
                elif kind == "role":
                    role = plant.workers[1].role(chance.choice(("validate", "dispatch")))
                    if role:
                        role.kill()
                else:
                    status = {"kind": "status", "status": int(kind)} if kind.isdigit() else {"kind": kind}
                    play(lab, status | {"probability": 0.5, "for_s": 5.0})
                failed.append(kind)

        def rotate() -> None:
            while not over.wait(60):
                plant.rotate()

        failed: list[str] = []
        threads = [threading.Thread(target=work, daemon=True) for work in (fail, rotate)]
        for thread in threads:
            thread.start()
        began = plant.samples[-1]["at"]
        plant.feed_for(60 * minutes, per_s)
        over.set()
        for thread in threads:
            thread.join()
        play(lab)
        slopes = plant.slopes(began + 0.2 * 60 * minutes)
        drained_s = plant.await_booked(1800)
        told(
            "soak", minutes=minutes, per_s=per_s, records=plant.written, faults=len(failed),
            drained_s=drained_s, load=os.getloadavg()[2],
            slopes={n: (round(s.mean, 1), round(s.per_day, 1), round(s.error, 1)) for n, s in slopes.items()},
        )  # fmt: skip
        whole(plant)
        assert not [n for n, s in slopes.items() if not s.is_flat(BOUNDS[n.partition(" ")[2] or n])]
        assert not plant.workers[0].exits
        assert not plant.tailer.exits


def test_a_burst(lab: Lab, tmp_path: Path) -> None:
    """Ten times as much as usual for a minute: it waits on the topics, and is gone soon after."""
    seconds = _given("BURST_SECONDS", 60)
    with Plant(lab, tmp_path, seed=2000) as plant:
        plant.start(plant.tailer, *plant.workers)
        capacity(plant, 20_000)
        usual = 0.2 * capacity(plant, 60_000)
        plant.feed_for(seconds, usual)
        before = plant.peak("dispatch rss MB")
        written = plant.written
        plant.feed_for(seconds, 10 * usual)
        burst = (plant.written - written) / seconds
        drained_s = plant.await_booked(1800)
        told(
            "burst", usual_per_s=usual, burst_per_s=burst, seconds=seconds, lag=plant.peak("lag"),
            drained_s=drained_s, load=os.getloadavg()[1], dispatch_mb_before=before,
            mb={role: plant.peak(f"{role} rss MB") for role in ("tail", "validate", "dispatch")},
        )  # fmt: skip
        whole(plant)
        assert max(plant.peak(f"{role} rss MB") for role in ("tail", "validate", "dispatch")) < 600


def test_a_backlog(lab: Lab, tmp_path: Path) -> None:
    """Workers come to a topic that is full, and new records keep coming."""
    records = int(_given("BACKLOG", 20_000_000))
    with Plant(lab, tmp_path, seed=3000) as plant:
        plant.start(plant.tailer)
        began = time.monotonic()
        while plant.written < records:
            plant.feed(min(500_000, records - plant.written))
            plant.rotate()
        until(lambda: not any(plant.logs.iterdir()), 3600)  # published, and deleted
        filled_s = time.monotonic() - began
        plant.start(*plant.workers)
        began = time.monotonic()
        new = threading.Thread(
            target=plant.feed_for, args=(_given("BACKLOG_NEW_SECONDS", 120), 500), daemon=True
        )
        new.start()
        new.join()
        plant.await_booked(4 * 3600)
        drained_s = time.monotonic() - began
        told(
            "backlog", records=records, filled_s=filled_s, drained_s=drained_s, written=plant.written,
            per_s=plant.written / drained_s, load=os.getloadavg()[2],
            mb={role: plant.peak(f"{role} rss MB") for role in ("tail", "validate", "dispatch")},
        )  # fmt: skip
        whole(plant)
        assert max(plant.peak(f"{role} rss MB") for role in ("tail", "validate", "dispatch")) < 600


def test_500_files_at_once(lab: Lab, tmp_path: Path) -> None:
    """They lie there when the tailer starts."""
    files, each = int(_given("FILES", 500)), 200
    with Plant(lab, tmp_path, seed=4000) as plant:
        head, *lines = generate(files * each, 4000, 0.01)
        for number in range(files):
            part = lines[number * each : (number + 1) * each]
            (plant.logs / f"{number}.csv").write_bytes(head.data + b"".join(line.data for line in part))
        lines = lines[: files * each]  # there are some empty ones more
        plant.written = sum(line.number > 0 for line in lines)
        plant.good = sum(line.number > 0 and not line.fault for line in lines)
        plant.start(*plant.workers)
        until(lambda: plant.workers[0].said.count('"event": "started"') == 2, 120)
        began = time.monotonic()
        plant.start(plant.tailer)
        plant.await_booked(1800)
        told(
            "files", files=files, records=plant.written, booked_s=time.monotonic() - began,
            descriptors=plant.peak("tail descriptors"), mb=plant.peak("tail rss MB"), load=os.getloadavg()[0],
        )  # fmt: skip
        whole(plant)


def test_many_letters(lab: Lab, tmp_path: Path) -> None:
    """Avstar refuses half of the records; letters are listed, one is shown, all are redriven and booked."""
    many = int(_given("LETTERS", 100_000))
    with Plant(lab, tmp_path, seed=5000, DLQ__FLOOD_REFUSED=0) as plant:
        play(lab, {"kind": "reject", "record_probability": 0.5})
        plant.start(plant.tailer, *plant.workers)
        began = time.monotonic()
        while plant.good < 2 * many:
            plant.feed(min(10_000, 2 * many - plant.good))
        plant.rotate()

        def settled() -> bool:
            return plant.ledger()["unique_records"] + len(listed("--reason", "rejected")[0]) >= plant.good

        until(settled, 1800, 5)
        refused_s = time.monotonic() - began
        play(lab)
        lines, list_s, list_mb = listed("--reason", "rejected")
        key = json.loads(lines[len(lines) // 2])["key"]
        shown, show_s, show_mb = command("dlq", "show", key)
        assert key in shown
        _, redrive_s, redrive_mb = command("dlq", "redrive", "--reason", "rejected")
        booked_s = plant.await_booked(1800)
        left, *_ = listed("--reason", "rejected")
        told(
            "letters", letters=len(lines), refused_s=refused_s, list_s=list_s, list_mb=list_mb, show_s=show_s,
            show_mb=show_mb, redrive_s=redrive_s, redrive_mb=redrive_mb, booked_s=booked_s, left=len(left),
            load=os.getloadavg()[0],
        )  # fmt: skip
        until(lambda: not listed("--reason", "rejected")[0], 120)
        whole(plant)


def listed(*more: str) -> tuple[list[str], float, float]:
    """The letters, a line each; how long that took, and how many MB."""
    said, seconds, megabytes = command("dlq", "list", "--json", *more)
    return said.splitlines(), seconds, megabytes


def command(*arguments: str) -> tuple[str, float, float]:
    """What it printed, how long it took, and how many MB at the most."""
    began, most = time.monotonic(), 0.0
    running = psutil.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=sys.stderr)
    said: list[bytes] = []
    reading = threading.Thread(target=lambda: said.append(running.stdout.read()))
    reading.start()
    while running.poll() is None:
        try:
            most = max(most, running.memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    reading.join()
    assert running.wait() in (0, 1), arguments
    return said[0].decode(), time.monotonic() - began, most
