"""The ``profile`` commands: list and show mapping profiles, and check a file against one without Kafka."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from schemas import profile
from schemas.errors import UsageError
from schemas.hashes import Canonical
from schemas.letter import Reason
from schemas.profile import Profile
from schemas.records import KINDS, Invalid, Valid
from streams.console import printable
from streams.formats.framing import Framed
from streams.formats.gzipped import DamagedError
from streams.formats.wide import narrow
from streams.settings import TailSettings
from streams.tail.source import OpenFile, Source
from streams.validate.judge import Judge

_BLOCK = 1_048_576
_RULES = 1000  #: different ones that are counted apart


class Rejection(NamedTuple):
    """A record that would be rejected: its line and number in the file, both from 1, and why."""

    line: int
    offset: int
    number: int
    record_type: str
    reasons: list[Reason]


class Report:
    """What would become of a file's records."""

    def __init__(self, path: str, profile_name: str) -> None:
        self.path, self.profile = path, profile_name
        self.accepted: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        self.rejected = 0
        self.rules: Counter[str] = Counter()  #: "field: rule" → records that break it
        self.first: list[Rejection] = []
        self.mapped: list[Canonical] = []  #: the first records that would be accepted
        self.damage = ""  #: why the rest of the file cannot be read

    @property
    def records(self) -> int:
        """All of the file's."""
        return self.accepted.total() + self.rejected

    def reject(self, reasons: list[Reason]) -> None:
        """Count a rejection."""
        self.rejected += 1
        for reason in reasons:
            name = f"{reason['field'] or 'record'}: {reason['rule']}"
            self.rules[name if name in self.rules or len(self.rules) < _RULES else "other rules"] += 1

    def as_json(self) -> str:
        """One object in one line."""
        found: dict[str, Any] = {
            "file": self.path,
            "profile": self.profile,
            "records": self.records,
            "accepted": dict(self.accepted),
            "rejected": self.rejected,
            "rules": dict(self.rules.most_common()),
            "rejections": [rejection._asdict() for rejection in self.first],
            "mapped": self.mapped,
            "damage": self.damage,
        }
        return json.dumps(found)

    def as_text(self) -> str:
        """For people."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.accepted.items())
        lines = [
            f"{self.path}: {self.records} records with profile {self.profile}",
            f"accepted {self.accepted.total()}: {kinds}",
            f"rejected {self.rejected}",
        ]
        lines += [f"  {count:>8}  {rule}" for rule, count in self.rules.most_common()]
        if self.damage:
            lines.append(f"the rest cannot be read: {self.damage}")
        for record in self.mapped:
            lines.append(f"mapped: {record['record_type']}")
            lines += [f"    {name}: {value!r}" for name, value in record.items() if name != "record_type"]
        for rejection in self.first:
            lines.append(
                f"line {rejection.line}, offset {rejection.offset}: {rejection.record_type}".rstrip(": ")
            )
            lines += [f"    {r['field'] or 'record'}: {r['value']!r} {r['rule']}" for r in rejection.reasons]
        if self.rejected > len(self.first) > 0:
            lines.append(f"… and {self.rejected - len(self.first)} more")
        return "\n".join(map(printable, lines))  # the file's cells and name may hold anything


class _Lines:
    """Line numbers by byte offset, asked for in ascending order; reads the file in blocks."""

    def __init__(self, file: OpenFile, encoding: str) -> None:
        self._file, self._offset, self._line = file, 0, 1
        self._little = encoding == "utf-16-le" if encoding.startswith("utf-16") else None

    def at(self, offset: int) -> int:
        while self._offset < offset:
            block = self._file.read(self._offset, min(_BLOCK, offset - self._offset))
            size = len(block)
            if not size:
                raise UsageError("the file became shorter while it was read", where=self._file.path)
            if self._little is not None:
                block = narrow(block[: len(block) & ~1], little=self._little)
            self._line += block.count(b"\n")
            self._offset += size
        return self._line


def check(path: str | Path, used: Profile, settings: TailSettings, first: int, mapped: int = 0) -> Report:
    """Judge all of a file, in bounded memory; the report has the ``first`` rejections and ``mapped`` records.

    Raises :class:`UsageError` for a file that is missing, unreadable, empty, binary, without its header, or
    of an unknown layout.
    """
    # Line numbers are looked up behind what is read; going back would inflate a gzip file anew.
    file, again = OpenFile(str(path)), OpenFile(str(path))
    try:
        head = file.examine(used, final=True)
        if head is None:
            raise UsageError("no header row", where=str(path))
        source = Source(file, head, used, settings, partitions=1, known=None)
        judge = Judge(source.descriptor)
        again.read(0, 2)
        report, lines = Report(str(path), used.name), _Lines(again, head.encoding)
        try:
            while (framed := source.read(final=True)) is not None:
                verdicts = judge.judge(framed.records)
                _enter(report, framed, verdicts, lines, first)
                good = (verdict.record for verdict in verdicts if isinstance(verdict, Valid))
                report.mapped += islice(good, mapped - len(report.mapped))
        except DamagedError as error:
            report.damage = error.strerror or ""
        return report
    finally:
        file.close()
        again.close()


def _enter(
    report: Report, framed: Framed, verdicts: list[Valid | Invalid], lines: _Lines, first: int
) -> None:
    rejected = []
    places = zip(framed.offsets.tolist(), framed.numbers.tolist(), strict=True)
    for verdict, (offset, number) in zip(verdicts, places, strict=True):
        if isinstance(verdict, Valid):
            report.accepted[verdict.kind] += 1
        else:
            rejected.append((offset, number, verdict))
    for long in framed.oversized:
        rule = "must not be longer than tail.max_record_bytes"
        reason = Reason(field="", value=f"{long.length} bytes", rule=rule)
        rejected.append((long.offset, long.number, Invalid([reason], "")))
    for offset, number, verdict in sorted(rejected, key=lambda entry: entry[0]):
        report.reject(verdict.reasons)
        if len(report.first) < first:
            place = lines.at(offset), offset, number
            report.first.append(Rejection(*place, verdict.record_type, verdict.reasons))


def listing() -> str:
    """The built-in profiles, one a line."""
    return "\n".join(f"{name:<12} {profile.load(name).description}" for name in profile.names())
