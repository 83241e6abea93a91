"""Mapping profiles: how an export's columns, formats and codes map to records. A TOML file, no code."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.currency import EXPONENTS
from schemas.errors import UsageError
from schemas.records import COLUMNS, KINDS, REQUIRED, Kind

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
_IGNORED_IN_HEADINGS = re.compile(r"[\s_.\-\ufeff]+")


class Layout(NamedTuple):
    """A file's columns, in order, by canonical name; "" for those that no record uses."""

    columns: tuple[str, ...]
    kind: Kind | None  #: of every record; None: the ``record_type`` column tells


class Codes(BaseModel):
    """The code lists. Codes match in any case; the record gets the code as it is written here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    airtime_code: tuple[str, ...] = ()
    billing_code: tuple[str, ...] = ()
    reason_code: tuple[str, ...] = ()
    #: clearance → its spellings in the export, beside its own name
    clearance: dict[Literal["scheduled", "cleared", "preempted", "missed"], tuple[str, ...]] = {}


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
    def _own_delimiter(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("delimiter"):
            given = given | {"delimiter": "\t" if given.get("format") == "tsv" else ","}
        return given

    @field_validator("format")
    @classmethod
    def _can_be_read(cls, given: str) -> str:
        if given not in ("csv", "tsv"):
            raise ValueError("only csv and tsv can be read")
        return given

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, given: str) -> str:
        try:
            "".encode(given)
        except LookupError:
            raise ValueError(f"no such encoding: {given}") from None
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
        if not self.header and not self.columns:
            raise ValueError("columns are needed where header is false")
        _by_spelling(self.record_types, "record_types", str.upper)
        self._spellings()
        return self

    def layout(self, header: Sequence[str] = ()) -> Layout:
        """Map a file's heading row, as it was split; files without one have the profile's ``columns``.

        Raises :class:`UsageError` when the file cannot be mapped: no ``record_type`` column and no fixed
        kind, no kind with all the columns it must have, or two headings for one column.
        """
        columns = self._mapped(header) if self.header else self.columns
        present = set(columns) - {""}
        if self.record_type is None and "record_type" not in present:
            raise self._unknown(f"no column for record_type among {_shown(header)}")
        kinds = KINDS if self.record_type is None else (self.record_type,)
        if not any(REQUIRED[kind] <= present for kind in kinds):
            nearest = max(kinds, key=lambda kind: len(REQUIRED[kind] & present))
            lacking = ", ".join(sorted(REQUIRED[nearest] - present))
            raise self._unknown(f"{nearest} records lack the columns {lacking}")
        return Layout(tuple(columns), self.record_type)

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
        return Profile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}", where=where) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        what = (
            "no such key"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ")
        )
        raise UsageError(f"{key}: {what}" if key else what, where=f"profile {where}") from None


def read(name_or_path: str | Path) -> str:
    """The TOML text of a profile; raises :class:`UsageError` when there is none."""
    if str(name_or_path) in names():
        return files("schemas").joinpath("profiles", f"{name_or_path}.toml").read_text("utf-8")
    path = Path(name_or_path)
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        remedy = f"built-in are {', '.join(names())}; else give a TOML file's path"
        raise UsageError("no such profile", where=str(path), remedy=remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the profile: {error}", where=str(path)) from None
