"""The worker when something is wrong at its start: one clear line, and the exit status that says what."""

import signal
import socket
import time

import pytest

from streams.lab.kafka import Broker

pytestmark = pytest.mark.broker

NOBODY = "127.0.0.1:9"


def lines(said):
    """What it said to people, log lines left out."""
    return [line for line in said.splitlines() if not line.startswith("{")]


def one_line(said):
    (line,) = lines(said)
    assert line.startswith("spotstream: ")
    return line


@pytest.mark.parametrize("role", [(), ("--role", "validate"), ("--role", "dispatch")])
def test_a_broker_that_is_not_there(flow, role):
    status, said = flow.run("worker", *role, KAFKA__BOOTSTRAP_SERVERS=NOBODY, KAFKA__TIMEOUT_S=2)
    assert status == 3
    assert NOBODY in one_line(said)


@pytest.mark.parametrize("role", [(), ("--role", "validate")])
def test_a_registry_that_is_not_there(flow, role):
    began = time.monotonic()
    status, said = flow.run("worker", *role, REGISTRY__URL=f"http://{NOBODY}")
    assert status == 3
    assert f"http://{NOBODY}" in one_line(said)
    assert time.monotonic() - began < 40


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A broker without topics: whoever shares the session's may have made them."""
    with Broker(tmp_path_factory.mktemp("bare")) as running:
        yield running


@pytest.mark.parametrize("role", [(), ("--role", "dispatch")])
def test_topics_that_are_not_there(flow, bare, role):
    status, said = flow.run("worker", *role, KAFKA__BOOTSTRAP_SERVERS=bare.bootstrap)
    assert status in (1, 2)
    line = one_line(said)
    assert "avion.raw" in line
    assert "topics apply" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [("BATCH__RECORDS", 7), ("NOPE__X", 1), ("AVSTAR__BASE_URL", "traffic"), ("BATCH", "{")],
)
def test_a_wrong_setting_is_named(flow, name, value):
    status, said = flow.run("worker", **{name: value})
    assert status == 2
    assert (
        name.replace("__", ".").lower()
        in one_line(said).replace("SPOTSTREAM_", "").replace("__", ".").lower()
    )


def test_a_settings_file_that_is_broken(flow):
    (flow.folder / "spotstream.toml").write_text("[batch\nrecords = 5000\n")
    status, said = flow.run("worker")
    assert status == 2
    assert "spotstream.toml" in one_line(said)


@pytest.mark.parametrize("role", ["validate", "dispatch"])
def test_a_web_port_that_is_taken(flow, role):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = flow.run("worker", "--role", role, WORKER__WEB_PORT=port - (role == "dispatch"))
    assert status == 2
    assert f"127.0.0.1:{port}" in one_line(said)
    assert "web_port" in said


@pytest.mark.parametrize("moment_s", [0.5, 1.0, 1.5, 2.5])
def test_a_signal_during_the_start(flow, moment_s):
    """Whenever it comes, the worker ends in order, or at once where it does not listen yet."""
    worker = flow.start("worker")
    time.sleep(moment_s)
    began = time.monotonic()
    assert worker.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert time.monotonic() - began < 10
    assert "Traceback" not in worker.said
