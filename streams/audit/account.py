"""The audit: every record of every file accounted for, from what the topics hold."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from confluent_kafka import Message
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from schemas.descriptor import Descriptor
from schemas.errors import Problem, Unreachable, UsageError
from schemas.letter import Receipt
from streams import log
from streams.audit.books import Books, Finding, Statement, Tally
from streams.console import console, safe
from streams.dispatch import message as batches
from streams.settings import Settings
from streams.tail import checkpoint
from streams.tail.checkpoint import Checkpoint
from streams.tail.source import OpenFile, OverwrittenError, Source
from topics.catalogue import BATCHES, DLQ, FILES, RAW, RECEIPTS, Topic
from topics.connection import KafkaSettings
from topics.reader import beginnings, read_all

logger = log.get("audit")

#: Findings in the table; ``--json`` has more.
_SHOWN = 20
_NARROW_COLUMNS = ("records", "delivered", "rejected", "dead_lettered", "missing", "duplicates")
_COLUMNS = ("records", "published", "validated", "batches", *_NARROW_COLUMNS[1:])
#: Characters that all columns need.
_WIDE = 130


class Audit(NamedTuple):
    """The books' statement, and how long it took to make."""

    statement: Statement
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing is missing and nothing is there twice."""
        return not self.statement.total.missing and not self.statement.total.duplicates

    def summary(self) -> dict[str, Any]:
        """The numbers of all, for ``--json``."""
        numbers = asdict(self.statement.total)
        del numbers["path"]
        return numbers | {"seconds": round(self.seconds, 3)}

    def dump(self) -> str:
        """One JSON object: the numbers of all, then each file's, then the findings."""
        files = [asdict(tally) for tally in self.statement.files]
        findings = [finding._asdict() for finding in self.statement.findings]
        return json.dumps(self.summary() | {"files": files, "findings": findings})


def audit(settings: Settings, file: str = "") -> Audit:
    """Read the topics and balance the books, of all files or of the one at the path ``file``.

    A feed is a file, too: ``feed:NAME``.

    ``duplicates`` counts what Avstar's sandbox booked twice, too, where ``avstar.ledger_url`` is set and all
    files are asked for. Raises :class:`Unreachable`, and :class:`Problem` when a topic is not there.
    """
    begin = time.monotonic()
    statement = _balance(settings)
    if file:
        statement = _only(statement, file if file.startswith("feed:") else str(Path(file).absolute()))
    elif settings.avstar.ledger_url:
        statement.total.duplicates += asyncio.run(_booked_twice(settings))
    return Audit(statement, time.monotonic() - begin)


def report(settings: Settings, file: str, *, as_json: bool) -> int:
    """Print the audit; gives the exit status."""
    found = audit(settings, file)
    if as_json:
        print(found.dump())
    else:
        show(found, console())
    return 0 if found.passed else 1


def _balance(settings: Settings) -> Statement:
    kafka = settings.kafka
    books = Books(beginnings(kafka, RAW.name), beginnings(kafka, BATCHES.name))
    checkpoints = checkpoint.read(kafka).files
    descriptors: dict[str, Descriptor] = {}
    _enter(kafka, FILES, lambda message: _enter_file(books, descriptors, message))
    for known in checkpoints.values():
        books.checkpoint(known.identity, known.path, known.records, known.position)
    for message in read_all(kafka, RAW.name):
        value = message.value() or b""
        try:
            books.raw(message.partition(), message.offset(), message.key() or b"", len(value))
        except ValueError:
            books.stray(message.partition(), message.offset())
    _look_beyond(settings, books, checkpoints, descriptors)
    _enter(kafka, BATCHES, lambda message: _enter_batch(books, message))
    _enter(kafka, RECEIPTS, lambda message: _enter_receipt(books, message))
    _enter(kafka, DLQ, lambda message: books.letter(message.key() or b"", message.value()))
    return books.close()


def _enter(kafka: KafkaSettings, topic: Topic, enter: Callable[[Message], None]) -> None:
    """Enter all of a topic's messages; strange ones are passed over: if they stood for records, these are
    missing then.
    """
    for message in read_all(kafka, topic.name):
        try:
            enter(message)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            where = f"{topic.name} {message.partition()}:{message.offset()}"
            logger.warning("a message is passed over that is not spotstream's", at=where, why=repr(error))


def _enter_file(books: Books, descriptors: dict[str, Descriptor], message: Message) -> None:
    key, value = message.key() or b"", message.value()
    if value is not None:
        descriptor = descriptors[key.hex()] = Descriptor.read(key, value)
        books.file(key, descriptor.identity, descriptor.path)


