"""The pure whole of validation: a file's descriptor and its raw records in, one verdict for each out."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import compress, repeat
from operator import itemgetter
from traceback import format_exception
from typing import Any, NamedTuple

from pydantic import ValidationError

from schemas import airing, codec, normalize
from schemas.descriptor import Descriptor
from schemas.hashes import canonical_json, placement_hash
from schemas.letter import Reason
from schemas.normalize import Fault
from schemas.records import COLUMNS, JUDGES, OPTIONAL, RULES, Invalid, Kind, Valid, Verdict, column, conflicts
from streams.formats import catalogue as formats
from streams.formats.rows import Row, shown

#: Records judged together: enough to share the cost of a call, few enough to stay in a core's cache.
_AT_ONCE = 500


class _Plan(NamedTuple):
    """Where a kind's columns are in a file: column → its cell in a row; ``picked`` are those cells."""

    kind: Kind
    places: dict[str, int]
    picked: Callable[[Row], Sequence[str]]

    @classmethod
    def of(cls, kind: Kind, places: dict[str, int]) -> "_Plan":
        if len(places) == 1:  # itemgetter would give the cell alone
            (place,) = places.values()
            return cls(kind, places, lambda row: (row[place],))
        return cls(kind, places, itemgetter(*places.values()))


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
        self._plans = {
            kind: _Plan.of(kind, {name: places[kind][name] for name in names if name in places[kind]})
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
        verdicts: list[Any] = [None] * len(values)
        groups: dict[Kind, list[int]] = defaultdict(list)
        rows = self._rows.read(values)
        for index, row in enumerate(rows):
            if isinstance(row, dict):
                verdicts[index] = Invalid([row], "")
                continue
            kind = self._kind or self._normalizer.kinds[row[self._type_place]]
            if kind in self._plans:
                groups[kind].append(index)
            else:
                verdicts[index] = self._no_kind(row[self._type_place], kind)
        for kind, indices in groups.items():
            plan = self._plans[kind]
            members: list[Row] = [rows[index] for index in indices]  # type: ignore[misc] # reasons are gone
            for index, verdict in zip(indices, self._of_kind(plan, members), strict=True):
                verdicts[index] = verdict
        return verdicts

    def _no_kind(self, text: str, fault: Any) -> Invalid:
        rule = fault.rule if isinstance(fault, Fault) else "is required"
        return Invalid([Reason(field="record_type", value=shown(text), rule=rule)], shown(text.strip()))

    def _of_kind(self, plan: _Plan, rows: list[Row]) -> list[Verdict]:
        cells = dict(zip(plan.places, zip(*map(plan.picked, rows), strict=True), strict=True))
        columns = self._normalizer.columns(plan.kind, cells)
        faults = _faults(plan.kind, columns, len(rows))
        if not faults:
            return _accepted(plan.kind, columns)
        if len(faults) == len(rows):
            return [_rejected(plan, row, faults[index]) for index, row in enumerate(rows)]
        sound = [index not in faults for index in range(len(rows))]
        good = iter(_accepted(plan.kind, {name: list(compress(of, sound)) for name, of in columns.items()}))
        return [
            next(good) if fine else _rejected(plan, row, faults[index])
            for index, (row, fine) in enumerate(zip(rows, sound, strict=True))
        ]


def _faults(kind: Kind, columns: dict[str, list[Any]], count: int) -> dict[int, dict[str, str]]:
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
            judge.validate_python(values)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=False, include_input=False):
                index = int(fault["loc"][0])
                value = values[index]
                rule = "is required" if value is None else value.rule if isinstance(value, Fault) else ""
                found[index][field] = rule or RULES[kind][field]
            for index, of in found.items():
                if field in of:
                    values[index] = None
    for index, field, rule in conflicts(kind, columns):
        found[index].setdefault(field, rule)
    return found


class _UnencodableError(Exception):
    """A record of this kind validates, but cannot be written."""


def _accepted(kind: Kind, columns: dict[str, list[Any]]) -> list[Verdict]:
    canonical = canonical_json(columns)
    hashes = list(map(placement_hash, canonical))
    try:
        written = codec.keys(kind, columns), codec.bodies(kind, columns, hashes)
    except Exception as error:
        raise _UnencodableError(kind) from error
    airs = airing.hours(columns) if kind == "spot" else repeat("")
    return list(map(Valid, repeat(kind), written[0], canonical, hashes, written[1], airs))


def _crashed(value: bytes, error: Exception) -> Invalid:
    if isinstance(error, _UnencodableError):
        why, kind, rule = "unencodable", str(error), "could be validated but not encoded"
    else:
        why, kind, rule = "crashed", "", f"must not fail: {type(error).__name__}: {shown(str(error))}"
    reason = Reason(field="", value=shown(value.decode("utf-8", "backslashreplace")), rule=rule)
    return Invalid([reason], kind, "".join(format_exception(error)), why)


def _rejected(plan: _Plan, row: Row, faults: dict[str, str]) -> Invalid:
    reasons = []
    for field, rule in faults.items():
        place = plan.places.get(column(field))
        reasons.append(
            Reason(field=column(field), value="" if place is None else shown(row[place]), rule=rule)
        )
    return Invalid(reasons, plan.kind)
