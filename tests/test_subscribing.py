"""The examples of docs/subscribing.md, run as they stand there; none of them has any of our code."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from flow import until
from test_codec import as_logical
from validated import Validated, spots

from schemas.codec import schema
from streams.lab.jars import cache_dir
from streams.lab.up import Lab

_DOC = (Path(__file__).parent.parent / "docs" / "subscribing.md").read_text(encoding="utf-8")
_NODE = Path(__file__).parent / "node"


def block(language: str, holds: str) -> str:
    """The one code block that holds this."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", _DOC, re.MULTILINE | re.DOTALL)
    (found,) = [one for one in blocks if holds in one]
    return found


@pytest.fixture
def topics(lab: Lab) -> Validated:
    return Validated(lab)


def node_modules() -> Path:
    """Where the packages are; locked by hash, so that they are fetched once for each lock."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("the JavaScript example needs node and npm, and they are not on this machine")
    lock = (_NODE / "package-lock.json").read_bytes()
    folder = cache_dir() / "node" / sha256(lock).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for file in _NODE.iterdir():
        shutil.copy(file, folder)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        fetched = subprocess.run(install, cwd=folder, check=False, capture_output=True, timeout=120)
        assert fetched.returncode == 0, fetched.stderr.decode()
    return folder / "node_modules"


def confluent(folder: Path) -> list[str]:
    (folder / "subscriber.py").write_text(block("python", "AvroDeserializer"))
    return [sys.executable, "subscriber.py"]


def aiokafka(folder: Path) -> list[str]:
    (folder / "subscriber.py").write_text(block("python", "AIOKafkaConsumer"))
    return [sys.executable, "subscriber.py"]


def kafkajs(folder: Path) -> list[str]:
    (folder / "node_modules").symlink_to(node_modules())
    (folder / "subscriber.mjs").write_text(block("js", "kafkajs"))
    return ["node", "subscriber.mjs"]


@contextmanager
def subscriber(lab: Lab, command: list[str], folder: Path) -> Iterator[Path]:
    """Run it until the block is left; gives the file that it prints to."""
    said = folder / "said"
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SPOTSTREAM_")}
    environment = ours | {
        "KAFKA": lab.broker.bootstrap,
        "REGISTRY": lab.registry.url,
        "PYTHONUNBUFFERED": "1",
    }
    with said.open("wb") as output, subprocess.Popen(
        command, cwd=folder, env=environment, stdout=output, stderr=output
    ) as process:  # fmt: skip
        try:
            yield said
            assert process.poll() is None, said.read_text()
        finally:
            process.kill()


@pytest.mark.broker
@pytest.mark.parametrize("client", [confluent, aiokafka, kafkajs])
def test_each_client_reads_what_was_committed(
    lab: Lab, topics: Validated, tmp_path: Path, client: Callable[[Path], list[str]]
) -> None:
    command = client(tmp_path)
    topics.publish(spots(100), partition=6, commit=False)
    records = spots(2000)
    for partition in (6, 7):
        topics.publish(records[partition - 6 :: 2], partition=partition)
    name = records[0].key.decode().split("-")[0]
    lines = {f"{one.key.decode()} {one.placement_hash} 2026-03-09" for one in records}

    def printed(said: Path) -> list[str]:
        return [line for line in said.read_text().splitlines() if line.startswith(name)]

    with subscriber(lab, command, tmp_path) as said:
        until(lambda: len(printed(said)) >= len(lines), 45)
    assert len(printed(said)) == len(lines)
    assert set(printed(said)) == lines
    assert len(said.read_text().splitlines()) % 2000 == 0  # nothing else, and nothing that was aborted


@pytest.mark.broker
@pytest.mark.parametrize("holds", ["value=avro", "%k"])
def test_kcat_reads_what_was_committed(lab: Lab, topics: Validated, holds: str) -> None:
    if not shutil.which("kcat"):
        pytest.skip("kcat is not on this machine")
    version = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
    if holds == "value=avro" and "Avro" not in version:
        pytest.skip("this kcat is built without Avro")
    (record,) = spots(1)
    topics.publish([record])
    done = subprocess.run(
        ["sh", "-c", block("sh", holds)],
        env=os.environ | {"KAFKA": lab.broker.bootstrap, "REGISTRY": lab.registry.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = [line for line in done.stdout.splitlines() if record.key.decode() in line]
    assert len(found) == 1
    if holds == "%k":
        assert found[0].split()[-1] == str(5 + len(record.avro))
    else:
        assert record.placement_hash in found[0]


@pytest.mark.broker
@pytest.mark.parametrize("written", ["now", "later"])
@pytest.mark.parametrize("read", ["now", "later"])
def test_each_version_is_read_by_readers_of_the_other(topics: Validated, written: str, read: str) -> None:
    """By confluent-kafka, with the schema that its reader was built with; the later one has a field more."""
    topic, (record,) = "versions", spots(1)
    later = copy.deepcopy(schema("spot"))
    later["fields"].append({"name": "length_ms", "type": ["null", "long"], "default": None})
    schemas = {"now": schema("spot"), "later": later}
    for one in schemas.values():
        topics.registry.register(topic, one)
    client = SchemaRegistryClient({"url": topics.settings.registry.url})
    context = SerializationContext(topic, MessageField.VALUE)
    spot = as_logical(record)
    added = {"length_ms": 30_000} if written == "later" else {}
    value = AvroSerializer(client, json.dumps(schemas[written]), conf={"auto.register.schemas": False})(
        spot | added, context
    )
    found = AvroDeserializer(client, json.dumps(schemas[read]))(value, context)
    missing = {field["name"]: None for field in schemas[read]["fields"]}
    seen = added if read == "later" else {}
    assert found == missing | {name: of for name, of in spot.items() if name != "record_type"} | seen


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_records_in_another_language(lab: Lab, topics: Validated, tmp_path: Path) -> None:
    command, total = kafkajs(tmp_path), 1_000_000
    expected = set()
    for number in range(20):
        records = spots(total // 20)
        topics.publish(records, partition=number % 8)
        expected |= {f"{one.key.decode()} {one.placement_hash} 2026-03-09" for one in records}
    keys = {line.split("-")[0] for line in expected}
    begin = time.monotonic()
    with subscriber(lab, command, tmp_path) as said:
        until(lambda: said.stat().st_size >= sum(map(len, expected)) + total, 400)
    seconds = time.monotonic() - begin
    found = [line for line in said.read_text().splitlines() if line.split("-")[0] in keys]
    assert len(found) == total
    assert set(found) == expected
    print(f"{total} records in {seconds:.1f} s")
