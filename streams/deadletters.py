"""The dead letters, as a person looks at them."""

import sys
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from schemas.batch import plain
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.letter import DeadLetter, Reason
from schemas.records import column
from streams.console import console, safe
from streams.rows import Rows
from streams.settings import Settings
from topics.catalogue import DLQ, FILES
from topics.connection import KafkaSettings
from topics.reader import read_all, read_compacted

#: Rows in the table; ``--json`` has all.
_SHOWN = 200
_BODY_SHOWN = 4000  #: characters of a batch's body


class Summary(NamedTuple):
    """What the list tells of a dead letter."""

    key: str
    kind: str
    stage: str
    reason: str
    record_type: str
    records: int
    files: tuple[str, ...]
    number: int
    what: str
    retry_count: int
    last_failure: str


def list_letters(settings: Settings, *, reason: str, kind: str, file: str, as_json: bool) -> None:
    """Print the open dead letters that match; ``kind`` is record or batch, or a kind of record."""
    found = [letter for letter in summaries(settings.kafka) if _matches(letter, reason, kind, file)]
    found.sort(key=lambda letter: (letter.files, letter.number, letter.last_failure))
    if as_json:
        for letter in found:
            sys.stdout.write(orjson.dumps(letter._asdict()).decode() + "\n")
        return
    table = Table(title=f"{len(found):,} dead letters", title_justify="left")
    for heading in ("key", "kind", "stage", "reason", "records", "where", "what"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "records" else "left")
    for letter in found[:_SHOWN]:
        where = ", ".join(letter.files) + (f":{letter.number}" if letter.number else "")
        kinds = letter.record_type or letter.kind
        cells = (
            letter.key[:16],
            kinds,
            letter.stage,
            letter.reason,
            f"{letter.records:,}",
            where,
            letter.what,
        )
        table.add_row(*map(safe, cells))
    screen = console()
    screen.print(table)
    if len(found) > _SHOWN:
        screen.print(f"… and {len(found) - _SHOWN:,} more; --json lists all")


def summaries(kafka: KafkaSettings) -> list[Summary]:
    """Of every open dead letter; the originals are not kept, so that a long queue fits into memory."""
    paths = {key.hex(): descriptor.path for key, descriptor in _descriptors(kafka).items()}
    found: dict[bytes, Summary] = {}
    for message in read_all(kafka, DLQ.name):
        key, value = message.key() or b"", message.value()
        found.pop(key, None)
        if value is not None:
            found[key] = _summary(key.decode(errors="replace"), value, paths)
    return list(found.values())


