"""A machine whose clock is wrong: its records flow, and are kept as long as others."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from chaos.clocks import COMPILER, Clock, build
from flow import Flow

from topics.catalogue import CATALOGUE
from topics.reader import read_all

pytestmark = [pytest.mark.broker, pytest.mark.skipif(not COMPILER, reason="no C compiler")]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("clock"))


@pytest.mark.parametrize("hours", [3, -40 * 24])
def test_a_clock_that_is_wrong(flow: Flow, library: Path, hours: float) -> None:
    """Kafka takes no record of its producer's time an hour ahead, and deletes by it what is old."""
    clock = Clock(library, flow.folder / "clock")
    clock.set(hours)
    shown = subprocess.run(["date", "+%s"], env=clock.environment, capture_output=True, check=True)
    assert float(shown.stdout) == pytest.approx(time.time() + 3600 * hours, abs=60)
    log = flow.log(200, seed=91)
    tailer = flow.start("tail", log.path, "--once", extra=clock.environment)
    assert tailer.popen.wait(30) == 0, tailer.said
    worker = flow.start("worker", extra=clock.environment)
    worker.wait_for('"event": "started"', times=2)
    flow.settle()
    flow.check(log)
    for topic in CATALOGUE:
        for message in read_all(flow.kafka, topic.name):
            assert message.timestamp()[1] / 1000 == pytest.approx(time.time(), abs=300)
    assert worker.end(signal.SIGTERM) == 0
