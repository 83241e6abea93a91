"""What a stranger may put on the flow's topics: anything at all, and the flow's own messages gone wrong."""

import copy
import gzip
import json
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson
from confluent_kafka import Message as Kafka
from confluent_kafka import Producer

Headers = list[tuple[str, bytes | None]]

COMPACTED = {"avion.files", "avion.tail.checkpoints", "avstar.dlq"}

#: What stands where something else should: of every type, too large, too small, too deep.
ODD: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 2**64 - 1, 10**30, 1e308, 0.5, "", "x", "\0", "ÿ\u2028\U0001f4a9", "-1",
    "9" * 5000,
    "0-999999999999", "1/999999999999", "n/m", "é" * 40, "9999-99-99T99", "9999-12-31T23:59:59.999Z",
    "2026-03-01", "..", [],
    {}, [[]], [None], {"": None}, {"x": {"x": {}}},
]  # fmt: skip
#: Of bytes the same, as keys and headers have them.
ODD_BYTES = [
    None, b"", b"\0", b"\xff" * 64, b"0" * 64, b"f" * 40, b"\xff" * 40, b"g" * 64, b"tailer:", b"tailer:\xff",
    b"-1", b"9" * 5000,
    b"0-999999999999", b"99", b"a,b,,c", b"\xc3", b"x" * 40_000, b"text/plain\r\nX-Evil: 1", b"br",
    b"2026-03-01T11=" + b"9" * 30,
]  # fmt: skip


class Strange(NamedTuple):
    """A message that the flow did not write."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = []  # noqa: RUF012 - nobody changes it
    partition: int = -1

    @classmethod
    def of(cls, message: Kafka) -> "Strange":
        """As one that it did."""
        headers = [
            (name, value if value is None else bytes(value)) for name, value in message.headers() or ()
        ]
        return cls(message.topic() or "", message.key(), message.value(), headers, message.partition() or 0)


def messages(genuine: Iterable[Strange], count: int, seed: int) -> list[Strange]:
    """So many, half of them made of ``genuine`` ones."""
    choose = random.Random(seed)
    by_topic: dict[str, list[Strange]] = {}
    for message in genuine:
        by_topic.setdefault(message.topic, []).append(message)
    topics = sorted(by_topic)
    made = []
    for number in range(count):
        topic = topics[number % len(topics)]
        if choose.random() < 0.25:
            value = choose.choice(
                [None, choose.randbytes(choose.randrange(200)), orjson.dumps(choose.choice(_SHORT))]
            )
            key = choose.choice([*ODD_BYTES, choose.randbytes(40)])
            made.append(Strange(topic, key, value, _headers(choose), -1))
        else:
            made.append(spoilt(choose.choice(by_topic[topic]), choose))
    return made


def spoilt(message: Strange, choose: random.Random) -> Strange:
    """A genuine message with something wrong in one to three places."""
    for _ in range(choose.choice([1, 1, 1, 2, 3])):
        how: Callable[[Strange, random.Random], Strange] = choose.choice(
            [_key, _value, _value, _value, _header]
        )
        message = how(message, choose)
    return message


def _key(message: Strange, choose: random.Random) -> Strange:
    key = message.key or b""
    return message._replace(
        key=choose.choice([*ODD_BYTES, key[:-1], key + b" 1/2", key + b"\0", _flipped(key, choose)])
    )


def _value(message: Strange, choose: random.Random) -> Strange:
    value = message.value or b""
    try:
        said = json.loads(value)
    except ValueError:
        pass
    else:
        if choose.random() < 0.9:
            return message._replace(value=json.dumps(_bent(said, choose)).encode())
    if message.headers and value.startswith(b"\x1f\x8b") and choose.random() < 0.6:
        return message._replace(value=gzip.compress(choose.choice(_BODIES)))
    choices = [
        None,
        b"",
        value[: len(value) // 2],
        value + value,
        _flipped(value, choose),
        choose.randbytes(30),
        b"\0" * 9,
    ]
    return message._replace(value=choose.choice(choices))


def _header(message: Strange, choose: random.Random) -> Strange:
    if not message.headers or choose.random() < 0.1:
        return message._replace(headers=_headers(choose))
    headers = list(message.headers)
    at = choose.randrange(len(headers))
    if choose.random() < 0.3:
        del headers[at]
    else:
        headers[at] = headers[at][0], choose.choice([*ODD_BYTES, _flipped(headers[at][1] or b"", choose)])
    return message._replace(headers=headers)


def _headers(choose: random.Random) -> Headers:
    names = ["batch-id", "records", "source-offsets", "redrive-of", "replay", "x", "", "\U0001f4a9"]
    return [(choose.choice(names), choose.choice(ODD_BYTES)) for _ in range(choose.randrange(4))]


def _bent(said: Any, choose: random.Random) -> Any:
    """JSON in which one thing is another, is gone, or too much."""
    said = copy.deepcopy(said)
    places: list[tuple[Any, Any]] = []

    def walk(inside: Any) -> None:
        for name in inside if isinstance(inside, dict) else range(len(inside)):
            places.append((inside, name))
            if isinstance(inside[name], dict | list):
                walk(inside[name])

    if not isinstance(said, dict | list) or not said or choose.random() < 0.05:
        return choose.choice(_SHORT)
    walk(said)
    inside, name = choose.choice(places)
    fate = choose.random()
    if fate < 0.2:
        del inside[name]
    elif fate < 0.3 and isinstance(inside, dict):
        inside["stranger"] = choose.choice(ODD)
    else:
        inside[name] = copy.deepcopy(choose.choice(ODD))
    return said


def _flipped(data: bytes, choose: random.Random) -> bytes:
    if not data:
        return b"\1"
    found = bytearray(data)
    for _ in range(choose.choice([1, 1, 3])):
        found[choose.randrange(len(found))] ^= 1 << choose.randrange(8)
    return bytes(found)


_SHORT = [one for one in ODD if not isinstance(one, int) or isinstance(one, bool) or abs(one) < 2**63]

#: Bodies that are no batch, of which some look like one.
_BODIES = [
    b"", b"[]", b"null", b"{}", b'{"records":1}', b'{"records":[]}', b'{"records":[1]}',
    b'{"records":[null,"x"]}', b'{"records":[{}]}',
    b'{"records":{"0":{}}}', b'{"records":[{"idempotency_key":1}]}',
    b'{"records":[{"idempotency_key":"xyz"}]}',
    b'{"records":[{"idempotency_key":"%b","record_type":[]}]}' % (b"a" * 64), b"[" * 100_000,
]  # fmt: skip


def put(bootstrap: str, found: Iterable[Strange]) -> None:
    """Write them, in order."""
    settings = {"bootstrap.servers": bootstrap, "message.max.bytes": 8_000_000, "linger.ms": 20}
    producer = Producer({**settings, "enable.idempotence": True})
    failed: list[Any] = []
    for one in found:
        key = b"" if one.key is None and one.topic in COMPACTED else one.key  # the broker refuses none there
        producer.produce(
            one.topic, one.value, key, partition=one.partition, headers=one.headers,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )  # fmt: skip
        producer.poll(0)
    producer.flush(30)
    assert not failed, failed[:3]
