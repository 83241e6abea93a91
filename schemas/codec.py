"""Avro with Confluent framing: a zero byte, the schema's id in the registry, the record.

The schemas of the four kinds lie beside this module. Writing is the hot path, so each schema is turned into
one Python function once (:func:`_compile`): half the time of fastavro's writer, and the same bytes.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from io import BytesIO
from struct import Struct
from typing import Any, cast

import fastavro

from schemas.hashes import Canonical
from schemas.records import Kind

_FRAME = Struct(">bI")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MINUTES_REMEMBERED = 1 << 14

Encode = Callable[[Mapping[str, Any], str], bytes]


@cache
def schema(kind: Kind) -> dict[str, Any]:
    """The Avro schema of a kind, as JSON has it."""
    parsed: dict[str, Any] = json.loads(files("schemas").joinpath("avro", f"{kind}.avsc").read_text("utf-8"))
    return parsed


def schema_id(value: bytes) -> int:
    """The id in a framed value; raises ``ValueError`` when it is not framed."""
    if len(value) < _FRAME.size or value[0] != 0:
        raise ValueError("not framed as the registry's clients do: no zero byte and schema id in front")
    return int(_FRAME.unpack_from(value)[1])


class Codec:
    """Writes and reads records of a kind under a schema id of the registry.

    ``writer`` is the schema that belongs to the id, where it is another than this version's: records written
    with it are read as this version's schema has them.
    """

    def __init__(self, kind: Kind, schema_id: int, writer: dict[str, Any] | None = None) -> None:
        self.kind: Kind = kind
        self._frame = _FRAME.pack(0, schema_id)
        self._reader = fastavro.parse_schema(schema(kind))
        self._writer = fastavro.parse_schema(writer) if writer else self._reader
        self._encode = _compile(kind)
        self._key: Callable[[Mapping[str, Any]], str] = _KEYS[kind]

    def encode(self, record: Mapping[str, Any], placement_hash: str) -> bytes:
        """The framed value; raises ``KeyError``, ``TypeError``, … when the record cannot be written."""
        return self._frame + self._encode(record, placement_hash)

    def message(self, record: Mapping[str, Any], placement_hash: str) -> dict[str, bytes]:
        """Key (the record's id) and value, as confluent-kafka's ``produce_batch`` takes them."""
        return {
            "key": self._key(record).encode(),
            "value": self._frame + self._encode(record, placement_hash),
        }

    def decode(self, value: bytes) -> tuple[Canonical, str]:
        """The record and its placement hash; raises ``ValueError`` when it is not framed."""
        schema_id(value)
        body = BytesIO(value[_FRAME.size :])
        fields: dict[str, Any] = fastavro.schemaless_reader(body, self._writer, self._reader)
        placement: str = fields.pop("placement_hash")
        record: Canonical = {"record_type": self.kind}
        record.update((name, _text(value)) for name, value in fields.items() if value is not None)
        return record, placement


_KEYS: dict[Kind, Callable[[Mapping[str, Any]], str]] = {
    "spot": lambda record: record["spot_id"],
    "avail": lambda record: record["avail_id"],
    "billing": lambda record: f"{record['invoice_id']}/{record['line_no']}",
    "makegood": lambda record: record["makegood_id"],
}


def _text(value: Any) -> str | int:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    return value.isoformat() if isinstance(value, date) else value


#: The bytes 0 to 255 as characters: what is written is put together as Latin-1 text, in one f-string per
#: record, and encoded once; a join of bytes with an ``encode`` per field takes twice as long.
_CHARS = [chr(number) for number in range(256)]


def _varint(number: int) -> str:
    """Avro's int and long: zigzag, then seven bits a byte, lowest first."""
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError(f"{number} does not fit into 64 bits")
    rest = number << 1 ^ number >> 63
    written = ""
    while rest > 127:
        written += _CHARS[rest & 127 | 128]
        rest >>= 7
    return written + _CHARS[rest]


class _Varints(dict[int, str]):
    """Lengths and other small numbers, written once."""

    def __missing__(self, number: int) -> str:
        written = _varint(number)
        if 0 <= number < 4096:
            self[number] = written
        return written


class _Dates(dict[str, str]):
    def __missing__(self, text: str) -> str:
        if len(self) >= _MINUTES_REMEMBERED:
            self.clear()
        self[text] = written = _varint((date.fromisoformat(text) - _EPOCH.date()).days)
        return written


class _Minutes(dict[str, int]):
    """``2026-03-09T14:30`` → milliseconds since 1970."""

    def __missing__(self, text: str) -> int:
        if len(self) >= _MINUTES_REMEMBERED:
            self.clear()
        self[text] = found = (datetime.fromisoformat(text + "Z") - _EPOCH) // _MILLISECOND
        return found


_minutes = _Minutes()


def _instant(text: str) -> str:
    return _varint(_minutes[text[:16]] + int(text[17:19]) * 1000 + int(text[20:23]))


def _utf8(text: str) -> str:
    return text.encode().decode("latin-1")


#: Avro type or logical type → what writes ``{0}`` in the f-string, from left to right.
_WRITERS = {
    "string": "{{varint[len({0} if {0}.isascii() else ({0} := utf8({0})))]}}{{{0}}}",
    "int": "{{varint[{0}]}}",
    "long": "{{varint[{0}]}}",
    "date": "{{date[{0}]}}",
    "timestamp-millis": "{{instant({0})}}",
}


@cache
def _compile(kind: Kind) -> Encode:
    """One function for a schema: fetches the fields, then one f-string that writes them."""
    fetches, writes = [], []
    for index, field in enumerate(schema(kind)["fields"]):
        name, optional = field["name"], isinstance(field["type"], list)
        value = name if name == "placement_hash" else f"v{index}"
        avro = field["type"][1] if optional else field["type"]
        write = _WRITERS[avro["logicalType"] if isinstance(avro, dict) else avro].format(value)
        if name != "placement_hash":
            fetches.append(f"    {value} = record{f'.get({name!r})' if optional else f'[{name!r}]'}\n")
        if optional:
            fetches.append(f"    w{index} = absent if {value} is None else f'{{present}}{write}'\n")
            write = f"{{w{index}}}"
        writes.append(write)
    body = f"return f'{''.join(writes)}'.encode('latin-1')"
    source = f"def encode(record, placement_hash):\n{''.join(fetches)}    {body}"
    names = {
        "varint": _Varints(),
        "date": _Dates(),
        "instant": _instant,
        "utf8": _utf8,
        "absent": _CHARS[0],
        "present": _CHARS[2],
    }
    exec(source, names)  # noqa: S102 - made of our own schemas' field names, nothing else
    return cast("Encode", names["encode"])
