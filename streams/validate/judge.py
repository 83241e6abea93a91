"""The pure whole of validation: a file's descriptor and its raw records in, one verdict for each out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from traceback import format_exception
from typing import Any

import numpy as np
from pydantic import ValidationError

from schemas import airing, codec, normalize
from schemas.columns import Column, Columns, Places
from schemas.descriptor import Descriptor
from schemas.hashes import canonical_json, placement_hash
from schemas.letter import Reason
from schemas.normalize import Fault
from schemas.records import COLUMNS, JUDGES, OPTIONAL, RULES, Invalid, Kind, Valid, Verdict, column, conflicts
from streams.formats import catalogue as formats
from streams.formats.rows import shown
from streams.formats.table import Table

#: Records judged together, at the most: the more, the fewer are the different texts among them.
_AT_ONCE = 5000


class Judge:
    """Judges the records of one file. Holds no state but tables of what it has seen; does no I/O."""

    def __init__(self, descriptor: Descriptor) -> None:
        """Raises :class:`schemas.errors.UsageError` when the file's layout is unknown to its profile."""
        layout = descriptor.profile.layout(descriptor.header)
        self._rows = formats.rows(descriptor)
        self._normalizer = normalize.of(descriptor.profile)
        self._kind = layout.kind
        places = {kind: layout.places(kind) for kind in COLUMNS}
        self._type_place = places["spot"].get("record_type", 0)
        #: By kind: column → its number in a row.
        self._places = {
            kind: {name: places[kind][name] for name in names if name in places[kind]}
            for kind, names in COLUMNS.items()
        }

    def judge(self, values: Sequence[bytes]) -> list[Verdict]:
        """One verdict for each raw record (its bytes, line terminator included), in order.

        A record that makes the code raise is rejected alone, with the traceback.
        """
        verdicts: list[Verdict] = []
        for start in range(0, len(values), _AT_ONCE):
            verdicts += self._survive(values[start : start + _AT_ONCE])
        return verdicts

    def _survive(self, values: Sequence[bytes]) -> list[Verdict]:
        """Judge, and halve what raises until the record is alone that does."""
        try:
            return self._judge(values)
        except Exception as error:  # noqa: BLE001 - whatever a record does to the code is its own rejection
            if len(values) == 1:
                return [_crashed(values[0], error)]
        middle = len(values) // 2
        return self._survive(values[:middle]) + self._survive(values[middle:])

    def _judge(self, values: Sequence[bytes]) -> list[Verdict]:
        tables, reasons = self._rows.tables(values)
        verdicts: list[Any] = [None] * len(values)
        for table in tables:
            for rows, found in self._of_table(table):
                for place, verdict in zip(table.places[rows].tolist(), found, strict=True):
                    verdicts[place] = verdict
        for place, untold in reasons.items():
            verdicts[place] = _unread(untold, verdicts[place])
        return verdicts

    def _of_table(self, table: Table) -> Iterator[tuple[Places, Iterable[Verdict]]]:
        """The verdicts on the rows, kind by kind."""
        every = np.arange(len(table.places))
        if self._kind:
            yield every, self._of_kind(self._kind, table, every)
            return
        types = table.columns([self._type_place], every)[0]
        kinds = types.read(self._normalizer.kinds.read)
        for kind in dict.fromkeys(kinds.values):
            rows = kinds.having(index for index, found in enumerate(kinds.values) if found is kind)
            if kind in self._places:
                yield rows, self._of_kind(kind, table, rows)
            else:
                yield rows, [_no_kind(text, kind) for text in types.only(rows).each()]

    def _of_kind(self, kind: Kind, table: Table, rows: Places) -> Iterable[Verdict]:
        places = self._places[kind]
        cells = dict(zip(places, table.columns(list(places.values()), rows), strict=True))
        columns = self._normalizer.columns(kind, cells)
        faults = _faults(kind, columns, len(rows))
        if not faults:
            return _accepted(kind, columns)
        sound = np.delete(np.arange(len(rows)), list(faults))
        found = _accepted(kind, {name: of.only(sound) for name, of in columns.items()}) if len(sound) else []
        for row in sorted(faults):
            found.insert(row, _rejected(kind, cells, row, faults[row]))
        return found


def _unread(untold: list[Reason], verdict: Verdict | None) -> Invalid:
    """On a record of which something cannot be told; ``verdict``: on what can be, if anything."""
    if isinstance(verdict, Valid):
        return Invalid(untold, verdict.kind)
    if verdict is None:
        return Invalid(untold, "")
    fields = {reason["field"] for reason in untold}
    return Invalid(
        untold + [reason for reason in verdict.reasons if reason["field"] not in fields], verdict.record_type
    )


def _no_kind(text: str, fault: Any) -> Invalid:
    rule = fault.rule if isinstance(fault, Fault) else "is required"
    return Invalid([Reason(field="record_type", value=shown(text), rule=rule)], shown(text.strip()))


def _faults(kind: Kind, columns: Columns, count: int) -> dict[int, dict[str, str]]:
    """The rules that records break: index → field → rule. Empties the values that break those of a field."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for field, judge in JUDGES[kind].items():
        values = columns.get(field)
        if values is None:
            if field not in OPTIONAL:
                for index in range(count):
                    found[index][field] = "is required; the file has no such column"
            continue
        try:
            judge.validate_python(values.values)
        except ValidationError as error:
            broken = {}
            for fault in error.errors(include_url=False, include_context=False, include_input=False):
                index = int(fault["loc"][0])
                broken[index] = _rule(values.values[index]) or RULES[kind][field]
            for index in values.having(broken).tolist():
                found[index][field] = broken[values.index(index)]
            for index in broken:
                values.values[index] = None
    for index, field, rule in conflicts(kind, columns):
        found[index].setdefault(field, rule)
    return found


def _rule(value: Any) -> str:
    """What a value breaks that its field's rule does not say."""
    return "is required" if value is None else value.rule if isinstance(value, Fault) else ""


class _UnencodableError(Exception):
    """A record of this kind validates, but cannot be written."""


def _accepted(kind: Kind, columns: Columns) -> list[Verdict]:
    canonical = canonical_json(columns)
    hashes = list(map(placement_hash, canonical))
    try:
        written = codec.keys(kind, columns), codec.bodies(kind, columns, hashes)
    except Exception as error:
        raise _UnencodableError(kind) from error
    airs = airing.hours(columns) if kind == "spot" else repeat("")
    fields = zip(repeat(kind), written[0], canonical, hashes, written[1], airs)
    return list(map(Valid._make, fields))


def _crashed(value: bytes, error: Exception) -> Invalid:
    if isinstance(error, _UnencodableError):
        why, kind, rule = "unencodable", str(error), "could be validated but not encoded"
    else:
        why, kind, rule = "crashed", "", f"must not fail: {type(error).__name__}: {shown(str(error))}"
    reason = Reason(field="", value=shown(value.decode("utf-8", "backslashreplace")), rule=rule)
    return Invalid([reason], kind, "".join(format_exception(error)), why)


def _rejected(kind: Kind, cells: Mapping[str, Column], row: int, faults: dict[str, str]) -> Invalid:
    reasons = []
    for field, rule in faults.items():
        texts = cells.get(column(field))
        value = "" if texts is None else shown(texts.values[texts.index(row)])
        reasons.append(Reason(field=column(field), value=value, rule=rule))
    return Invalid(reasons, kind)
