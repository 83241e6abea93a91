"""Avro with Confluent framing: a zero byte, the schema's id in the registry, the record.

The schemas of the four kinds lie beside this module. Writing is the hot path and goes column by column, many
records at once (:func:`bodies`): an eighth of the time of fastavro's writer, and the same bytes.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from importlib.resources import files
from io import BytesIO
from struct import Struct
from typing import Any, Final

import fastavro
import numpy as np

from schemas.columns import Column, Columns, Pieces, joined, written
from schemas.hashes import Canonical
from schemas.memo import Memo
from schemas.records import Kind

_FRAME = Struct(">bI")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REMEMBERED: Final = 1 << 16


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
    """Frames and reads records of a kind under a schema id of the registry.

    ``writer`` is the schema that belongs to the id, where it is another than this version's: records written
    with it are read as this version's schema has them. Raises ``ValueError`` when it is no Avro schema.
    """

    def __init__(self, kind: Kind, schema_id: int, writer: dict[str, Any] | None = None) -> None:
        self.kind: Kind = kind
        self.frame = _FRAME.pack(0, schema_id)  #: what stands before a record on its topic
        ours = fastavro.parse_schema(_physical(schema(kind)))
        self._writer, self._reader = ours, None  # a reader's schema that changes nothing costs as much again
        if writer and writer != schema(kind):
            self._writer, self._reader = _parsed(writer), ours
        self._texts = _texts(kind)
        self._optional = [one["name"] for one in schema(kind)["fields"] if isinstance(one["type"], list)]

    def decode(self, value: bytes) -> tuple[Canonical, str]:
        """Record and placement hash; raises ``ValueError`` when it is no framed record of the schema."""
        schema_id(value)
        try:
            return self._decode(value)
        except Exception as error:  # noqa: BLE001 - strange bytes make fastavro raise about anything
            why = str(error) or type(error).__name__
            raise ValueError(f"no {self.kind} under its schema: {why}") from None

    def _decode(self, value: bytes) -> tuple[Canonical, str]:
        body = BytesIO(value)
        body.seek(_FRAME.size)
        fields: dict[str, Any] = fastavro.schemaless_reader(body, self._writer, self._reader)
        if body.read(1):
            raise ValueError("more bytes than the record has")
        placement: str = fields.pop("placement_hash")
        for name, texts in self._texts:
            if fields[name] is not None:
                fields[name] = texts[fields[name]]
        for name in self._optional:
            if fields[name] is None:
                del fields[name]
        return {"record_type": self.kind, **fields}, placement


def _physical(avro: Any) -> Any:
    """A schema without its logical types, so that fastavro makes no objects that would be made text again."""
    if isinstance(avro, dict):
        return {name: _physical(value) for name, value in avro.items() if name != "logicalType"}
    return [_physical(value) for value in avro] if isinstance(avro, list) else avro


def _parsed(writer: dict[str, Any]) -> Any:
    try:
        return fastavro.parse_schema(_physical(writer))
    except Exception as error:  # noqa: BLE001 - a stranger's schema may be anything
        raise ValueError(f"its schema is not Avro: {error}") from None


def keys(kind: Kind, columns: Columns) -> list[bytes]:
    """The key of each record on its topic: its id."""
    if kind == "billing":
        invoices = zip(columns["invoice_id"].each(), columns["line_no"].each(), strict=True)
        return [b"%b/%d" % (invoice.encode(), line) for invoice, line in invoices]
    return [found.encode() for found in columns[f"{kind}_id"].each()]


def bodies(kind: Kind, columns: Columns, placement_hashes: list[str]) -> list[bytes]:
    """Each record in Avro's binary encoding, not framed.

    Raises ``KeyError``, ``TypeError``, ``ValueError``, … when one cannot be written.
    """
    pieces: Pieces = []
    for field in schema(kind)["fields"]:
        name, avro = field["name"], field["type"]
        if name == "placement_hash":
            pieces += [_varints[_HASH], Column(placement_hashes)]
        elif isinstance(avro, list):
            pieces.append(_union(avro[1], columns[name]) if name in columns else _ABSENT)
        else:
            pieces.append(written(columns[name], partial(_written, avro), _MISSING))
    return [text.encode("latin-1") for text in joined(pieces)]


def _union(avro: Any, column: Column) -> Column:
    """Null or a type."""
    return written(column, lambda there: map(_PRESENT.__add__, _written(avro, there)), _ABSENT)


def _written(avro: Any, values: Sequence[Any]) -> Iterable[str]:
    """The values of a column."""
    kind = avro["logicalType"] if isinstance(avro, dict) else avro
    if kind == "string":
        if not "".join(values).isascii():
            values = [value.encode().decode("latin-1") for value in values]
        return [_varints[len(value)] + value for value in values]
    if kind == "date":
        return _dates.read(values)
    if kind == "timestamp-millis":
        return _instants(values)
    return _numbers(values)


def _instants(values: Sequence[str]) -> Iterable[str]:
    """Milliseconds since 1970. From 1970-07 to 2039-09 all have six bytes, and are written together."""
    found = np.array([text.removesuffix("Z") for text in values], "datetime64[ms]").astype(np.int64)
    if not len(found) or found.min() < 1 << 34 or found.max() >= 1 << 41:
        return _varints.read(found.tolist())
    sevens = (found[:, None] << 1 >> np.arange(0, 42, 7)) & 127
    sevens[:, :-1] |= 128
    together = sevens.astype(np.uint8).tobytes().decode("latin-1")
    return [together[begin : begin + 6] for begin in range(0, len(together), 6)]


#: What no text holds, so it cannot be encoded: a field that must be there is not.
_MISSING = "\N{SNOWMAN}"

_ABSENT, _PRESENT = "\0", "\2"
_HASH: Final = 64  #: digits

#: What seven and fourteen bits are written as, lowest first: where more follow, and at the end.
_GOING_ON = [chr(low & 127 | 128) + chr(low >> 7 | 128) for low in range(1 << 14)]
_LAST = [chr(low) if low < 128 else chr(low & 127 | 128) + chr(low >> 7) for low in range(1 << 14)]


def _varint(number: int) -> str:
    """Avro's int and long: zigzag, then seven bits a byte, lowest first."""
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError(f"{number} does not fit into 64 bits")
    rest = number << 1 ^ number >> 63
    written = ""
    while rest >= 1 << 14:
        written += _GOING_ON[rest & 0x3FFF]
        rest >>= 14
    return written + _LAST[rest]


