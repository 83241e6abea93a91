"""The open dead letters on ``avstar.dlq``: found in one pass, read whole when they are needed."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, Producer

from schemas import parts
from schemas.errors import Problem, Unreachable, UsageError
from schemas.letter import DeadLetter
from topics.catalogue import BATCHES, DLQ, RAW
from topics.connection import KafkaSettings
from topics.reader import read_all, read_records
from topics.transaction import COMMAND_S, AbortedError, OwnershipLostError, TransactionalProducer

#: What is not kept of a letter, so that a long queue fits into memory.
_LONG = frozenset({"original", "exchange", "traceback"})


class Stored(NamedTuple):
    """An open dead letter: what it says, as :func:`told` has it, and its messages, more than one if in parts.

    It says nothing when it is not a dead letter of ours.
    """

    key: str
    said: dict[str, Any]
    messages: dict[bytes, tuple[int, int]]  #: message key → partition and offset


def index(kafka: KafkaSettings) -> list[Stored]:
    """Every open dead letter."""
    found: dict[bytes, tuple[dict[str, Any], tuple[int, int]]] = {}
    for message in read_all(kafka, DLQ.name):
        key, value = message.key() or b"", message.value()
        found.pop(key, None)
        if value is not None:
            found[key] = told(value), (message.partition(), message.offset())
    stored: dict[str, Stored] = {}
    for key, (said, place) in found.items():
        name = whole(key)
        known = stored.setdefault(name, Stored(name, said, {}))
        known.messages[key] = place
        if said and not known.said:
            stored[name] = known._replace(said=said)
    return list(stored.values())


def check_key(prefix: str) -> None:
    """Raises :class:`UsageError` for an empty key: all begin so, and it would pick one that is alone."""
    if not prefix.strip():
        raise UsageError(
            "the KEY is empty", remedy="give a key, or its beginning; `spotstream dlq list` has them"
        )


def find(kafka: KafkaSettings, prefix: str) -> Stored:
    """The open dead letter whose key begins with ``prefix``.

    Raises :class:`Problem` when there is none, or more than one.
    """
    check_key(prefix)
    return pick(index(kafka), prefix)


def pick(stored: Sequence[Stored], prefix: str) -> Stored:
    """As :func:`find`, out of these."""
    check_key(prefix)
    # Ours are lower-case and of one length; a stranger's may be anything, and the beginning of another one.
    found = [one for one in stored if one.key == prefix]
    found = found or [one for one in stored if one.key.startswith((prefix, prefix.lower()))]
    if not found:
        raise Problem("no such dead letter", where=prefix, remedy="`spotstream dlq list` lists them")
    if len(found) > 1:
        raise Problem(f"{len(found)} dead letters begin so", where=prefix, remedy="give more of the key")
    return found[0]


def raw(kafka: KafkaSettings, stored: Stored) -> list[bytes]:
    """The values of its messages as they stand on the topic."""
    found = []
    for partition, offset in stored.messages.values():
        records = read_records(kafka, DLQ.name, partition, [offset])
        found += [message.value() or b"" for message in records.values()]
    return found


def load(kafka: KafkaSettings, wanted: Iterable[Stored]) -> dict[str, DeadLetter]:
    """The letters as a whole, by key; without one of which a part is missing, or that was ended since."""
    by_partition: dict[int, dict[int, str]] = defaultdict(dict)
    for stored in wanted:
        for partition, offset in stored.messages.values():
            by_partition[partition][offset] = stored.key
    found: dict[str, list[DeadLetter]] = defaultdict(list)
    for partition, keys in by_partition.items():
        for offset, message in read_records(kafka, DLQ.name, partition, keys).items():
            with suppress(ValueError):  # a stranger's, under a key like that of a part
                found[keys[offset]].append(DeadLetter.load(message.value()))
    return _joined(found)


def read(kafka: KafkaSettings, message_keys: Collection[str]) -> dict[str, DeadLetter]:
    """The open letters that have messages under these keys, by their own."""
    wanted = {key.encode() for key in message_keys}
    values: dict[bytes, bytes] = {}
    for message in read_all(kafka, DLQ.name):
        key, value = message.key() or b"", message.value()
        if key in wanted:
            values.pop(key, None)
            if value is not None:
                values[key] = value
    found: dict[str, list[DeadLetter]] = defaultdict(list)
    for key, value in values.items():
        with suppress(ValueError):  # a stranger's: there is no letter under this key
            found[whole(key)].append(DeadLetter.load(value))
    return _joined(found)


def _joined(found: dict[str, list[DeadLetter]]) -> dict[str, DeadLetter]:
    joined = {key: parts.join(pieces) for key, pieces in found.items()}
    return {key: letter for key, letter in joined.items() if letter}


def text(key: bytes) -> str:
    """A message's key as it is shown and typed: what is no text in a stranger's is escaped."""
    return key.decode(errors="backslashreplace")


def whole(key: bytes) -> str:
    """The letter's key, of a message's: of a part's or of its own."""
    return parts.whole(text(key))


def told(value: bytes) -> dict[str, Any]:
    """What a message's letter says but for what is long; nothing where it is a stranger's."""
    try:
        letter = DeadLetter.load(value)
    except ValueError:
        return {}
    said = vars(letter) | {"place": letter.place and vars(letter.place)}  # far less work than to dump it
    return {name: value for name, value in said.items() if name not in _LONG}


def write(producer: Producer, key: str, letter: DeadLetter) -> None:
    """Queue a letter, in parts if it is too large for one message."""
    source = RAW.name if letter.kind == "record" else BATCHES.name
    for part_key, part in parts.split(key, letter):
        producer.produce(DLQ.name, part.dump(), part_key, headers=letter.connect_headers(source))


class Pen:
    """Writes to dead letters by a person's order. One at a time: a new one fences the one before.

    So whoever has it reads the letters after that, and writes on what is so. Raises :class:`Unreachable`.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = TransactionalProducer(kafka, "spotstream-letters", timeout_s=COMMAND_S)
        try:
            self._producer.fence()
        except KafkaException as error:
            what = f"the broker cannot be reached: {error.args[0].str()}"
            raise Unreachable(what, where=kafka.bootstrap_servers) from None

    def commit(self, produce: Callable[[Producer], None]) -> None:
        """Commit what ``produce`` sends; raises :class:`Problem` when somebody else has the pen now."""
        try:
            self._producer.commit(produce)
        except OwnershipLostError:
            what = "another redrive or discard has begun"
            raise Problem(what, where=DLQ.name, remedy="try again when it has ended") from None
        except AbortedError as error:
            remedy = "do it again: what is done stays done"
            raise Problem(error.told, where=DLQ.name, remedy=remedy) from None
