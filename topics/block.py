"""Messages sent by the block, straight from memory into librdkafka, without a Python object for each.

confluent-kafka takes a dict for each message, which costs more than all that librdkafka does with it.
librdkafka takes an array (``rd_kafka_produce_batch``), and numpy makes one from where the messages lie.
confluent-kafka does not show its ``rd_kafka_t``: in the releases that pyproject.toml allows it stands right
behind the head that every Python object has, and a test sees that it does.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer, cimpl
from numpy.typing import NDArray

from topics.transaction import QUEUE

#: Messages that are handed over at a time.
_SLICE = 100_000

#: ``RD_KAFKA_MSG_F_COPY``: librdkafka has its own copy when the call returns.
_COPY = 2


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


class Block(NamedTuple):
    """Messages as librdkafka takes them; they point into ``keys`` and ``data``, which stay as long."""

    messages: np.ndarray[tuple[int], np.dtype[np.void]]
    keys: NDArray[np.uint8]
    data: bytes

    @classmethod
    def of(
        cls, keys: NDArray[np.uint8], data: bytes, starts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> "Block":
        """Of keys, one in a row, and values that lie in ``data``."""
        messages = _messages(data, starts, sizes)
        messages["key"] = keys.ctypes.data + np.arange(len(keys)) * keys.shape[1]
        messages["key_len"] = keys.shape[1]
        return cls(messages, keys, data)

    @classmethod
    def joined(cls, keys: Sequence[bytes], values: Sequence[bytes], head: bytes = b"") -> "Block":
        """Of as many keys as values, before each of which ``head`` is put."""
        packed, data = np.frombuffer(b"".join(keys), np.uint8), head.join([b"", *values])
        sizes = np.fromiter(map(len, values), np.int64, len(values)) + len(head)
        messages = _messages(data, np.cumsum(sizes) - sizes, sizes)
        sizes = np.fromiter(map(len, keys), np.int64, len(keys))
        messages["key"] = packed.ctypes.data + np.cumsum(sizes) - sizes
        messages["key_len"] = sizes
        return cls(messages, packed, data)


def _messages(
    data: bytes, starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    messages = np.zeros(len(starts), _LAYOUT)
    messages["payload"] = np.frombuffer(data, np.uint8).ctypes.data + starts
    messages["len"] = sizes
    return messages


# Bundled or not, the library that confluent-kafka uses is found through the module that is linked to it.
_LIBRARY = ctypes.CDLL(cimpl.__file__)
_open = _LIBRARY.rd_kafka_topic_new
_open.argtypes, _open.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p), ctypes.c_void_p
_close = _LIBRARY.rd_kafka_topic_destroy
_close.argtypes, _close.restype = (ctypes.c_void_p,), None
_produce = _LIBRARY.rd_kafka_produce_batch
_produce.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


def send_blocks(producer: Producer, topic: str, blocks: Sequence[Block], partition: int = -1) -> None:
    """Queue the messages of ``blocks`` in order, waiting while the queue is full; -1: their keys say where.

    All in few calls, for after each one a thread may wait for another that holds the interpreter. Raises
    ``KafkaException`` if one is not taken.
    """
    if not isinstance(producer, Producer):
        producer.produce_batch(topic, [], partition)  # what stands in for one has no librdkafka behind it
        return
    messages = np.concatenate([block.messages for block in blocks])
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
