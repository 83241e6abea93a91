"""A broker that creates every topic that it is asked about, as Kafka does unless it is told not to."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from flow import COMMAND
from tailing import HEADER

from schemas.errors import Problem
from streams.lab.kafka import Broker
from streams.settings import PREFIX
from topics import provision, transport
from topics.admin import Admin
from topics.catalogue import CATALOGUE, CHECKPOINTS, DLQ, FILES, RAW
from topics.connection import KafkaSettings
from topics.drift import Action, Allowed, Found, Safety, differing
from topics.transaction import TransactionalProducer

KEPT = {FILES.name, CHECKPOINTS.name, DLQ.name}
OURS = {topic.name for topic in CATALOGUE}


class Generous(Broker):
    """A broker with Kafka's own default."""

    def _write_settings(self) -> None:
        super()._write_settings()
        file = self._dir / "server.properties"
        text, count = re.subn(r"(?m)^auto\.create\.topics\.enable=false\n", "", file.read_text())
        assert count == 1
        file.write_text(text)


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaSettings]:
    with Generous(tmp_path / "kafka") as running:
        yield KafkaSettings(bootstrap_servers=running.bootstrap)


def there(kafka: KafkaSettings) -> set[str]:
    return OURS & set(
        AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(timeout=15).topics
    )


def command(kafka: KafkaSettings, folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], env={f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        cwd=folder, timeout=60, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.broker
async def test_who_asks_about_a_topic_does_not_create_it(kafka: KafkaSettings, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(HEADER)
    for arguments in (("topics", "plan"), ("doctor",), ("tail", "--once", "log.csv"), ("worker",)):
        status, said = command(kafka, tmp_path, *arguments)
        assert status, said
        assert FILES.name in said, arguments
        assert there(kafka) == set(), arguments
    TransactionalProducer(kafka, "any", timeout_s=15).fence()
    assert there(kafka) == set(), "a fence"
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id="any")
    await consumer.start()
    consumer.subscribe([RAW.name])  # as Faust does
    await consumer.getmany(timeout_ms=500)
    await consumer.stop()
    assert there(kafka) == set(), "the transport's consumer"
    assert command(kafka, tmp_path, "topics", "apply")[0] == 0
    assert (there(kafka), provision.plan(kafka)) == (OURS, [])


@pytest.mark.broker
def test_topics_that_a_broker_made_are_refused_until_they_are_compacted(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    admin = Admin(kafka)  # without a name it would be gone before the answers come
    for outcome in admin.create_topics([NewTopic(name, 1, 1) for name in OURS]).values():
        outcome.result(15)
    for name in KEPT:
        with pytest.raises(Problem, match=rf"{name}.* not compact.*topics apply --allow cleanup\.policy"):
            provision.require(kafka, [topic for topic in CATALOGUE if topic.name == name])
    producer = Producer(kafka.confluent())
    producer.produce(FILES.name, b"value", b"key")
    assert producer.flush(15) == 0
    status, said = command(kafka, tmp_path, "topics", "plan")
    lines = {
        line.split(":")[0]: line for line in said.splitlines() if "cleanup.policy delete -> compact" in line
    }
    assert (status, set(lines)) == (1, {f"! {FILES.name}", f"~ {CHECKPOINTS.name}", f"~ {DLQ.name}"}), said
    status, said = command(kafka, tmp_path, "topics", "apply")
    assert (status, f"! {FILES.name}: cleanup.policy delete -> compact" in said) == (1, True), said
    with pytest.raises(Problem, match=rf"{FILES.name}: cleanup"):
        provision.require(kafka)
    assert command(kafka, tmp_path, "topics", "apply", "--allow", "cleanup.policy")[0] == 0
    assert command(kafka, tmp_path, "topics", "plan")[0] == 0
    provision.require(kafka)


@pytest.mark.parametrize(("empty", "action"), [(True, Action.ALTER), (False, Action.ASK)])
def test_only_an_empty_topic_is_compacted_unasked(empty: bool, action: Action) -> None:
    config = FILES.config | {"cleanup.policy": "delete", "min.insync.replicas": "1"}
    (change,) = differing(FILES, Found(1, 1, 1, config, empty), Safety())
    assert (change.setting, change.action, change.forgets) == (Allowed.CLEANUP, action, True)
    other = RAW.config | {"cleanup.policy": "compact", "min.insync.replicas": "1"}
    (change,) = differing(RAW, Found(RAW.partitions, 1, 1, other, empty), Safety())
    assert (change.action, change.forgets) == (Action.ASK, False), "which may delete by age what it kept"


def test_no_client_lets_a_broker_create_topics() -> None:
    """A producer and an admin client of librdkafka's would, and aiokafka's consumer."""
    mock = {"test.mock.num.brokers": 1, "log_level": 0}
    asked = AdminClient(KafkaSettings().confluent() | mock).list_topics(RAW.name, timeout=15)
    assert asked.topics[RAW.name].error
    request = transport.client.MetadataRequest([RAW.name])
    assert request._allow_auto_topic_creation is False
