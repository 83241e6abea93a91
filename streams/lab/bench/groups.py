"""Consumer groups begin anew for each run."""

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from topics.catalogue import Topic
from topics.connection import KafkaSettings


def rewind(kafka: KafkaSettings, group: str, topic: Topic) -> None:
    """Let ``group``, which has no members, begin at the beginning of ``topic``. Raises ``KafkaException``."""
    admin = AdminClient(kafka.confluent())  # a client that nobody holds ends, with what it was asked
    there = admin.list_topics(topic.name, kafka.timeout_s).topics[topic.name].partitions
    begins = [TopicPartition(topic.name, partition, 0) for partition in there]
    (answer,) = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, begins)]).values()
    answer.result()
