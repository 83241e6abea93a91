"""Messages sent by the block, straight from memory into librdkafka, without a Python object for each.

confluent-kafka takes a dict for each message, which costs more than all that librdkafka does with it.
librdkafka takes an array (``rd_kafka_produce_batch``), and numpy makes one from where the messages lie.
confluent-kafka does not show its ``rd_kafka_t``: in the releases that pyproject.toml allows it stands right
behind the head that every Python object has, and a test sees that it does.
"""

import ctypes
from typing import NamedTuple

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer, cimpl
from numpy.typing import NDArray

from topics.transaction import QUEUE

#: Messages that are handed over at a time.
_SLICE = 100_000

#: ``RD_KAFKA_MSG_F_COPY``: librdkafka has its own copy when the call returns.
_COPY = 2


class Block(NamedTuple):
    """Messages for one partition: ``keys`` has one in a row, the values lie in ``data``."""

    keys: NDArray[np.uint8]
    data: bytes
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


class _Message(ctypes.Structure):
    """``rd_kafka_message_t`` of rdkafka.h."""

    _fields_ = (
        ("err", ctypes.c_int),
        ("topic", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_void_p),
        ("len", ctypes.c_size_t),
        ("key", ctypes.c_void_p),
        ("key_len", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("private", ctypes.c_void_p),
    )


_LAYOUT = np.dtype(_Message)

# Bundled or not, the library that confluent-kafka uses is found through the module that is linked to it.
_LIBRARY = ctypes.CDLL(cimpl.__file__)
_open = _LIBRARY.rd_kafka_topic_new
_open.argtypes, _open.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p), ctypes.c_void_p
_close = _LIBRARY.rd_kafka_topic_destroy
_close.argtypes, _close.restype = (ctypes.c_void_p,), None
_produce = _LIBRARY.rd_kafka_produce_batch
_produce.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


def send_block(producer: Producer, topic: str, block: Block, partition: int) -> None:
    """Queue a block's messages in order, waiting while the queue is full.

    Raises ``KafkaException`` if one is not taken.
    """
    if not isinstance(producer, Producer):
        producer.produce_batch(topic, [], partition)  # what stands in for one has no librdkafka behind it
        return
    messages = _messages(block)
    opened = _open(_handle(producer), topic.encode(), None)
    try:
        for begin in range(0, len(messages), _SLICE):
            part = messages[begin : begin + _SLICE]
            while len(producer) + len(part) > QUEUE:
                producer.poll(0.1)
            if _produce(opened, partition, _COPY, part.ctypes.data, len(part)) != len(part):
                raise KafkaException(KafkaError(int(part["err"][part["err"] != 0][0])))
    finally:
        _close(opened)


def _handle(producer: Producer) -> int | None:
    return ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value


def _messages(block: Block) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """As librdkafka takes them; they point into the block, which has to outlive them."""
    messages = np.zeros(len(block.starts), _LAYOUT)
    messages["payload"] = np.frombuffer(block.data, np.uint8).ctypes.data + block.starts
    messages["len"] = block.sizes
    messages["key"] = block.keys.ctypes.data + np.arange(len(block.keys)) * block.keys.shape[1]
    messages["key_len"] = block.keys.shape[1]
    return messages
