"""The broker's topics become what is declared, and nothing is ever taken away."""

import time

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from schemas.errors import Unreachable
from streams.lab.kafka import Broker
from streams.lab.service import free_port
from topics.catalogue import CATALOGUE, Topic
from topics.connection import KafkaSettings
from topics.provision import Action, Change, apply, plan


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=broker.bootstrap)


@pytest.fixture
def declared(unique: str) -> Topic:
    return Topic(unique, "a test's", "the test", "the test", "delete", 3_600_000, 2_097_152, partitions=3)


def _set(broker: Broker, topic: str, **values: str) -> None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    for name, value in values.items():
        resource.add_incremental_config(
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        )
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(15)
    expected = {name.replace("_", "."): value for name, value in values.items()}
    while not expected.items() <= _config(broker, topic).items():
        time.sleep(0.02)  # the broker follows its controller


def _config(broker: Broker, topic: str) -> dict[str, str]:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(15)
    return {name: entry.value for name, entry in entries.items()}


@pytest.mark.broker
def test_a_missing_topic_is_planned_then_created_once(
    broker: Broker, settings: KafkaSettings, declared: Topic
) -> None:
    assert [(change.action, change.topic) for change in plan(settings, [declared])] == [
        (Action.CREATE, declared.name)
    ]
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    assert declared.name not in admin.list_topics(timeout=15).topics, "a plan changes nothing"
    apply(settings, [declared])
    assert len(admin.list_topics(timeout=15).topics[declared.name].partitions) == 3
    config = _config(broker, declared.name)
    assert (config["cleanup.policy"], config["retention.ms"]) == ("delete", "3600000")
    assert config["max.message.bytes"] == "2097152"
    assert plan(settings, [declared]) == apply(settings, [declared]) == []


@pytest.mark.broker
def test_settings_that_differ_are_altered(broker: Broker, settings: KafkaSettings, declared: Topic) -> None:
    apply(settings, [declared])
    _set(broker, declared.name, cleanup_policy="compact", retention_ms="1000", segment_ms="60000")
    changes = apply(settings, [declared])
    assert set(changes) == {
        Change(Action.ALTER, declared.name, "cleanup.policy", "compact", "delete"),
        Change(Action.ALTER, declared.name, "retention.ms", "1000", "3600000"),
    }
    config = _config(broker, declared.name)
    assert (config["cleanup.policy"], config["retention.ms"]) == ("delete", "3600000")
    assert config["segment.ms"] == "60000", "what is not declared stays"
    assert plan(settings, [declared]) == []


@pytest.mark.broker
@pytest.mark.parametrize("retention", ["-1", "7200000"])
def test_nothing_shrinks(broker: Broker, settings: KafkaSettings, declared: Topic, retention: str) -> None:
    apply(settings, [declared._replace(partitions=4)])
    _set(broker, declared.name, retention_ms=retention)
    expected = {
        Change(Action.LEAVE, declared.name, "retention.ms", retention, "3600000"),
        Change(Action.LEAVE, declared.name, "partitions", "4", "3"),
    }
    assert set(apply(settings, [declared])) == set(plan(settings, [declared])) == expected
    assert _config(broker, declared.name)["retention.ms"] == retention


@pytest.mark.broker
def test_the_whole_catalogue_can_be_applied(settings: KafkaSettings) -> None:
    apply(settings)
    assert plan(settings, CATALOGUE) == []


def test_a_silent_address_is_unreachable_in_time() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=f"{address}: no Kafka broker answered within 0.5 s"):
        plan(KafkaSettings(bootstrap_servers=address, timeout_s=0.5))