def _summary(key: str, value: bytes, paths: dict[str, str]) -> Summary:
    try:
        letter: dict[str, Any] = orjson.loads(value)
        place: dict[str, Any] = letter.get("place") or {}
        files = letter.get("headers", {}).get("files", "").split(",")
        return Summary(
            key,
            letter["kind"],
            letter["stage"],
            letter["reason"],
            letter.get("record_type", ""),
            letter.get("records", 1),
            tuple(sorted(paths[file] for file in (place.get("descriptor"), *files) if file in paths)),
            place.get("number", 0),
            "; ".join(_said(letter["stage"], reason) for reason in letter.get("reasons", ())),
            letter.get("retry_count", 0),
            letter["last_failure"],
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"not a dead letter of spotstream's: {error!r}"
        return Summary(key, "unknown", "unknown", "unreadable", "", 0, (), 0, why, 0, "")


def _said(stage: str, reason: Reason) -> str:
    # Avstar's code or status says more than its message; a cell's or a row's text would only be long.
    about = reason["value"] if stage == "dispatch" else reason["field"]
    return f"{about}: {reason['rule']}" if about else reason["rule"]


def _matches(letter: Summary, reason: str, kind: str, file: str) -> bool:
    end = "/" + file.lstrip("./")
    return (
        reason in ("", letter.reason)
        and kind in ("", letter.kind, letter.record_type)
        and (not file or any(path == file or path.endswith(end) for path in letter.files))
    )


def show_letter(settings: Settings, prefix: str, *, as_json: bool) -> None:
    """Print all of the dead letter whose key begins with ``prefix``; see :func:`find`."""
    key, value = find(settings.kafka, prefix)
    if as_json:
        sys.stdout.write(value.decode(errors="backslashreplace") + "\n")
        return
    try:
        letter = DeadLetter.model_validate_json(value)
    except ValidationError:
        what = "not a dead letter of spotstream's"
        raise Problem(what, where=key, remedy="--json shows it as it is") from None
    screen = console()
    screen.print(_facts(key, letter))
    if letter.kind == "batch":
        screen.print("original", style="bold")
        screen.print(safe(_body(letter)))
    else:
        _print_record(screen, letter, _descriptor(settings.kafka, letter))
    if letter.exchange:
        screen.print("exchange", style="bold")
        screen.print(safe(orjson.dumps(letter.exchange, option=orjson.OPT_INDENT_2).decode()))
    if letter.traceback:
        screen.print(safe(letter.traceback, "red"))


def find(kafka: KafkaSettings, prefix: str) -> tuple[str, bytes]:
    """Key and value of the open dead letter whose key begins with ``prefix``.

    Raises :class:`Problem` when there is none, or more than one.
    """
    found: dict[str, bytes] = {}
    for message in read_all(kafka, DLQ.name):
        key, value = (message.key() or b"").decode(errors="replace"), message.value()
        if key.startswith(prefix.lower()):
            found.pop(key, None)
            if value is not None:
                found[key] = value
    if not found:
        raise Problem("no such dead letter", where=prefix, remedy="`spotstream dlq list` lists them")
    if len(found) > 1:
        raise Problem(f"{len(found)} dead letters begin so", where=prefix, remedy="give more of the key")
    return next(iter(found.items()))


def _descriptors(kafka: KafkaSettings) -> dict[bytes, Descriptor]:
    """Of all files, by their ids; what cannot be read is left out, as the workers leave it out."""
    found: dict[bytes, Descriptor] = {}
    for key, value in read_compacted(kafka, FILES.name).items():
        with suppress(ValueError):
            found[key] = Descriptor.load(value)
    return found


def _descriptor(kafka: KafkaSettings, letter: DeadLetter) -> Descriptor | None:
    if not letter.place or not letter.place.descriptor:
        return None
    return _descriptors(kafka).get(bytes.fromhex(letter.place.descriptor))


def _facts(key: str, letter: DeadLetter) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    facts: dict[str, object] = {"key": key}
    for name in ("kind", "stage", "reason", "record_type", "records", "placement_hash", "idempotency_key"):
        facts[name] = getattr(letter, name)
    if letter.place:
        facts["file"] = letter.place.path
        facts["record number"], facts["byte offset"] = letter.place.number, letter.place.offset
        facts["raw record"] = f"partition {letter.place.partition}, offset {letter.place.raw_offset}"
    if letter.source:
        facts["raw records"] = (
            f"partition {letter.source.partition}, offsets {letter.source.first} to {letter.source.last}"
        )
    for name in ("attempts", "retry_count", "first_failure", "last_failure"):
        facts[name] = getattr(letter, name)
    facts |= {f"header {name}": value for name, value in letter.headers.items()}
    for name, value in facts.items():
        if value != "":
            table.add_row(safe(name.replace("_", " "), "bold"), safe(str(value)))
    return table


def _print_record(screen: Console, letter: DeadLetter, descriptor: Descriptor | None) -> None:
    """The record, cell by cell where it can be split, with the fields at fault marked."""
    faults = {column(reason["field"]): reason["rule"] for reason in letter.reasons}
    row = Rows(descriptor).read([letter.original])[0] if descriptor and descriptor.header else None
    if isinstance(row, list) and descriptor:
        table = Table("", "heading", "field", "value", "rule")
        columns = descriptor.profile.layout(descriptor.header).columns
        for heading, name, cell in zip(descriptor.header, columns, row, strict=False):
            rule = faults.pop(name, "") if name else ""
            if cell.strip() or rule:
                style = "bold red" if rule else ""
                mark = "✗" if rule else ""
                table.add_row(*(safe(text, style) for text in (mark, heading, name, repr(cell), rule)))
        screen.print(table)
    for name, rule in faults.items():
        screen.print(safe(f"✗ {name}: {rule}" if name else f"✗ {rule}", "bold red"))
    screen.print("original", style="bold")
    encoding = descriptor.encoding if descriptor else "utf-8"
    screen.print(safe(letter.original.decode(encoding, "backslashreplace").rstrip("\r\n")))


def _body(letter: DeadLetter) -> str:
    try:
        body = plain(letter.original, letter.headers.get("content-encoding", ""))
    except ValueError:
        body = letter.original
    text = body.decode("utf-8", "backslashreplace")
    return text if len(text) <= _BODY_SHOWN else f"{text[:_BODY_SHOWN]}… ({len(text):,} characters)"