def _enter_batch(books: Books, message: Message) -> None:
    sent = batches.Message.read(message.key(), b"", dict(message.headers() or ()))
    books.batch(sent.batch.key, sent.source, from_letters=sent.from_letters)


def _enter_receipt(books: Books, message: Message) -> None:
    receipt = Receipt.load(message.value())
    if receipt.place:
        books.discarded(receipt.place)
        return
    refused = [rejection["index"] for rejection in receipt.rejected]
    key = (message.key() or b"").decode()
    books.receipt(key, receipt.source, receipt.status, refused, from_letters=receipt.from_letters)


def _look_beyond(
    settings: Settings, books: Books, checkpoints: dict[str, Checkpoint], descriptors: dict[str, Descriptor]
) -> None:
    """Count complete records that stand in the files, where those are still there, and were not published."""
    published = books.published()
    for identity, known in checkpoints.items():
        descriptor = descriptors.get(known.descriptor)
        if descriptor is not None:
            records, position = published[identity]
            books.unpublished(identity, _unpublished(settings, descriptor, known, records, position))


def _unpublished(
    settings: Settings, descriptor: Descriptor, known: Checkpoint, records: int, position: int
) -> int:
    try:
        file = OpenFile(known.path)
    except UsageError:
        return 0  # gone; what it held and nobody read cannot be told any more
    try:
        head = file.examine(descriptor.profile, final=False) if known.still_holds(file) else None
        if position > known.position:  # the tailer went on while this was read
            known = known.model_copy(update={"position": position, "records": records, "pending": 0})
        source = (
            Source(file, head, descriptor.profile, settings.tail, partitions=1, known=known) if head else None
        )
    except UsageError:
        source = None  # another file by now
    found = 0
    try:
        while source and (framed := source.read(final=False)):
            found += framed.count + len(framed.oversized)
    except (OSError, OverwrittenError):
        pass  # damaged, or written anew meanwhile: the tailer tells that, and reads no further either
    finally:
        file.close()
    return found


async def _booked_twice(settings: Settings) -> int:
    url = settings.avstar.ledger_url
    timeout = aiohttp.ClientTimeout(total=settings.avstar.request_timeout_s)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            answer.raise_for_status()
            return int((await answer.json())["duplicates_booked"])
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        what = f"the ledger cannot be read: {error or type(error).__name__}"
        raise Unreachable(what, where=url, remedy="check avstar.ledger_url") from None


def _only(statement: Statement, path: str) -> Statement:
    files = [tally for tally in statement.files if tally.path == path]
    if not files:
        raise Problem("no such file was tailed", where=path, remedy="`spotstream audit` lists all")
    total = Tally("all", batches=sum(tally.batches for tally in files))
    for tally in files:
        total.add(tally)
    return Statement(files, total, [found for found in statement.findings if found.path == path])


def show(found: Audit, screen: Console) -> None:
    """Print the table, a line for each file and one for all, then what is out of place."""
    statement, total = found.statement, found.statement.total
    columns = _COLUMNS if screen.width >= _WIDE else _NARROW_COLUMNS
    columns = (*columns, "expired") if total.expired else columns
    many = len(statement.files) > 1
    table = Table(title=f"audit, {found.seconds:.1f} s", title_justify="left", box=SIMPLE, show_footer=many)
    table.add_column("file", footer="all", overflow="fold")
    for name in columns:
        footer = f"{getattr(total, name):,}"
        table.add_column(name.replace("_", " "), footer=footer, justify="right", min_width=len(footer))
    for tally in statement.files:
        table.add_row(safe(tally.path), *(f"{getattr(tally, name):,}" for name in columns))
    screen.print(table)
    for finding in statement.findings[:_SHOWN]:
        screen.print(safe(_line(finding), "bold red"), soft_wrap=True)
    if len(statement.findings) > _SHOWN:
        screen.print(f"… and more; `spotstream audit --json` tells up to {Books.MOST_FINDINGS:,}")
    verdict = "every record is accounted for, once" if found.passed else "the audit FAILED"
    screen.print(verdict, style="bold green" if found.passed else "bold red")


def _line(finding: Finding) -> str:
    place = f", from record {finding.number}" if finding.number else ""
    if finding.partition >= 0:
        place += f", {RAW.name} {finding.partition}:{finding.offset}"
    records = "record" if finding.records == 1 else "records"
    return f"{finding.kind}: {finding.path}: {finding.records:,} {records} {finding.what}{place}"
