"""The ``replay`` command: batches sent to Avstar again, whole, with the same body and key.

The same command, given again after an interruption, goes on where it stopped.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas.errors import UsageError
from schemas.records import kind_named
from streams import moment
from streams.console import console, safe
from streams.recovery import receipts
from streams.recovery.bookmark import Bookmark
from streams.recovery.resend import Resend
from streams.recovery.selection import Selection, Wanted, select
from streams.recovery.span import Spans
from streams.settings import Settings
from topics.connection import KafkaSettings

#: Batches that cannot be sent, named one by one.
_SHOWN = 20


class Arguments(NamedTuple):
    """What to send again, as it stands on the command line."""

    since: str = ""
    until: str = ""
    offsets: tuple[str, ...] = ()
    file: str = ""
    kind: str = ""

    def check(self) -> None:
        """Raises :class:`UsageError` for what is no selection."""
        if bool(self.since) == bool(self.offsets):
            remedy = "as in --since 1d, or --offsets 3:1000-1999"
            raise UsageError("give either --since or --offsets", remedy=remedy)
        if self.until and not self.since:
            raise UsageError("--until goes with --since")
        Spans.parse(self.offsets)
        if self.since:
            self.moment("since")
        if self.until and self.moment("since") >= self.moment("until"):
            raise UsageError("--until is not after --since", where=f"{self.since} to {self.until}")

    def moment(self, name: str) -> datetime:
        """``since`` or ``until``."""
        return moment.parse(getattr(self, name), datetime.now(UTC), name=f"--{name}")

    def spans(self, kafka: KafkaSettings) -> Spans:
        """The raw records that are meant, by now."""
        if self.offsets:
            return Spans.parse(self.offsets)
        return Spans.between(kafka, self.moment("since"), self.moment("until") if self.until else None)


def run(settings: Settings, arguments: Arguments, *, dry_run: bool, restart: bool, as_json: bool) -> int:
    """Send, and tell what came of it; the exit status is 1 when a batch could not be sent any more."""
    arguments.check()
    if arguments.offsets:
        Spans.parse(arguments.offsets).check(settings.kafka)
    if arguments.kind:
        arguments = arguments._replace(kind=kind_named(arguments.kind))
    bookmark = Bookmark(settings.kafka, "\0".join((*arguments[:2], *arguments.offsets, *arguments[3:])))
    if not dry_run:
        bookmark.fence()
    marks = None if restart else bookmark.read()
    continues = marks is not None
    refused_before = marks.refused.total() if marks else 0
    if marks is None:
        marks = bookmark.new(arguments.spans(settings.kafka))
    since = arguments.moment("since") if arguments.since else None
    wanted = Wanted(marks.spans, arguments.file, arguments.kind, since)
    selection = select(settings.kafka, wanted, bookmark.dispatched())
    resend = Resend(settings, selection, arguments.kind, bookmark, marks)
    screen = Console(stderr=True, highlight=False)
    if continues:
        screen.print(f"going on with the replay that was interrupted: {_left(resend):,} batches are left")
    if dry_run:
        resend.try_out()
    elif not _send(resend, screen):
        return 1
    found = {"batches": resend.batches, "records": resend.records, "refused_before": refused_before}
    if not dry_run:
        found |= _booked(settings.kafka, marks.name)
    _tell(found, selection, dry_run=dry_run, as_json=as_json)
    return int(bool(selection.refused or refused_before))


def _left(resend: Resend) -> int:
    return sum(map(len, resend.left.values()))


def _send(resend: Resend, screen: Console) -> bool:
    try:
        with _progress(screen, resend) as shown:
            resend.run(shown)
    except KeyboardInterrupt:
        screen.print(f"interrupted with {_left(resend):,} batches left; the same command goes on with them")
        return False
    return True


@contextmanager
def _progress(screen: Console, resend: Resend) -> Iterator[Callable[[], None]]:
    total = _left(resend)
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task("replay", total=total)
        yield lambda: bar.update(task, completed=total - _left(resend) - resend.waiting)


def _tell(found: dict[str, int], selection: Selection, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        refused = [
            {"key": row.key, "partition": row.source.partition, "first": row.source.first, "why": why}
            for row, why in selection.refused
        ]
        told = found | {"dry_run": dry_run, "left": selection.left, "refused": refused}
        print(json.dumps(told))
        return
    screen = console()
    would = "would be sent" if dry_run else "were sent"
    screen.print(f"{found['batches']:,} batches of {found['records']:,} records {would} again")
    if not dry_run:
        screen.print(f"Avstar has {found['taken']:,} of these records, and rejected {found['rejected']:,}")
    for why, times in selection.left.items():
        screen.print(f"{times:,} {'batch is' if times == 1 else 'batches are'} left out: {why}")
    for row, why in selection.refused[:_SHOWN]:
        where = f"{row.source.partition}:{row.source.first}-{row.source.last}"
        screen.print(safe(f"cannot be sent again: {row.key[:16]} of {where}: {why}", "bold red"))
    if len(selection.refused) > _SHOWN:
        screen.print(f"… and {len(selection.refused) - _SHOWN:,} more; --json lists all")
    if found["refused_before"]:
        what = f"{found['refused_before']:,} could not be sent again before the interruption"
        screen.print(f"{what}; errors that were logged then name them", style="bold red")


def _booked(kafka: KafkaSettings, name: str) -> Counter[str]:
    """What Avstar said to the batches of this replay: as the first time, to a key that it knows."""
    found = Counter(taken=0, rejected=0)
    for _, receipt in receipts.read(kafka):
        if receipt.replay == name:
            found.update(taken=receipt.accepted + receipt.duplicates, rejected=len(receipt.rejected))
    return found
