"""The dead letters, as a person looks at them."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from schemas.batch import plain
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.letter import DeadLetter, Reason
from schemas.records import column
from streams import moment
from streams.console import console, safe
from streams.formats import catalogue as formats
from streams.recovery import letters
from streams.recovery.letters import Stored
from streams.settings import Settings
from streams.validate.descriptors import read_descriptors
from topics.connection import KafkaSettings

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
    """Print the open dead letters that match, those of one file together."""
    found = wanted.of(summaries(settings.kafka))
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
        values = letters.raw(settings.kafka, stored) if letter is None else [letter.dump()]
        sys.stdout.write("".join(value.decode(errors="backslashreplace") + "\n" for value in values))
        return
    if letter is None:
        what = "parts of it are missing" if stored.said else "not a dead letter of spotstream's"
        raise Problem(what, where=stored.key, remedy="--json shows it as it is")
    key = stored.key
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


def _descriptor(kafka: KafkaSettings, letter: DeadLetter) -> Descriptor | None:
    if not letter.place or not letter.place.descriptor:
        return None
    return read_descriptors(kafka).get(bytes.fromhex(letter.place.descriptor))


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
    for name in ("attempts", "retry_count", "first_failure", "last_failure", "under_way"):
        facts[name] = getattr(letter, name)
    facts |= {f"header {name}": value for name, value in letter.headers.items()}
    for name, value in facts.items():
        if value != "":
            table.add_row(safe(name.replace("_", " "), "bold"), safe(str(value)))
    return table


def _print_record(screen: Console, letter: DeadLetter, descriptor: Descriptor | None) -> None:
    """The record, cell by cell where it can be split, with the fields at fault marked."""
    faults = {column(reason["field"]): reason["rule"] for reason in letter.reasons}
    row = formats.rows(descriptor).read([letter.original])[0] if descriptor else None
    if descriptor and row is not None and not isinstance(row, dict):
        table = Table("", "heading", "field", "value", "rule")
        layout = descriptor.profile.layout(descriptor.header)
        columns = layout.of(letter.record_type)
        for heading, name, cell in zip(descriptor.header or layout.columns, columns, row, strict=False):
            rule = faults.pop(name, "") if name else ""
            if (cell.strip() and (name or descriptor.header)) or rule:
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
