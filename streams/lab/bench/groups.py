"""Consumer groups begin anew for each run."""

from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from topics.connection import KafkaSettings


def forget(kafka: KafkaSettings, group: str) -> None:
    """Let ``group``, which has no members, begin at the beginning. Raises ``KafkaException``."""
    admin = AdminClient(kafka.confluent())  # a client that nobody holds ends, with what it was asked
    (answer,) = admin.delete_consumer_groups([group]).values()
    error = answer.exception()
    if error and error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
        raise error
