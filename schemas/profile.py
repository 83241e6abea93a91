"""Mapping profiles: how an export's columns, formats and codes map to records. A TOML file, no code."""

import re
import tomllib
from codecs import lookup
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.currency import EXPONENTS
from schemas.errors import UsageError
from schemas.records import COLUMNS, KINDS, REQUIRED, Kind
from schemas.setting import complaint

#: Every column that a profile can map a heading to.
ALL_COLUMNS: frozenset[str] = frozenset(name for names in COLUMNS.values() for name in names) | {
    "record_type"
}

#: What a date or time stamp format is made of; ``%-m`` is a month with or without its leading zero.
DIRECTIVES: dict[str, str] = {
    "%Y": "[0-9]{4}",
    "%y": "[0-9]{2}",
    "%m": "[0-9]{2}",
    "%-m": "[0-9]{1,2}",
    "%d": "[0-9]{2}",
    "%-d": "[0-9]{1,2}",
    "%b": "[A-Za-z]{3}",
    "%B": "[A-Za-z]+",
    "%H": "[0-9]{2}",
    "%-H": "[0-9]{1,2}",
    "%I": "[0-9]{2}",
    "%-I": "[0-9]{1,2}",
    "%p": "[AaPp][Mm]",
    "%M": "[0-9]{2}",
    "%S": "[0-9]{2}",
    "%f": "[0-9]{1,6}",
    "%z": "(?:Z|[+-][0-9]{2}:?[0-9]{2})",
    "%%": "%",
}
_DIRECTIVE = re.compile("%-?.")
_XML_NAME = re.compile(r"[^\W\d][\w.-]*")
#: Some encodings take these for other characters.
_ESCAPES = rb"\u0041 \x41" + b"\x1b$B0!"
_IGNORED_IN_HEADINGS = re.compile(r"[\s_.\-\ufeff]+")


class Layout(NamedTuple):
    """A file's columns, in order, by canonical name; "" for those that no record uses."""

    columns: tuple[str, ...]
    kind: Kind | None  #: of every record; None: the ``record_type`` column tells
    owners: tuple[Kind | None, ...] = ()  #: for each column the only kind that has it; empty: all have all

    def of(self, kind: str) -> tuple[str, ...]:
        """The columns of a kind's records, in order; "" for what only others have."""
        owners = self.owners or (None,) * len(self.columns)
        return tuple(
            name if owner in (None, kind) else "" for name, owner in zip(self.columns, owners, strict=True)
        )

    def places(self, kind: Kind) -> dict[str, int]:
        """Column → its place in a row, for the records of a kind."""
        return {name: index for index, name in enumerate(self.of(kind)) if name}


class Codes(BaseModel):
    """The code lists. Codes match in any case; the record gets the code as it is written here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    airtime_code: tuple[str, ...] = ()
    billing_code: tuple[str, ...] = ()
    reason_code: tuple[str, ...] = ()
    #: clearance → its spellings in the export, beside its own name
    clearance: dict[Literal["scheduled", "cleared", "preempted", "missed"], tuple[str, ...]] = {}


class Span(BaseModel):
    """Where a field stands in a line of fixed-width text, counted in characters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=1, le=1_000_000, description="the first character's position, from 1")
    length: int = Field(ge=1, le=1_000_000, description="how many characters")

    @property
    def cut(self) -> slice:
        """The field's part of a line."""
        return slice(self.start - 1, self.start - 1 + self.length)


