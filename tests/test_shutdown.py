"""SIGTERM under load, while the broker or Avstar hangs: all end within ten seconds, and nothing is lost."""

import os
import signal
import time

import pytest
from flow import Flow, Process, until
from test_flow import HASTE, SPREAD, Growth, finish

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

WITHIN_S = 10.0


@pytest.mark.parametrize("hung", ["broker", "sandbox"])
def test_everybody_ends_in_time_while_it_hangs(flow: Flow, hung: str) -> None:
    """Frozen, it takes connections and never answers."""
    log = flow.log(20_000, seed=1)
    growth = Growth(log, 15, seed=1)
    processes = {
        "tail": flow.start("tail", log.path, **SPREAD),
        "validate": flow.start("worker", "--role", "validate", **HASTE),
        "dispatch": flow.start("worker", "--role", "dispatch", **HASTE),
        "both": flow.start("worker", **HASTE),
        "subscribe": flow.start("subscribe", "spot", "--follow"),
    }
    until(lambda: flow.booked().total() > 1000, 120)
    pid = getattr(flow.lab, hung).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(2)  # so that all have something under way with it
        took = end(processes)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert {name: status for name, (status, _) in took.items()} == dict.fromkeys(processes, 0)
    assert {name: seconds for name, (_, seconds) in took.items() if seconds > WITHIN_S} == {}
    for name, process in processes.items():
        assert "Traceback" not in process.said, (name, process.said[-5000:])
    growth.wait()
    flow.start("worker", **HASTE)
    finish(flow, log)
    flow.check(log)
    assert flow.booked() == log.accepted


def end(processes: dict[str, Process]) -> dict[str, tuple[int, float]]:
    """SIGTERM to all at once; each one's exit status, and how long it took."""
    begin = time.monotonic()
    for process in processes.values():
        process.popen.send_signal(signal.SIGTERM)
    found: dict[str, tuple[int, float]] = {}

    def all_ended() -> bool:
        for name, process in processes.items():
            status = process.popen.poll()
            if status is not None and name not in found:
                found[name] = status, time.monotonic() - begin
        return len(found) == len(processes)

    until(all_ended, 40)
    return found
