"""docs/topics.md, made of the catalogue and the models: ``python tests/fields.py > docs/topics.md``."""

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

from schemas import codec
from schemas.batch import HEADERS, Source
from schemas.descriptor import Descriptor
from schemas.letter import DeadLetter, Exchange, Place, Reason, Receipt, RecordRejection
from topics.catalogue import CATALOGUE, VALIDATED, Topic

#: What each topic's messages are, in words; what is generated follows it.
_VALUES = {
    "avion.raw": """
The key has 40 bytes, big-endian: the descriptor's id (16), the byte offset of the record's first byte in
the decompressed file (8), the record's number from 1 (8), and how many bytes of heading, comment and blank
lines lie between the record before and this one (8). The value is the record as it stood, with its line
terminator. So the records of one descriptor, in order, are the file again, and `offset - skipped` is where
the one before ended.""",
    "avion.files": """
The key is the first 16 bytes of the SHA-256 of the value, which is JSON (RFC 8785): what it takes to read
any record of the file.""",
    "avion.tail.checkpoints": """
JSON, by the file's identity, and one claim by each tailer's name. It is the tailers' own, and changes with
them; what it promises is in [guarantees](guarantees.md).""",
    "avstar.batches": """
The key is the idempotency key: SHA-256 over the placement hashes of its records, 64 hexadecimal digits. The
value is the request body, byte for byte as it is sent: gzip of `{"batch_id": …, "records": […]}`, or of
multipart form data with the parts `manifest` (JSON) and `records` (NDJSON). A record of it is the canonical
JSON (RFC 8785) of its fields with `idempotency_key`, the placement hash, put in front.""",
    "avstar.receipts": """
JSON, by idempotency key; where a single record's letter was discarded, by that letter's key. What has its
default is left out.""",
    "avstar.dlq": """
JSON; what has its default is left out. A batch's letter is keyed by its idempotency key, a record's by the
SHA-256 over descriptor id, offset (8 bytes, big-endian) and bytes; that of a message on `avstar.batches` that
is no batch as a record's, with its key for the descriptor's id and offset 0. A letter that is too large for
one message lies in parts under `<key> n/m`. An empty value ends a letter: it was redriven or discarded. The
headers are Kafka Connect's (`__connect.errors.*`), so that tools for its dead-letter queues read these,
too.""",
}
_MODELS: dict[str, list[Any]] = {
    "avion.files": [Descriptor],
    "avstar.receipts": [Receipt, Source, RecordRejection],
    "avstar.dlq": [DeadLetter, Reason, Place, Exchange],
}
_FIELD = re.compile(r"^    (\w+): (.+?)(?: = (.+?))?(?:  #: (.+))?$", re.MULTILINE)
_DAY_MS = 86_400_000


def fields(model: type) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field, as the source has them."""
    for name, kind, _, meaning in _FIELD.findall(inspect.getsource(model)):
        if name in model.__annotations__:
            yield name, _type(kind), meaning


def _type(written: str) -> str:
    """A type as the page shows it."""
    plain = re.sub(r"NotRequired\[(.+)\]$", r"\1", written).removesuffix(" | None")
    if plain.startswith("Literal"):
        return re.sub(r'"(\w[\w-]*)"', r"`\1`", plain[len("Literal[") : -1])
    return {"Original": "str", "Encoding": "str"}.get(plain, plain)


def _table(head: str, rows: Iterator[tuple[str, str, str]]) -> list[str]:
    lines = [f"| {head} | type | what it is |", "|---|---|---|"]
    return lines + [f"| `{name}` | {kind} | {meaning.replace('``', '`')} |" for name, kind, meaning in rows]


def _avro(kind: str) -> Iterator[tuple[str, str, str]]:
    for field in codec.schema(kind)["fields"]:  # type: ignore[arg-type] # the catalogue's names are kinds
        avro = field["type"]
        plain = avro[1] if isinstance(avro, list) else avro
        name = plain["logicalType"] if isinstance(plain, dict) else plain
        yield field["name"], f"{name}?" if isinstance(avro, list) else name, field["doc"]


def _kept(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "the newest of each key, for ever"
    return f"{topic.retention_ms // _DAY_MS} days"


def _about(topic: Topic) -> list[str]:
    kinds = {declared.name: kind for kind, declared in VALIDATED.items()}
    lines = ["", f"## {topic.name}", ""]
    if topic.name in kinds:
        lines += [f"Avro, framed; see [subscribing](subscribing.md). `{kinds[topic.name]}` records:", ""]
        return lines + _table("field", _avro(kinds[topic.name]))
    lines.append(_VALUES[topic.name].strip())
    if topic.name == "avstar.batches":
        lines += ["", "| header | what it is |", "|---|---|"]
        lines += [f"| `{name}` | {meaning} |" for name, meaning in HEADERS.items()]
    for number, model in enumerate(_MODELS.get(topic.name, ())):
        lines += ["", *_table("field" if not number else f"`{model.__name__}`", fields(model))]
    return lines


def text() -> str:
    """The whole page."""
    lines = [
        "# Topics, field by field",
        "",
        "All are written in transactions: read them with `isolation.level=read_committed`. `?`: may be null.",
        "",
        "| topic | holds | written by | read by | kept |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{t.name}` | {t.purpose} | {t.written_by} | {t.read_by} | {_kept(t)} |" for t in CATALOGUE]
    return "\n".join([*lines, *(line for topic in CATALOGUE for line in _about(topic))]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
