"""Validation as one writes it by hand: rows by the csv module, a list of dicts for pydantic, orjson.

What the baselines of ``bench validate`` do with records, with the product's models and readers of values; the
records that are left, their JSON and their hashes are the product's, too.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from schemas import normalize
from schemas.columns import Column
from schemas.descriptor import Descriptor
from schemas.hashes import placement_hash
from schemas.records import COLUMNS, MODELS, Kind, conflicts

#: A record that is left: placement hash and canonical JSON.
Accepted = tuple[str, bytes]

_JUDGES = {kind: TypeAdapter(list[model]) for kind, model in MODELS.items()}  # type: ignore[valid-type] # of a dict


class Judge:
    """Judges the records of one CSV file."""

    def __init__(self, descriptor: Descriptor) -> None:
        layout = descriptor.profile.layout(descriptor.header)
        self._width, self._encoding = len(layout.columns), descriptor.encoding
        self._delimiter, self._quote = descriptor.profile.delimiter, descriptor.profile.quote
        self._normalizer = normalize.of(descriptor.profile)
        self._type = layout.columns.index("record_type")
        self._places = {kind: layout.places(kind) for kind in COLUMNS}

    def accepted(self, values: Sequence[bytes]) -> list[Accepted]:
        """Those of the raw records that keep every rule, in order."""
        lines = [self._text(value) for value in values]
        of_kind: dict[Kind, list[tuple[int, list[str]]]] = defaultdict(list)
        for number, row in enumerate(self._rows(lines)):
            kind = self._normalizer.kinds[row[self._type]] if len(row) == self._width else None
            if kind in COLUMNS:
                of_kind[kind].append((number, row))
        found: dict[int, Accepted] = {}
        for kind, rows in of_kind.items():
            for (number, _), record in zip(rows, self._records(kind, [row for _, row in rows]), strict=True):
                if record is not None:
                    found[number] = placement_hash(record), record
        return [found[number] for number in sorted(found)]

    def _text(self, value: bytes) -> str:
        try:
            return value.decode(self._encoding)
        except UnicodeDecodeError:
            return ""

    def _rows(self, lines: Sequence[str]) -> Iterator[list[str]]:
        """A row for each line, without cells for what cannot be read."""
        reader, at = self._reader(lines), 0
        while at < len(lines):
            row = _next(reader)
            alone = lines[at : reader.line_num] if reader.line_num > at + 1 else ()  # a quote was left open
            yield from (_next(self._reader([line])) for line in alone)
            if not alone:
                yield row
            at = reader.line_num

    def _reader(self, lines: Sequence[str]) -> Any:
        return csv.reader(lines, delimiter=self._delimiter, quotechar=self._quote, strict=True)

    def _records(self, kind: Kind, rows: Sequence[Sequence[str]]) -> list[bytes | None]:
        """The canonical JSON of each, None for one that breaks a rule."""
        places = self._places[kind]
        cells = {
            name: Column([row[places[name]] for row in rows]) for name in COLUMNS[kind] if name in places
        }
        columns = self._normalizer.columns(kind, cells)
        fields = zip(*(column.each() for column in columns.values()), strict=True)
        records: list[dict[str, Any]] = [
            {name: value for name, value in zip(columns, values, strict=True) if value is not None}
            for values in fields
        ]
        broken: set[int] = set()
        try:
            _JUDGES[kind].validate_python(records)
        except ValidationError as error:
            broken = {int(fault["loc"][0]) for fault in error.errors(include_input=False, include_url=False)}
        good = np.array([index for index in range(len(rows)) if index not in broken], np.intp)
        between = conflicts(kind, {name: column.only(good) for name, column in columns.items()})
        broken.update(int(good[index]) for index, *_ in between)
        return [
            None if index in broken else orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
            for index, record in enumerate(records)
        ]


def _next(reader: Any) -> list[str]:
    try:
        row: list[str] = next(reader)
    except csv.Error:
        return []
    return row