class Markup(BaseModel):
    """How an XML document holds records. Names are without their namespace prefixes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    record: tuple[str, ...] = Field(description="names of the elements that are records")
    fields: dict[str, str] = Field(
        description="column → where it is in the record: Child, @attribute, Child/Grandchild, "
        "Child/@attribute, or name() for the record element's own name"
    )

    @field_validator("record", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("record")
    @classmethod
    def _names(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if not given:
            raise ValueError("at least one name is needed")
        for name in given:
            if not _XML_NAME.fullmatch(name) or len(name) > 200:
                raise ValueError(f"not an element's name without prefix: {name!r}")
        return given

    @field_validator("fields")
    @classmethod
    def _paths(cls, given: dict[str, str]) -> dict[str, str]:
        for path in given.values():
            *parents, last = path.split("/")
            steps = [*parents, last.removeprefix("@")]
            if path != "name()" and not all(map(_XML_NAME.fullmatch, steps)):
                raise ValueError(f"{path!r} is not as Child, @attribute, Child/Grandchild or name()")
        return given


class Profile(BaseModel):
    """A mapping profile. Load one with :func:`load`, which turns pydantic's errors into ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    description: str = ""
    format: Literal["csv", "tsv", "fixed", "xml"] = "csv"
    encoding: str = Field("utf-8", description="of files that do not tell theirs by a byte order mark")
    delimiter: str = Field("", max_length=1, description="one character; by default the format's")
    quote: str = Field('"', max_length=1, description="doubled inside a quoted field; empty: no quotes")
    comment: str = Field("#", description="what a comment line starts with; empty: there are none")
    header: bool = Field(True, description="whether the first line names the columns")
    columns: tuple[str, ...] = Field((), description="canonical names in order, for files without a header")
    fixed: dict[Literal["all"] | Kind, dict[str, Span]] = Field(
        {}, description="columns of fixed-width lines, those of all kinds and those that one kind has"
    )
    line_length: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="characters in a fixed-width line; longer ones are rejected; 0: any",
    )
    xml: Markup | None = Field(None, description="record elements and where the columns are in them")

    record_type: Kind | None = Field(None, description="of every record in the file; else a column tells")
    record_types: dict[Kind, tuple[str, ...]] = Field(
        {"spot": ("SPOT",), "avail": ("AVAIL",), "billing": ("BILL",), "makegood": ("MG",)},
        description="what the record_type column holds, in any case",
    )
    headings: dict[str, tuple[str, ...]] = Field(
        {}, description="column → headings that mean it; case, spaces and _ - . make no difference"
    )

    time_zone: str = Field(description="IANA name; the stations' time")
    stations: dict[str, str] = Field({}, description="call sign → its time zone where it is another one")
    date_format: str = Field("%Y-%m-%d", description="of broadcast_date")
    timestamp_format: str = Field("", description="of approved_at and revision, beside RFC 3339")
    currency: str = Field(description="ISO 4217; of amounts whose record names none")
    decimal_mark: Literal[".", ","] = "."
    codes: Codes = Codes()

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        form = given.get("format", "csv")
        own: dict[str, Any] = {"delimiter": "\t" if form == "tsv" else ","}
        if form in ("fixed", "xml"):
            own = {"delimiter": ",", "quote": "", "comment": "", "header": False}
        return own | {name: value for name, value in given.items() if name != "delimiter" or value}

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, given: str) -> str:
        try:
            lookup(given)
        except LookupError:
            raise ValueError(f"no such encoding: {given}") from None
        if not is_readable(given):
            raise ValueError(f"files in {given} cannot be read; have them converted to UTF-8")
        return given

    @field_validator("headings", "columns")
    @classmethod
    def _known_columns(cls, given: Any) -> Any:
        for name in given:
            if name not in ALL_COLUMNS and name:
                raise ValueError(f"no such column: {name}")
        return given

    @field_validator("time_zone", "stations")
    @classmethod
    def _known_zones(cls, given: Any) -> Any:
        for name in [given] if isinstance(given, str) else given.values():
            try:
                ZoneInfo(name)
            except (KeyError, OSError, ValueError):
                raise ValueError(f"no such time zone: {name}") from None
        return given

    @field_validator("stations")
    @classmethod
    def _upper_case(cls, given: dict[str, str]) -> dict[str, str]:
        return {station.strip().upper(): zone for station, zone in given.items()}

    @field_validator("date_format", "timestamp_format")
    @classmethod
    def _known_format(cls, given: str) -> str:
        for directive in _DIRECTIVE.findall(given):
            if directive not in DIRECTIVES:
                raise ValueError(f"{directive} is not one of {' '.join(DIRECTIVES)}")
        return given

    @field_validator("currency")
    @classmethod
    def _known_currency(cls, given: str) -> str:
        if given not in EXPONENTS:
            raise ValueError(f"not an ISO 4217 currency: {given}")
        return given

    @model_validator(mode="after")
    def _is_whole(self) -> "Profile":
        if not {"%d", "%-d"} & set(_DIRECTIVE.findall(self.date_format)):
            raise ValueError("date_format has no day of the month")
        self._is_of_its_format()
        _by_spelling(self.record_types, "record_types", str.upper)
        self._spellings()
        return self

    def _is_of_its_format(self) -> None:
        lined = self.format in ("csv", "tsv")
        for name, given, form in (("fixed", self.fixed, "fixed"), ("xml", self.xml, "xml")):
            if bool(given) != (self.format == form):
                raise ValueError(f'{name} is needed with format = "{form}", and only there')
        if lined and not self.header and not self.columns:
            raise ValueError("columns are needed where header is false")
        if not lined and (self.header or self.columns or self.headings or self.quote):
            raise ValueError(f"header, columns, headings and quote are not for {self.format} files")
        for name in self._own_columns():
            if name not in ALL_COLUMNS:
                raise ValueError(f"{self.format}: no such column: {name}")
        if not lined:
            try:
                self.layout()
            except UsageError as error:
                raise ValueError(error.what) from None

    def _own_columns(self) -> list[str]:
        if self.xml:
            return list(self.xml.fields)
        return [name for spans in self.fixed.values() for name in spans]

    def layout(self, header: Sequence[str] = ()) -> Layout:
        """Map a file's heading row, as it was split; files without one have the profile's columns.

        Raises :class:`UsageError` when the file cannot be mapped: no ``record_type`` column and no fixed
        kind, no kind with all the columns it must have, or two headings for one column.
        """
        if self.format == "fixed":
            return self._fixed_layout()
        columns = self._mapped(header) if self.header else self.columns or tuple(self._own_columns())
        present = set(columns) - {""}
        if self.record_type is None and "record_type" not in present:
            raise self._unknown(f"no column for record_type among {_shown(header)}")
        kinds = KINDS if self.record_type is None else (self.record_type,)
        self._check_kinds(kinds, [present] * len(kinds))
        return Layout(tuple(columns), self.record_type)

    def _fixed_layout(self) -> Layout:
        owners = [None if owner == "all" else owner for owner, spans in self.fixed.items() for _ in spans]
        layout = Layout(tuple(self._own_columns()), self.record_type, tuple(owners))
        common = self.fixed.get("all", {}).keys()
        kinds = KINDS if self.record_type is None else (self.record_type,)
        if self.record_type is None and "record_type" not in common:
            raise self._unknown("fixed.all has no record_type")
        for kind in kinds:
            if twice := common & self.fixed.get(kind, {}).keys():
                raise self._unknown(f"in fixed.all and in fixed.{kind}: {', '.join(sorted(twice))}")
        self._check_kinds(kinds, [set(layout.places(kind)) for kind in kinds])
        return layout

    def _check_kinds(self, kinds: Sequence[Kind], present: Sequence[set[str]]) -> None:
        """At least one of ``kinds`` has all columns it must have among those that are ``present`` for it."""
        lacking = [REQUIRED[kind] - columns for kind, columns in zip(kinds, present, strict=True)]
        if all(lacking):
            nearest = min(range(len(kinds)), key=lambda index: len(lacking[index]))
            names = ", ".join(sorted(lacking[nearest]))
            raise self._unknown(f"{kinds[nearest]} records lack the columns {names}")

    def _spellings(self) -> dict[str, str]:
        own = {name: (name, *self.headings.get(name, ())) for name in ALL_COLUMNS}
        return _by_spelling(own, "headings", heading_key)

    def _mapped(self, header: Sequence[str]) -> tuple[str, ...]:
        known = self._spellings()
        columns = tuple(known.get(heading_key(heading), "") for heading in header)
        for index, name in enumerate(columns):
            if name and name in columns[:index]:
                both = f"{header[columns.index(name)]!r} and {header[index]!r}"
                raise self._unknown(f"two headings for {name}: {both}")
        return columns

    def _unknown(self, what: str) -> UsageError:
        return UsageError(
            f"unknown layout: {what}", remedy=f"name the file's headings in a profile ({self.name} was used)"
        )


