"""Replicas: worker and tailer say at their start when there are fewer than the settings ask for."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from flow import Flow, until

from schemas.errors import Unreachable
from streams.lab.cluster import Member
from topics import provision
from topics.catalogue import RAW
from topics.connection import KafkaSettings
from topics.reader import read_all

pytestmark = pytest.mark.broker

SAFER = {"KAFKA__REPLICATION_FACTOR": 3, "KAFKA__MIN_INSYNC_REPLICAS": 2}
WARNED = f"{RAW.name} has 1 replicas, kafka.replication_factor is 3"


def test_a_tailer_warns_and_goes_on(flow: Flow) -> None:
    log = flow.log(20, seed=81)
    status, said = flow.run("tail", log.path, "--once", **SAFER)
    assert status == 0
    assert said.count(WARNED) == 1
    assert "avion.tail.checkpoints has min.insync.replicas 1, kafka.min_insync_replicas is 2" in said
    assert "less safe" not in flow.run("tail", log.path, "--once")[1]


def test_a_worker_warns_once_and_goes_on(flow: Flow) -> None:
    worker = flow.start("worker", **SAFER)
    worker.wait_for('"event": "started"', times=2)
    assert worker.said.count(WARNED) == 1
    assert "__transaction_state has 1 replicas" in worker.said
    worker.end(signal.SIGTERM)


@pytest.fixture
def unwritable(flow: Flow) -> Iterator[Flow]:
    """A raw topic that demands two replicas in sync and has one."""
    _demand(flow, "2")
    yield flow
    _demand(flow, "1")


def _demand(flow: Flow, replicas: str) -> None:
    entry = ConfigEntry("min.insync.replicas", replicas, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, RAW.name, incremental_configs=[entry])
    admin = AdminClient(flow.kafka.confluent())
    admin.incremental_alter_configs([resource])[resource].result(15)
    asked = ConfigResource(ResourceType.TOPIC, RAW.name)

    def shown() -> str:
        return str(admin.describe_configs([asked])[asked].result(15)["min.insync.replicas"].value)

    until(lambda: shown() == replicas)


@pytest.mark.parametrize("command", ["worker", "tail"])
def test_a_topic_that_takes_nothing_is_refused(unwritable: Flow, command: str) -> None:
    arguments = ("tail", unwritable.log(20, seed=82).path, "--once") if command == "tail" else ("worker",)
    status, said = unwritable.run(*arguments)
    assert status == 1
    assert RAW.name in said
    assert "nothing can be written" in said


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Member]]:
    """Three brokers; what a test has killed stays so."""
    with ExitStack() as running:
        first = running.enter_context(Member(tmp_path / "1", 1))
        others = [running.enter_context(Member(tmp_path / str(number), number, first)) for number in (2, 3)]
        yield [first, *others]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_one_of_three_brokers_may_go_and_a_second_may_not(flow: Flow, cluster: list[Member]) -> None:
    servers = ",".join(broker.bootstrap for broker in cluster)
    settings = {"KAFKA__BOOTSTRAP_SERVERS": servers, "KAFKA__TIMEOUT_S": 20} | SAFER
    until(lambda: len(AdminClient({"bootstrap.servers": servers}).list_topics(timeout=5).brokers) == 3)
    status, said = flow.run("topics", "apply", **settings)
    assert status == 0, said
    assert flow.run("topics", "plan", **settings)[0] == 0
    whole, short, late = (flow.log(50, seed=seed) for seed in (83, 84, 85))
    status, said = flow.run("tail", whole.path, "--once", **settings)
    assert (status, "less safe" in said) == (0, False), said
    cluster[2].kill()
    status, said = flow.run("tail", short.path, "--once", **settings)
    assert status == 0, said
    kafka = KafkaSettings(bootstrap_servers=servers)
    assert len(list(read_all(kafka, RAW.name))) == len(whole.records) + len(short.records)
    cluster[1].kill()
    until(lambda: any("in sync" in line for line in weaknesses(servers)))
    status, said = flow.run("tail", late.path, "--once", **settings | {"KAFKA__TIMEOUT_S": 5})
    assert status == 3, said
    assert f"{RAW.name} has 1 replicas in sync and takes no records with less than 2" in said


def weaknesses(servers: str) -> list[str]:
    """What a start would warn of; nothing while the brokers still count on one that is gone."""
    kafka = KafkaSettings(bootstrap_servers=servers, replication_factor=3, min_insync_replicas=2, timeout_s=5)
    with suppress(Unreachable):
        return provision.require(kafka).weak
    return []
