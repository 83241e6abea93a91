"""Hostile exports in bulk through the whole flow: each record is booked or rejected, and nothing dies."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hostile
import psutil
import pytest
from flow import Flow, Process
from processes import tree

from streams.lab.generate import generate
from streams.lab.scales import Scales
from topics.catalogue import DLQ, RAW
from topics.reader import read_all

pytestmark = pytest.mark.broker

#: Small windows, and no guard: half of everything is rejected. A busy machine is not taken for a death.
HASTE = {"BATCH__SECONDS": 0.2, "DLQ__FLOOD_SHARE": 1, "WORKER__SESSION_TIMEOUT_S": 45}

#: Mebibytes that a process may have, 600 MB; a quiet validate has 130 MB, a tailer 80.
MOST_MIB = 572


class Watch:
    """Sees the most memory that each process of ours had."""

    def __init__(self) -> None:
        self._scales = Scales()
        self._watched: list[Process] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def most_mib(self) -> dict[str, int]:
        return self._scales.rss_mb

    def over(self, process: Process) -> Process:
        self._watched.append(process)
        return process

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            for watched in list(self._watched):
                with suppress(psutil.Error):
                    self._scales.weigh(named(tree(watched.popen.pid)))


def named(processes: list[psutil.Process]) -> Iterator[tuple[str, psutil.Process]]:
    """Those that are a tailer or have a role, with that."""
    for process in processes:
        words = process.cmdline()
        if name := next((word for word in ("tail", "validate", "dispatch") if word in words), ""):
            yield name, process


def tailed(flow: Flow, watch: Watch, path: Path, form: str, timeout_s: float) -> str:
    """Publish what is there; what the tailer says of it. It may say that something is damaged, or no log."""
    profile = "avion" if form == "csv" else f"avion-{form}"
    process = watch.over(flow.start("tail", path, "--once", "--profile", profile, TAIL__NAME=f"tail-{form}"))
    assert process.popen.wait(timeout_s) in (0, 1, 2), process.said[-3000:]
    assert "Traceback" not in process.said, process.said[-5000:]
    assert "unexpected" not in process.said, process.said[-3000:]
    return process.said


def balanced(flow: Flow, worker: Process, watch: Watch, seconds: float) -> dict[str, Any]:
    """Nobody died, and the books agree: what is on the raw topic is booked or a dead letter."""
    flow.settle(seconds)
    assert worker.popen.poll() is None, worker.said[-3000:]
    for sign in ("Traceback", "starting it again", "judging apart"):
        assert sign not in worker.said, worker.said[worker.said.find(sign) - 500 :][:5000]
    status, audit = flow.audit(timeout_s=seconds)
    assert (audit["missing"], audit["duplicates"], status) == (0, 0, 0), audit["findings"][:5]
    raw = {(m.partition(), m.offset()) for m in read_all(flow.kafka, RAW.name)}
    rejected, too_large = set(), 0
    for message in read_all(flow.kafka, DLQ.name):
        letter = json.loads(message.value() or b"")
        assert letter["reason"] in ("invalid", "too_large"), letter
        assert letter["reasons"], letter
        place = letter["place"]
        too_large += letter["stage"] == "tail"
        if letter["stage"] == "validate":
            rejected.add((place["partition"], place["raw_offset"]))
    taken = sum(receipt.accepted + receipt.duplicates for _, receipt in flow.receipts())
    assert rejected <= raw
    assert taken + len(rejected) == len(raw) == audit["published"]
    assert audit["records"] == len(raw) + too_large
    assert flow.totals()["duplicates_booked"] == 0
    assert max(watch.most_mib.values()) < MOST_MIB, watch.most_mib
    return audit


def bulk(flow: Flow, files: int, records: int, seed: int, seconds: float) -> None:
    """``files`` of each format, with so many records each."""
    begin = time.monotonic()
    folders = {form: flow.folder / form for form in hostile.FORMS}
    size = sum(hostile.write(folder, form, files, records, seed) for form, folder in folders.items())
    with Watch() as watch:
        worker = watch.over(flow.start("worker", **HASTE))
        written = time.monotonic()
        for form, folder in folders.items():
            tailed(flow, watch, folder, form, seconds)
        published = time.monotonic()
        audit = balanced(flow, worker, watch, seconds)
        assert audit["delivered"] > 0.2 * audit["records"]
        assert audit["rejected"] > 0.2 * audit["records"]
    ended = time.monotonic()
    print(
        f"{4 * files} files of {size / 1e6:.0f} MB, {audit['records']:,} records:"
        f" {audit['delivered']:,} delivered, {audit['rejected']:,} rejected;"
        f" written {written - begin:.0f} s, tailed {published - written:.0f} s,"
        f" all settled and audited {ended - published:.0f} s later; MiB at most: {watch.most_mib}"
    )


def test_spoilt_records_and_files_of_every_format(flow: Flow) -> None:
    bulk(flow, files=12, records=60, seed=1, seconds=120)


def longest(flow: Flow, size: int, seconds: float) -> None:
    """A line of so many bytes, plain and compressed, between others: those are booked, it is not."""
    folder = flow.folder / "long"
    folder.mkdir()
    head, *good = [line.data for line in generate(16, size + flow._number)]
    hostile.with_a_line(folder / "line.csv", head + b"".join(good[:5]), size, b"".join(good[5:10]))
    hostile.bomb(folder / "bomb.csv.gz", head, size // 10, b"".join(good[10:15]))
    inner = gzip.compress(bytes(size // 100)).replace(b"\n", b"")
    (folder / "nested.csv.gz").write_bytes(gzip.compress(head + inner + b"\n" + good[15]))
    begin = time.monotonic()
    with Watch() as watch:
        worker = watch.over(flow.start("worker", **HASTE))
        tailed(flow, watch, folder, "csv", seconds)
        took = time.monotonic() - begin
        balanced(flow, worker, watch, seconds)
    found = {Path(file["path"]).name: file for file in flow.audit()[1]["files"]}
    assert (found["line.csv"]["delivered"], found["line.csv"]["rejected"]) == (10, 1)
    assert (found["bomb.csv.gz"]["delivered"], found["bomb.csv.gz"]["rejected"]) == (5, 1)
    assert found["nested.csv.gz"]["delivered"] == 1
    print(f"a line of {size / 1e9:g} GB, tailed in {took:.0f} s; MiB at most: {watch.most_mib}")


def test_lines_without_end_and_bombs(flow: Flow) -> None:
    longest(flow, 200_000_000, 120)


def test_large_records_are_judged_few_at_a_time(flow: Flow) -> None:
    """A fetch of two megabytes holds 500 lines of one letter a million times, and a window 5,000."""
    folder = flow.folder / "large"
    folder.mkdir()
    head, *good = [line.data for line in generate(10, seed=78)]
    large = [bytes([letter]) * 1_000_000 + b"\n" for letter in range(65, 90)]
    (folder / "large.csv").write_bytes(b"".join((head, *good[:5], *large * 10, *good[5:])))
    with Watch() as watch:
        worker = watch.over(flow.start("worker", **HASTE))
        tailed(flow, watch, folder, "csv", 120)
        balanced(flow, worker, watch, 120)
        assert watch.most_mib["validate"] < 400, watch.most_mib


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_spoilt_records_in_ten_thousand_files(flow: Flow, request: pytest.FixtureRequest) -> None:
    """``--hostile-share 0.1``: of a tenth."""
    share = request.config.getoption("--hostile-share")
    bulk(flow, files=round(2500 * share), records=100, seed=2, seconds=3600)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_line_of_ten_gigabytes(flow: Flow) -> None:
    longest(flow, 10_000_000_000, 1800)
