"""How a log of each format spells its records: rows, header, comments, and what can be wrong with a row.

All spell the same cells, so that the same record has the same placement hash in every format.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal
from xml.sax.saxutils import escape

from schemas import profile
from schemas.profile import Profile
from schemas.records import REQUIRED, Kind
from streams.lab.placements import COLUMNS

Format = Literal["csv", "tsv", "fixed", "xml"]

#: Cells to a row.
Row = Callable[[tuple[str, ...]], str]

#: The advertiser of rows that get :meth:`Spelling.broken`.
BROKEN = b"Acme Motors"

#: The columns that a row which ends too early still has.
_FIRST = ("record_type", "station", "broadcast_date")


class Spelling(ABC):
    """A format; cells are ``quoted`` before they come into a row."""

    head: bytes = b""
    foot: bytes = b""
    #: Faults whose columns are others in this format than in CSV.
    fields: ClassVar[dict[str, tuple[str, ...]]] = {}
    #: Whether a row has a number of cells, so that one which is short is no row.
    tabular = False
    comment = b"# page N"

    def fields_at_fault(self, fault: str, kind: Kind, fields: tuple[str, ...]) -> tuple[str, ...]:
        """The columns that are told, of the ``fields`` that are wrong in CSV."""
        if fault == "row: too few columns" and not self.tabular:
            return tuple(sorted(REQUIRED[kind] - set(_FIRST)))
        return self.fields.get(fault, fields)

    @abstractmethod
    def quoted(self, text: str) -> str:
        """``text`` as a cell."""

    @abstractmethod
    def row(self, kind: Kind) -> Row:
        """What makes a row of the cells of a kind's columns, see :data:`streams.lab.placements.COLUMNS`."""

    @abstractmethod
    def short(self, row: bytes) -> bytes:
        """The row with its first three columns only."""

    @abstractmethod
    def long(self, row: bytes) -> bytes:
        """The row with something in it that is one too many."""

    @abstractmethod
    def with_(self, row: bytes, text: bytes) -> bytes:
        """The row with ``text`` in its second cell."""

    @abstractmethod
    def broken(self, row: bytes) -> bytes:
        """The row of the advertiser :data:`BROKEN`, in a way that might cost its neighbours something."""


class Delimited(Spelling):
    """CSV and TSV; broken by a quote that does not close."""

    tabular = True

    def __init__(self, delimiter: str, headings: Mapping[str, str]) -> None:
        self._delimiter, self._columns = delimiter, tuple(headings)
        self._special = (delimiter, '"', "\n", "\r")
        self.head = delimiter.join(headings.values()).encode() + b"\r\n"

    def quoted(self, text: str) -> str:
        if any(character in text for character in self._special):
            return '"' + text.replace('"', '""') + '"'
        return text

    def row(self, kind: Kind) -> Row:
        columns = COLUMNS[kind]
        return self._delimiter.join("%s" if column in columns else "" for column in self._columns).__mod__

    def short(self, row: bytes) -> bytes:
        delimiter = self._delimiter.encode()
        return delimiter.join(row.split(delimiter)[:3])

    def long(self, row: bytes) -> bytes:
        return row + self._delimiter.encode() * 2 + b"surplus"

    def with_(self, row: bytes, text: bytes) -> bytes:
        delimiter = self._delimiter.encode()
        return row.replace(delimiter, delimiter + text, 1)

    def broken(self, row: bytes) -> bytes:
        # Nothing can close it: the next quote in the log opens a field, and no text follows a closing quote.
        return row.replace(BROKEN, b'"' + BROKEN, 1)


class Fixed(Spelling):
    """Fixed width as the profile avion-fixed has it; broken by a character that is missing at the start."""

    fields: ClassVar = {"row: broken": ("record_type",)}
    comment = b""  # there are none

    def __init__(self, used: Profile) -> None:
        self._fixed, self._length = used.fixed, used.line_length

    def quoted(self, text: str) -> str:
        return " ".join(text.split("\n")).replace("\r", "")

    def row(self, kind: Kind) -> Row:
        columns, spans = COLUMNS[kind], {**self._fixed["all"], **self._fixed[kind]}
        line, at = "", 1
        for column in sorted(columns, key=lambda column: spans[column].start):
            span = spans[column]
            line += " " * (span.start - at) + f"%({column})-{span.length}s"
            at = span.start + span.length
        return lambda cells: (line % dict(zip(columns, cells, strict=True))).rstrip(" ")

    def short(self, row: bytes) -> bytes:
        span = self._fixed["all"][_FIRST[-1]]
        return row.decode()[: span.start + span.length - 1].encode()

    def long(self, row: bytes) -> bytes:
        return f"{row.decode():{self._length}}surplus".encode()

    def with_(self, row: bytes, text: bytes) -> bytes:
        at = self._fixed["all"]["station"].start
        return row[:at] + text + row[at + len(text) :]

    def broken(self, row: bytes) -> bytes:
        return row[1:]


class Xml(Spelling):
    """XML as the profile avion-xml has it; broken by an end tag that is missing."""

    comment = b"<!-- page N -->"
    head = b'<?xml version="1.0" encoding="UTF-8"?>\r\n<TrafficLog xmlns="urn:avion:log">\r\n'
    foot = b"</TrafficLog>\r\n"
    fields: ClassVar = {"row: too many columns": ("station",), "advertiser: control": ()}

    def __init__(self, used: Profile) -> None:
        self._paths = used.xml.fields if used.xml else {}
        self._record = used.xml.record[0] if used.xml else ""

    def quoted(self, text: str) -> str:
        return f"<![CDATA[{text}]]>" if '"' in text else escape(text)

    def row(self, kind: Kind) -> Row:
        columns = COLUMNS[kind]
        tree: dict[str, Any] = {}
        for column in columns:
            node = tree
            for step in self._paths[column].split("/"):
                node = node.setdefault(step, {})
            node[""] = f"%({column})s"
        element = _element(self._record, tree)
        return lambda cells: element % dict(zip(columns, cells, strict=True))

    def short(self, row: bytes) -> bytes:
        last = f"</{self._paths[_FIRST[-1]]}>".encode()
        return row[: row.index(last) + len(last)] + self._end

    def long(self, row: bytes) -> bytes:
        again = "<{0}>WABC</{0}>".format(self._paths["station"])
        return row.removesuffix(self._end) + again.encode() + self._end

    def with_(self, row: bytes, text: bytes) -> bytes:
        station = f"<{self._paths['station']}>".encode()
        return row.replace(station, station + text, 1)

    def broken(self, row: bytes) -> bytes:
        return row.removesuffix(self._end)

    @property
    def _end(self) -> bytes:
        return f"</{self._record}>".encode()


def _element(name: str, node: dict[str, Any]) -> str:
    attributes = "".join(f' {step[1:]}="{inner[""]}"' for step, inner in node.items() if step[:1] == "@")
    children = "".join(_element(step, inner) for step, inner in node.items() if step and step[0] != "@")
    return f"<{name}{attributes}>{node.get('', '')}{children}</{name}>"


def of(format: Format, headings: Mapping[str, str]) -> Spelling:  # noqa: A002 - the option's name
    """The spelling of a format; ``headings`` are the columns in order."""
    if format == "fixed":
        return Fixed(profile.load("avion-fixed"))
    if format == "xml":
        return Xml(profile.load("avion-xml"))
    return Delimited({"csv": ",", "tsv": "\t"}[format], headings)