def is_readable(encoding: str) -> bool:
    """Whether files in ``encoding`` can be read: UTF-8, UTF-16, or one byte a character with ASCII's in it.

    What is left out (Shift-JIS, ISO-2022, UTF-32, EBCDIC) has the bytes of delimiters in other characters.
    """
    try:
        name = lookup(encoding).name
        if name.startswith("utf-16"):
            return True
        ascii_ = bytes(range(128)) + _ESCAPES
        return ascii_.decode(name) == ascii_.decode("ascii") and all(
            bytes([lead, 0x41]).decode(name, "replace").endswith("A") for lead in range(128, 256)
        )
    except (LookupError, UnicodeError):
        return False


def heading_key(heading: str) -> str:
    """What headings are compared by: ``Spot ID``, ``SPOT_ID`` and ``spot-id`` are the same."""
    return _IGNORED_IN_HEADINGS.sub("", heading).casefold()


def _by_spelling(names: Mapping[Any, Sequence[str]], where: str, key: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, spellings in sorted(names.items()):
        for spelling in spellings:
            if found.setdefault(key(spelling), name) != name:
                raise ValueError(f"{where}: {spelling!r} stands for {found[key(spelling)]} and for {name}")
    return found


def _shown(header: Sequence[str]) -> str:
    line = ", ".join(heading.strip() for heading in header)
    return repr(line if len(line) <= 120 else line[:117] + "...")


def names() -> list[str]:
    """The built-in profiles."""
    return sorted(path.name.removesuffix(".toml") for path in files("schemas").joinpath("profiles").iterdir())


def load(name_or_path: str | Path) -> Profile:
    """Read a built-in profile by its name, or a TOML file; raises :class:`UsageError` that names the key."""
    where = str(name_or_path)
    text = read(name_or_path)
    try:
        found = Profile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}", where=where) from None
    except ValidationError as error:
        key, what = complaint(error, "key")
        raise UsageError(f"{key}: {what}" if key else what, where=f"profile {where}") from None
    if what := _contradiction(found):
        raise UsageError(what, where=f"profile {where}")
    return found


