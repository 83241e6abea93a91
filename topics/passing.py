"""Errors of brokers that pass by themselves: a moment later the same question has an answer."""

from confluent_kafka import KafkaError

#: While a group's coordinator is found or moves.
NO_COORDINATOR_YET = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
#: While a partition was just created, or changes its leader.
NO_LEADER_YET = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,  # of a broker that has just started
        KafkaError.OFFSET_NOT_AVAILABLE,  # of a new leader that does not know its end yet (KIP-207)
        KafkaError._UNKNOWN_PARTITION,  # of one that metadata had, and a moment later not
    }
)
#: While a connection is lost, or a broker starts.
DISCONNECTED = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})
