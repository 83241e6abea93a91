"""``spotstream up``: three services on one folder, that come and go together and keep what they hold."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from processes import left_after, listening, tree

from topics.catalogue import CATALOGUE, FILES

pytestmark = pytest.mark.broker

_SPOTSTREAM = [sys.executable, "-m", "streams.cli"]
_AVRO = Schema(
    '{"type": "record", "name": "Spot", "fields": [{"name": "spot_id", "type": "string"}]}', "AVRO"
)


class Up(NamedTuple):
    process: subprocess.Popen[str]
    addresses: dict[str, str]
    data_dir: Path

    @property
    def processes(self) -> list[psutil.Process]:
        return tree(self.process.pid)

    def end(self, number: signal.Signals) -> tuple[int, list[psutil.Process]]:
        """Exit status, and what is left of all its processes."""
        processes = self.processes
        self.process.send_signal(number)
        status = self.process.wait(30)
        return status, left_after(processes, 15)


@contextmanager
def _up(data_dir: Path) -> Iterator[Up]:
    command = [*_SPOTSTREAM, "up", "--data-dir", str(data_dir), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Up(process, json.loads(process.stdout.readline()), data_dir)
        finally:
            process.terminate()


def _messages_of(bootstrap: str, topic: str) -> int:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    partition = TopicPartition(topic, 0)
    return admin.list_offsets({partition: OffsetSpec.latest()})[partition].result(15).offset


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with _up(tmp_path_factory.mktemp("up")) as running:
        yield running


def test_writes_settings_that_other_commands_take(up: Up) -> None:
    lines = (up.data_dir / "env").read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    assert environment["SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS"] == up.addresses["kafka"]
    assert environment["SPOTSTREAM_REGISTRY__URL"] == up.addresses["registry"]
    assert environment["SPOTSTREAM_AVSTAR__BASE_URL"] == up.addresses["avstar"]
    ledger = json.load(urllib.request.urlopen(environment["SPOTSTREAM_AVSTAR__LEDGER_URL"], timeout=5))
    assert ledger["records"] == 0
    planned = subprocess.run(
        [*_SPOTSTREAM, "topics", "plan"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (planned.returncode, planned.stdout) == (0, "the topics are as declared\n")


def test_has_the_declared_topics(up: Up) -> None:
    topics = AdminClient({"bootstrap.servers": up.addresses["kafka"]}).list_topics(timeout=15).topics
    assert {topic.name for topic in CATALOGUE} <= topics.keys()


def test_listens_on_loopback_only(up: Up) -> None:
    addresses = listening(up.processes)
    # Kafka and its controller, the registry and its management interface, the sandbox
    assert len(addresses) == 5
    assert {ip for ip, _ in addresses} == {"127.0.0.1"}


def test_refuses_a_folder_that_is_in_use(up: Up) -> None:
    second = subprocess.run(
        [*_SPOTSTREAM, "up", "--data-dir", str(up.data_dir)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 2
    assert second.stdout == ""
    assert str(up.data_dir) in second.stderr
    assert "is in use by another process" in second.stderr


def test_keeps_everything_when_it_is_killed(tmp_path: Path) -> None:
    with _up(tmp_path) as first:
        registry = SchemaRegistryClient({"url": first.addresses["registry"]})
        schema_id = registry.register_schema("spots-value", _AVRO)
        producer = Producer({"bootstrap.servers": first.addresses["kafka"], "acks": "all"})
        producer.produce(FILES.name, b"value", b"key")
        assert producer.flush(15) == 0
        _, left = first.end(signal.SIGKILL)
        assert left == []
    with _up(tmp_path) as second:
        assert second.addresses == first.addresses
        again = SchemaRegistryClient({"url": second.addresses["registry"]})
        assert again.get_schema(schema_id).schema_str == registry.get_schema(schema_id).schema_str
        assert again.register_schema("spots-value", _AVRO) == schema_id
        assert _messages_of(second.addresses["kafka"], FILES.name) == 1
        assert second.end(signal.SIGTERM) == (0, [])


def test_ends_while_it_starts_on_ctrl_c(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*_SPOTSTREAM, "up", "--data-dir", str(tmp_path)], stderr=subprocess.PIPE
    ) as process:
        while not (tmp_path / "kafka" / "log").exists():
            assert process.poll() is None
        processes = tree(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert left_after(processes, 15) == []
        assert process.stderr.read() == b""


def test_refuses_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [*_SPOTSTREAM, "up", "--data-dir", str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"spotstream: {tmp_path}/file/registry: is no folder to keep data in: ")
    assert done.stderr.count("\n") == 1