def _numbers(values: Sequence[int]) -> Iterable[str]:
    """Avro's ints and longs: amounts, of which hardly one comes twice, or a few values again and again."""
    least, most = min(values, default=0), max(values, default=0)
    if 1 << 13 <= most < 1 << 27 and least >= 0:
        return [
            _GOING_ON[value << 1 & 0x3FFF] + _LAST[value >> 13] if value >> 13 else _LAST[value << 1]
            for value in values
        ]
    return _varints.read(values)


def _date(text: str) -> str:
    return _varint((date.fromisoformat(text) - _EPOCH.date()).days)


def _date_text(days: int) -> str:
    return (_EPOCH.date() + timedelta(days)).isoformat()


def _instant_text(milliseconds: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


#: Lengths and other numbers that come again, written.
_varints: Memo[int, str] = Memo(_varint, _REMEMBERED)
#: ``2026-03-09`` → days since 1970, written.
_dates: Memo[str, str] = Memo(_date, _REMEMBERED)
#: The texts of numbers that stand for dates and instants.
_TEXTS: dict[str, Memo[int, str]] = {
    "date": Memo(_date_text, _REMEMBERED),
    "timestamp-millis": Memo(_instant_text, _REMEMBERED),
}


@cache
def _texts(kind: Kind) -> list[tuple[str, dict[int, str]]]:
    """The fields that Avro has as numbers and records as text, each with its texts."""
    types = {field["name"]: field["type"] for field in schema(kind)["fields"]}
    plain = {name: avro[1] if isinstance(avro, list) else avro for name, avro in types.items()}
    return [(name, _TEXTS[avro["logicalType"]]) for name, avro in plain.items() if isinstance(avro, dict)]
