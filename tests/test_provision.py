"""The broker's topics become what is declared, and nothing is ever taken away."""

import time

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
    TopicMetadata,
)

from schemas.errors import Problem, Unreachable
from streams.lab.kafka import Broker
from streams.lab.service import free_port
from topics.admin import Admin
from topics.catalogue import CATALOGUE, Topic
from topics.connection import KafkaSettings
from topics.drift import Action, Allowed, Change
from topics.provision import apply, plan, require
from topics.provision import declared as catalogue_declared

#: Compacted, or read by key: their number of partitions is no setting.
UNSCALED = {"avion.files", "avion.tail.checkpoints", "avstar.receipts", "avstar.dlq"}


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


def _partitions(broker: Broker, topic: str) -> int:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    return len(admin.list_topics(timeout=15).topics[topic].partitions)


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
def test_a_topic_that_a_broker_does_not_know_yet_is_still_to_be_created(
    settings: KafkaSettings, declared: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster one broker tells of it, and another, asked for its settings, has not heard of it."""
    told = Admin.topics
    ahead = {declared.name: TopicMetadata()}
    monkeypatch.setattr(Admin, "topics", lambda *asked: told(*asked) | ahead)
    assert [change.action for change in plan(settings, [declared])] == [Action.CREATE]


@pytest.mark.broker
def test_settings_that_differ_are_altered(broker: Broker, settings: KafkaSettings, declared: Topic) -> None:
    apply(settings, [declared])
    _set(broker, declared.name, retention_ms="1000", segment_ms="60000", max_message_bytes="5000")
    changes = apply(settings, [declared])
    assert set(changes) == {
        Change(Action.ALTER, declared.name, "max.message.bytes", "5000", "2097152"),
        Change(Action.ALTER, declared.name, "retention.ms", "1000", "3600000"),
    }
    config = _config(broker, declared.name)
    assert (config["max.message.bytes"], config["retention.ms"]) == ("2097152", "3600000")
    assert config["segment.ms"] == "60000", "what is not declared stays"
    assert plan(settings, [declared]) == []


def _signs(changes: list[Change]) -> dict[str, str]:
    return {change.setting: str(change)[0] for change in changes}


@pytest.mark.broker
@pytest.mark.parametrize(
    ("setting", "actual", "wanted"),
    [
        ("retention.ms", "-1", "3600000"),
        ("retention.ms", "7200000", "3600000"),
        ("cleanup.policy", "compact", "delete"),
        ("cleanup.policy", "compact,delete", "delete"),
    ],
)
def test_what_takes_something_away_is_altered_only_if_allowed_by_name(
    broker: Broker, settings: KafkaSettings, declared: Topic, setting: str, actual: str, wanted: str
) -> None:
    apply(settings, [declared])
    _set(broker, declared.name, **{setting.replace(".", "_"): actual})
    others = set(Allowed) - {setting}
    assert _signs(plan(settings, [declared])) == {setting: "!"}
    assert f"--allow {setting}" in str(apply(settings, [declared], others)[0])
    assert _config(broker, declared.name)[setting] == actual
    apply(settings, [declared], [Allowed(setting)])
    assert _config(broker, declared.name)[setting] == wanted
    assert plan(settings, [declared]) == []


@pytest.mark.broker
def test_partitions_are_added_only_if_allowed_and_never_taken_away(
    broker: Broker, settings: KafkaSettings, declared: Topic
) -> None:
    apply(settings, [declared])
    larger = declared._replace(partitions=5)
    assert _signs(apply(settings, [larger])) == {"partitions": "!"}
    assert _partitions(broker, declared.name) == 3
    apply(settings, [larger], [Allowed.PARTITIONS])
    assert _partitions(broker, declared.name) == 5
    assert plan(settings, [larger]) == []
    smaller = apply(settings, [declared], Allowed)
    assert (_signs(smaller), _partitions(broker, declared.name)) == ({"partitions": "="}, 5)


@pytest.mark.broker
def test_a_compacted_topic_never_grows(broker: Broker, settings: KafkaSettings, declared: Topic) -> None:
    """The next value of a key, or its tombstone, would be on another partition than the one it replaces."""
    compacted = declared._replace(cleanup="compact")
    apply(settings, [compacted])
    found = apply(settings, [compacted._replace(partitions=5)], [Allowed.PARTITIONS])
    assert (_signs(found), _partitions(broker, declared.name)) == ({"partitions": "="}, 3)


@pytest.mark.broker
def test_more_replicas_in_sync_are_demanded_only_where_there_are_as_many(
    broker: Broker, settings: KafkaSettings, declared: Topic
) -> None:
    apply(settings, [declared])
    assert _config(broker, declared.name)["min.insync.replicas"] == "1"
    safer = settings.model_copy(update={"replication_factor": 3, "min_insync_replicas": 2})
    found = apply(safer, [declared])
    assert _signs(found) == {"replication factor": "=", "min.insync.replicas": "="}
    assert "kafka-reassign-partitions" in str(found[0])
    assert _config(broker, declared.name)["min.insync.replicas"] == "1"


@pytest.mark.broker
def test_what_is_less_safe_than_the_settings_say_is_told(settings: KafkaSettings, declared: Topic) -> None:
    apply(settings, [declared])
    assert require(settings, [declared]).weak == []
    safer = settings.model_copy(update={"replication_factor": 3, "min_insync_replicas": 2})
    told = [line for line in require(safer, [declared]).weak if not line.startswith("__")]
    assert told == [
        f"{declared.name} has 1 replicas, kafka.replication_factor is 3",
        f"{declared.name} has min.insync.replicas 1, kafka.min_insync_replicas is 2",
    ]


@pytest.mark.broker
def test_a_topic_that_nothing_can_be_written_to_is_refused(
    broker: Broker, settings: KafkaSettings, declared: Topic
) -> None:
    apply(settings, [declared])
    _set(broker, declared.name, min_insync_replicas="2")
    with pytest.raises(
        Problem, match=f"{declared.name} .*min.insync.replicas is 2 .* nothing can be written"
    ):
        require(settings, [declared])


@pytest.mark.broker
def test_more_replicas_than_brokers_are_refused(settings: KafkaSettings, declared: Topic) -> None:
    with pytest.raises(Problem, match=f"topic {declared.name} .*[Rr]eplication factor"):
        apply(settings.model_copy(update={"replication_factor": 2}), [declared])


def test_more_in_sync_than_there_are_is_a_wrong_setting() -> None:
    with pytest.raises(ValueError, match="min_insync_replicas is above"):
        KafkaSettings(min_insync_replicas=2)


def test_the_settings_say_how_many_partitions_which_topics_have() -> None:
    sizes = {
        t.name: t.partitions for t in catalogue_declared(KafkaSettings(partitions=24, validated_partitions=3))
    }
    assert (sizes["avion.raw"], sizes["avstar.batches"], sizes["avion.validated.billing"]) == (24, 24, 3)
    assert {name: size for name, size in sizes.items() if size not in (3, 24)} == {
        topic.name: topic.partitions for topic in CATALOGUE if topic.name in UNSCALED
    }


@pytest.mark.parametrize(
    ("actual", "shown"),
    [("86400000", "1 d"), ("5400000", "90 min"), ("-1", "for ever"), ("1001", "1001 ms"), ("7200000", "2 h")],
)
def test_a_retention_can_be_read(actual: str, shown: str) -> None:
    assert f"{actual} ({shown}) -> 1000 (1 s)" in str(
        Change(Action.ALTER, "t", "retention.ms", actual, "1000")
    )


@pytest.mark.broker
def test_the_whole_catalogue_can_be_applied(settings: KafkaSettings) -> None:
    apply(settings)
    assert plan(settings, CATALOGUE) == []


def test_a_silent_address_is_unreachable_in_time() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=f"{address}: no Kafka broker answered within 0.5 s"):
        plan(KafkaSettings(bootstrap_servers=address, timeout_s=0.5))