def _contradiction(given: Profile) -> str:
    """What of it would take records for something else; empty: nothing.

    Asked where a profile is read, not of those that files were published with: their records stay readable.
    """
    for name in ("delimiter", "quote", "comment"):
        if set(getattr(given, name)) & set("\r\n\0"):
            return f"{name}: a line's end or NUL is never part of a line"
    if given.delimiter == given.quote:
        return "quote: it is the delimiter, too"
    mark = given.comment
    if mark and mark[0] == given.quote:
        return "comment: records whose first field is quoted begin so"
    if given.format in ("csv", "tsv") and len(mark) == 1 and mark.isalnum():
        return "comment: a letter or digit begins records, too"
    for spelling in (one for spellings in given.record_types.values() for one in spellings):
        if mark and not given.record_type and spelling.startswith(mark):
            return f"comment: records of the type {spelling} begin so"
    return ""


def read(name_or_path: str | Path) -> str:
    """The TOML text of a profile; raises :class:`UsageError` when there is none."""
    if str(name_or_path) in names():
        return files("schemas").joinpath("profiles", f"{name_or_path}.toml").read_text("utf-8")
    path = Path(name_or_path)
    try:
        return path.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        remedy = f"built-in are {', '.join(names())}; else give a TOML file's path"
        raise UsageError("no such profile", where=str(path), remedy=remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the profile: {error}", where=str(path)) from None
