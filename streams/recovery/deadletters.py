"""The dead letters, as a person looks at them."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from schemas.batch import plain
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.letter import DeadLetter, Reason
from schemas.records import column, kind_named
from streams import moment
from streams.console import console, safe
from streams.formats import catalogue as formats
from streams.formats.rows import Unclear
from streams.recovery import letters
from streams.recovery.letters import Stored
from streams.settings import Settings
from streams.validate.descriptors import read_descriptors
from topics.connection import KafkaSettings

#: Rows in the table; ``--json`` has all.
_SHOWN = 200
_LETTERS = "record", "batch"  #: kinds of dead letters
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
    retry_count: int = 0
    last_failure: str = ""
    under_way: str = ""  #: since when a redrive is


class Filter(NamedTuple):
    """Which dead letters are wanted; empty: any. ``kind`` is record or batch, or a kind of record."""

    reason: str = ""
    kind: str = ""
    file: str = ""
    older: str = ""  #: last failed before this moment, or longer ago
    newer: str = ""

    def of(self, letters: Iterable[Summary]) -> list[Summary]:
        """Those that match. Raises :class:`UsageError` for what is no moment."""
        now = datetime.now(UTC)
        before = moment.parse(self.older, now, name="--older") if self.older else None
        after = moment.parse(self.newer, now, name="--newer") if self.newer else None
        end = "/" + self.file.lstrip("./")
        return [
            letter
            for letter in letters
            if self.reason in ("", letter.reason)
            and self.kind in ("", letter.kind, letter.record_type)
            and (not self.file or any(path == self.file or path.endswith(end) for path in letter.files))
            and _between(letter.last_failure, after, before)
        ]


def _between(text: str, after: datetime | None, before: datetime | None) -> bool:
    if not text:
        return after is before is None
    at = datetime.fromisoformat(text)
    return (after is None or at > after) and (before is None or at < before)


def list_letters(settings: Settings, wanted: Filter, *, as_json: bool) -> None:
    """Print the open dead letters that match, those of one file together.

    Raises :class:`UsageError` for a kind that there is not, or what is no moment.
    """
    if wanted.kind not in ("", *_LETTERS):
        wanted = wanted._replace(kind=kind_named(wanted.kind, _LETTERS))
    found = wanted.of(summaries(settings.kafka))
    found.sort(key=lambda letter: (letter.files, letter.number, letter.last_failure))
    if as_json:
        for letter in found:
            print(json.dumps(letter._asdict()))
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
            "redrive under way" if letter.under_way else letter.reason,
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
    """Of every open dead letter."""
    paths = {key.hex(): descriptor.path for key, descriptor in read_descriptors(kafka).items()}
    return [_summary(stored, paths) for stored in letters.index(kafka)]


def _summary(stored: Stored, paths: dict[str, str]) -> Summary:
    letter = stored.said
    if not letter:
        return Summary(
            stored.key, "unknown", "unknown", "unreadable", "", 0, (), 0, "not a dead letter of spotstream's"
        )
    place: dict[str, Any] = letter["place"] or {}
    files = (place.get("descriptor"), *letter["headers"].get("files", "").split(","))
    return Summary(
        stored.key,
        letter["kind"],
        letter["stage"],
        letter["reason"],
        letter["record_type"],
        letter["records"],
        tuple(sorted(paths[file] for file in files if file in paths)),
        place.get("number", 0),
        "; ".join(_said(letter["stage"], reason) for reason in letter["reasons"]),
        letter["retry_count"],
        letter["last_failure"],
        letter["under_way"],
    )


def _said(stage: str, reason: Reason) -> str:
    # Avstar's code or status says more than its message; a cell's or a row's text would only be long.
    about = reason["value"] if stage == "dispatch" else reason["field"]
    return f"{about}: {reason['rule']}" if about else reason["rule"]


def show_letter(settings: Settings, prefix: str, *, as_json: bool) -> None:
    """Print all of the dead letter whose key begins with ``prefix``; see :func:`letters.find`."""
    stored = letters.find(settings.kafka, prefix)
    letter = letters.load(settings.kafka, [stored]).get(stored.key) if stored.said else None
    if as_json:
        if letter is None:
            for value in letters.raw(settings.kafka, stored):
                print(safe(value.decode(errors="backslashreplace")))
        else:
            print(json.dumps(json.loads(letter.dump())))
        return
    if letter is None:
        what = "parts of it are missing" if stored.said else "not a dead letter of spotstream's"
        raise Problem(what, where=stored.key, remedy="--json shows it as it is")
    screen = console()
    screen.print(_table(facts(stored.key, letter)))
    descriptor = descriptor_of(settings.kafka, letter)
    if letter.kind == "record":
        _print_cells(screen, *cells(letter, descriptor))
    screen.print("original", style="bold")
    screen.print(safe(original(letter, descriptor)))
    if letter.exchange:
        screen.print("exchange", style="bold")
        screen.print(safe(json.dumps(letter.exchange, indent=2, ensure_ascii=False)))
    if letter.traceback:
        screen.print(safe(letter.traceback, "red"))


def descriptor_of(kafka: KafkaSettings, letter: DeadLetter) -> Descriptor | None:
    """Of the file that a record stood in; None for a batch, and for what is not known."""
    if not letter.place or not letter.place.descriptor:
        return None
    return read_descriptors(kafka).get(bytes.fromhex(letter.place.descriptor))


def facts(key: str, letter: DeadLetter) -> dict[str, str]:
    """All that a letter says in a word, by what it is; without what it does not say."""
    found: dict[str, object] = {"key": key}
    for name in ("kind", "stage", "reason", "record_type", "records", "placement_hash", "idempotency_key"):
        found[name] = getattr(letter, name)
    if letter.place:
        found["file"] = letter.place.path
        found["record number"], found["byte offset"] = letter.place.number, letter.place.offset
        found["raw record"] = f"partition {letter.place.partition}, offset {letter.place.raw_offset}"
    if letter.source:
        found["raw records"] = (
            f"partition {letter.source.partition}, offsets {letter.source.first} to {letter.source.last}"
        )
    for name in ("attempts", "retry_count", "first_failure", "last_failure", "under_way"):
        found[name] = getattr(letter, name)
    found |= {f"header {name}": value for name, value in letter.headers.items()}
    return {name.replace("_", " "): str(value) for name, value in found.items() if value != ""}


def _table(said: dict[str, str]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, text in said.items():
        table.add_row(safe(name, "bold"), safe(text))
    return table


class Cell(NamedTuple):
    """Of a rejected record; ``rule``: what it breaks, empty for nothing."""

    heading: str
    field: str
    value: str
    rule: str


def cells(letter: DeadLetter, descriptor: Descriptor | None) -> tuple[list[Cell], dict[str, str]]:
    """The record cell by cell, where it can be split; and the rules that belong to no cell, by field."""
    faults = {column(reason["field"]): reason["rule"] for reason in letter.reasons}
    row = formats.rows(descriptor).read([letter.original])[0] if descriptor else None
    row = row.row if isinstance(row, Unclear) else row
    found: list[Cell] = []
    if descriptor and row is not None and not isinstance(row, dict):
        layout = descriptor.profile.layout(descriptor.header)
        columns = layout.of(letter.record_type)
        for heading, name, cell in zip(descriptor.header or layout.columns, columns, row, strict=False):
            rule = faults.pop(name, "") if name else ""
            if (cell.strip() and (name or descriptor.header)) or rule:
                found.append(Cell(heading, name, cell, rule))
    return found, faults


def _print_cells(screen: Console, found: list[Cell], faults: dict[str, str]) -> None:
    if found:
        table = Table("", "heading", "field", "value", "rule")
        for cell in found:
            texts = ("✗" if cell.rule else "", cell.heading, cell.field, repr(cell.value), cell.rule)
            table.add_row(*(safe(text, "bold red" if cell.rule else "") for text in texts))
        screen.print(table)
    for name, rule in faults.items():
        screen.print(safe(f"✗ {name}: {rule}" if name else f"✗ {rule}", "bold red"))


def original(letter: DeadLetter, descriptor: Descriptor | None) -> str:
    """The bytes as they stood, as text; of a batch the beginning of its body."""
    if letter.kind == "record":
        encoding = descriptor.encoding if descriptor else "utf-8"
        return letter.original.decode(encoding, "backslashreplace").rstrip("\r\n")
    try:
        body = plain(letter.original, letter.headers.get("content-encoding", ""))
    except ValueError:
        body = letter.original
    text = body.decode("utf-8", "backslashreplace")
    return text if len(text) <= _BODY_SHOWN else f"{text[:_BODY_SHOWN]}… ({len(text):,} characters)"
