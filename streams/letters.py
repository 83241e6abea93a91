"""The open dead letters on ``avstar.dlq``: found in one pass, read whole when they are needed."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import orjson
from confluent_kafka import Message

from schemas import parts
from schemas.letter import DeadLetter
from streams import log
from topics.catalogue import DLQ
from topics.connection import KafkaSettings
from topics.reader import read_all, read_records

logger = log.get("letters")


class Stored(NamedTuple):
    """An open dead letter: what it says but for ``original``, and its messages, more than one if in parts."""

    key: str
    said: dict[str, Any]
    messages: dict[str, tuple[int, int]]  #: message key → partition and offset


def index(kafka: KafkaSettings) -> list[Stored]:
    """Every open dead letter; the originals are not kept, so that a long queue fits into memory."""
    found: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {}
    for message in read_all(kafka, DLQ.name):
        key, value = _key(message), message.value()
        found.pop(key, None)
        said = _said(message) if value is not None else None
        if said is not None:
            found[key] = said, (message.partition(), message.offset())
    stored: dict[str, Stored] = {}
    for key, (said, place) in found.items():
        whole = stored.setdefault(parts.whole(key), Stored(parts.whole(key), said, {}))
        whole.messages[key] = place
    return list(stored.values())


def load(kafka: KafkaSettings, wanted: Iterable[Stored]) -> dict[str, DeadLetter]:
    """The letters as a whole, by key; without one of which a part is missing, or that was ended since."""
    by_partition: dict[int, dict[int, str]] = defaultdict(dict)
    for stored in wanted:
        for partition, offset in stored.messages.values():
            by_partition[partition][offset] = stored.key
    found: dict[str, list[DeadLetter]] = defaultdict(list)
    for partition, keys in by_partition.items():
        for offset, message in read_records(kafka, DLQ.name, partition, keys).items():
            found[keys[offset]].append(DeadLetter.model_validate_json(message.value() or b""))
    return _joined(found)


def read(kafka: KafkaSettings, message_keys: Collection[str]) -> dict[str, DeadLetter]:
    """The open letters that have messages under these keys, by their own."""
    wanted = set(message_keys)
    values: dict[str, bytes] = {}
    for message in read_all(kafka, DLQ.name):
        key, value = _key(message), message.value()
        if key in wanted:
            values.pop(key, None)
            if value is not None:
                values[key] = value
    found: dict[str, list[DeadLetter]] = defaultdict(list)
    for key, value in values.items():
        found[parts.whole(key)].append(DeadLetter.model_validate_json(value))
    return _joined(found)


def _joined(found: dict[str, list[DeadLetter]]) -> dict[str, DeadLetter]:
    joined = {key: parts.join(pieces) for key, pieces in found.items()}
    return {key: letter for key, letter in joined.items() if letter}


def _key(message: Message) -> str:
    return (message.key() or b"").decode(errors="replace")


def _said(message: Message) -> dict[str, Any] | None:
    try:
        said: dict[str, Any] = orjson.loads(message.value() or b"")
        del said["original"]
    except (ValueError, KeyError, TypeError):
        at = f"{DLQ.name} {message.partition()}:{message.offset()}"
        logger.warning("a message is passed over that is no dead letter", at=at)
        return None
    return said
