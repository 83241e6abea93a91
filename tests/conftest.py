"""Fixtures that the tests share: one embedded broker per session, names that no other test has."""

import faulthandler
import os
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from flow import Flow
from hypothesis import settings
from tailing import Tail

from streams.lab.kafka import Broker
from streams.lab.up import Lab
from topics.connection import KafkaSettings
from topics.provision import apply

# How long an example takes says something about the machine only.
settings.register_profile("spotstream", deadline=None)
settings.load_profile("spotstream")

#: From the summary to the end of the process.
_ENDS_WITHIN_S = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much of the longest tests is wanted."""
    parser.addoption("--hostile-share", type=float, default=1.0, help="of a million hostile records")


def pytest_unconfigure(config: pytest.Config) -> None:
    """A thread that a test left behind does not keep the run from ending: what hangs is shown, and left."""

    def leave() -> None:
        faulthandler.dump_traceback()
        if reporter:
            reporter.summary_stats()  # still the last line
        sys.stdout.flush()
        os._exit(int(status))

    status = getattr(config, "ended", 0)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    timer = threading.Timer(_ENDS_WITHIN_S, leave)
    timer.daemon = True
    timer.start()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.ended = exitstatus  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """No module leaves settings to the next one, whose commands would take them."""
    before = ours()
    yield
    assert ours() == before


def ours() -> dict[str, str]:
    """The environment's settings."""
    return {name: value for name, value in os.environ.items() if name.startswith("SPOTSTREAM_")}


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The session's Kafka; ``broker.bootstrap`` is its address. Tests that use it are marked ``broker``.

    A test that stops or kills a broker starts one of its own.
    """
    with Broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A module's own broker with the flow's topics, whose names are fixed; a test may restart it."""
    with Broker(tmp_path_factory.mktemp("kafka")) as running:
        apply(KafkaSettings(bootstrap_servers=running.bootstrap))
        yield running


@pytest.fixture
def tail(kafka: Broker, tmp_path: Path, unique: str) -> Iterator[Tail]:
    """Runs the tailer on the module's broker, under this test's name."""
    tail = Tail(kafka.bootstrap, tmp_path, unique[-60:])
    yield tail
    tail.end()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A module's own broker, registry and sandbox: the flow's topics have fixed names."""
    with Lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def flow(lab: Lab, tmp_path: Path) -> Iterator[Flow]:
    """Runs commands on the module's lab, with what this test publishes and books told apart."""
    with Flow(lab, tmp_path) as running:
        yield running


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than ``tmp_path``."""
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name for this test's topics, groups and transactional ids, alone or as a prefix."""
    return f"{request.node.originalname}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def make_topic(broker: Broker, unique: str) -> "MakeTopic":
    """Creates topics under this test's unique name: ``make_topic("raw", partitions=4) -> name``."""
    return MakeTopic(broker.bootstrap, unique)


class MakeTopic:
    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._prefix = prefix

    def __call__(self, name: str = "topic", partitions: int = 1, config: dict[str, str] | None = None) -> str:
        topic = f"{self._prefix}.{name}"
        created = self._admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])
        created[topic].result(timeout=15)
        return topic
