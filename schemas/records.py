"""The four kinds of record in their normalized form, the rules they keep, and the verdict on one.

A normalized record is a flat dict of text and whole numbers; a field that is empty is not there. Ids and
codes are upper-case, dates ISO 8601, instants RFC 3339 in UTC with milliseconds, and times of the broadcast
day ``HH:MM:SS.mmm`` from 06:00:00.000 to 29:59:59.999 (:mod:`schemas.normalize` makes them). Money is whole
minor units in ``…_minor`` (cents of a dollar, whole yen) of the ISO 4217 ``currency``.

The typed dicts are judged by pydantic; a field's description is its rule in words, as a dead letter shows it.
"""

from collections.abc import Callable
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, get_args

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict, get_type_hints  # pydantic needs this one before Python 3.12

from schemas.columns import Column, Columns
from schemas.errors import UsageError
from schemas.hashes import Canonical
from schemas.letter import Reason

Kind = Literal["spot", "avail", "billing", "makegood"]

#: The longest whole number of minor units: JSON's numbers are exact up to 2**53.
MOST_MINOR = 10**15 - 1

CallSign = Annotated[
    str,
    Field(
        pattern=r"^[A-Z][A-Z0-9]{2,6}(-[A-Z0-9]{1,4})?$",
        description="must be a call sign such as WABC or KXYZ-TV",
    ),
]
SpotId = Annotated[
    str, Field(pattern=r"^[A-Z0-9-]{3,32}$", description="must be 3 to 32 letters, digits and hyphens")
]
Id = Annotated[
    str,
    Field(
        pattern=r"^[A-Z0-9][A-Z0-9._/-]{0,63}$",
        description="must be 1 to 64 letters, digits and . _ / -, the first a letter or digit",
    ),
]
AdId = Annotated[str, Field(pattern=r"^[A-Z0-9]{8,12}$", description="must be 8 to 12 letters and digits")]
Advertiser = Annotated[
    str,
    Field(
        min_length=1,
        max_length=120,
        pattern=r"^\P{Cc}*$",
        description="must be at most 120 characters, none of them a control character",
    ),
]
Code = Annotated[str, Field(description="must be one of the profile's codes")]
Currency = Annotated[str, Field(description="must be an ISO 4217 currency")]
Date = Annotated[str, Field(description="must be a date in the profile's format")]
Month = Annotated[  # not \d: it takes the digits of all scripts
    str,
    Field(
        pattern=r"^(19|20|21)[0-9][0-9]-(0[1-9]|1[0-2])$", description="must be a broadcast month, YYYY-MM"
    ),
]
Time = Annotated[str, Field(description="must be a time of the broadcast day")]
Instant = Annotated[str, Field(description="must be an instant")]
Duration = Annotated[int, Field(ge=1, le=3600, description="must be whole seconds, 1 to 3600")]
Count = Annotated[int, Field(ge=0, le=1_000_000, description="must be a whole number, 0 to 1000000")]
Line = Annotated[int, Field(ge=1, le=2**31 - 1, description="must be a whole number from 1")]
Money = Annotated[int, Field(ge=0, le=MOST_MINOR, description="must be an amount of money, not negative")]
SignedMoney = Annotated[int, Field(ge=-MOST_MINOR, le=MOST_MINOR, description="must be an amount of money")]
Revision = Annotated[str, Field(max_length=64, description="must be a number or a time stamp")]

_STRICT = ConfigDict(extra="forbid", strict=True)


class _Common(TypedDict):
    station: CallSign
    broadcast_date: Date
    revision: NotRequired[Revision]


@with_config(_STRICT)
class Spot(_Common):
    """A scheduled or aired commercial."""

    record_type: Literal["spot"]
    spot_id: SpotId
    campaign_id: Id
    advertiser: Advertiser
    ad_id: NotRequired[AdId]
    air_time: NotRequired[Time]
    aired_at: NotRequired[Instant]
    duration_s: Duration
    airtime_code: Code
    clearance: Literal["scheduled", "cleared", "preempted", "missed"]
    rate_minor: Money
    currency: Currency
    billing_code: Code


@with_config(_STRICT)
class Avail(_Common):
    """Time that can be sold: a window in a break."""

    record_type: Literal["avail"]
    avail_id: Id
    break_id: Id
    window_start: Time
    window_end: Time
    duration_s: Duration
    units_total: Count
    units_sold: Count
    floor_rate_minor: Money
    currency: Currency


@with_config(_STRICT)
class Billing(_Common):
    """A line of an invoice."""

    record_type: Literal["billing"]
    invoice_id: Id
    line_no: Line
    spot_id: SpotId
    billing_period: Month
    billing_code: Code
    gross_minor: Money
    agency_commission_minor: Money
    net_minor: Money
    currency: Currency


@with_config(_STRICT)
class Makegood(_Common):
    """A spot that stands in for one that did not air as sold."""

    record_type: Literal["makegood"]
    makegood_id: Id
    original_spot_id: SpotId
    replacement_spot_id: SpotId
    reason_code: Code
    air_time: NotRequired[Time]
    aired_at: NotRequired[Instant]
    duration_s: Duration
    adjustment_minor: SignedMoney
    currency: Currency
    approved_at: Instant


class Valid(NamedTuple):
    """A record that keeps every rule, in all the forms in which it goes on."""

    kind: Kind
    key: bytes  #: its id, which is its key on its topic
    canonical: bytes  #: JSON
    placement_hash: str  #: of that; hex
    avro: bytes  #: not framed
    airs: str = ""  #: see :func:`schemas.airing.hour`

    @property
    def record(self) -> Canonical:
        """Its fields."""
        found: Canonical = orjson.loads(self.canonical)
        return found


class Invalid(NamedTuple):
    """A record that breaks rules: every one of them, and its kind, or what stood for it.

    ``why`` is ``invalid``; ``crashed`` or ``unencodable`` for one that raised an exception, which has one
    reason with an empty ``field``, and the traceback; ``quarantined`` for one that ends processes.
    """

    reasons: list[Reason]
    record_type: str
    traceback: str = ""
    why: str = "invalid"


Verdict = Valid | Invalid


#: The models by kind.
MODELS: dict[Kind, Any] = {"spot": Spot, "avail": Avail, "billing": Billing, "makegood": Makegood}
KINDS: tuple[Kind, ...] = tuple(MODELS)


def kind_named(name: str, also: tuple[str, ...] = ()) -> Kind:
    """The kind that a person calls so, or by its plural.

    Raises :class:`UsageError`, which names the kinds and what ``also`` would have been right.
    """
    for kind in KINDS:
        if name.lower() in (kind, f"{kind}s"):
            return kind
    raise UsageError("no such kind of record", where=name, remedy=f"one of {', '.join((*KINDS, *also))}")


#: By kind: the JSON schema of its model.
SCHEMAS: dict[Kind, dict[str, Any]] = {
    kind: TypeAdapter(model).json_schema() for kind, model in MODELS.items()
}

#: By kind: field → its rule in words.
RULES: dict[Kind, dict[str, str]] = {
    kind: {
        field: rule.get("description") or "must be one of " + ", ".join(rule.get("enum", ()))
        for field, rule in schema["properties"].items()
        if field != "record_type"
    }
    for kind, schema in SCHEMAS.items()
}


def _judges(kind: Kind) -> dict[str, TypeAdapter[Any]]:
    found: dict[str, TypeAdapter[Any]] = {}
    for field, hint in get_type_hints(MODELS[kind], include_extras=True).items():
        value = hint if field in SCHEMAS[kind]["required"] else get_args(hint)[0] | None
        column_type: Any = GenericAlias(list, (value,))
        found[field] = TypeAdapter(column_type, config=ConfigDict(strict=True))
    return found


#: By kind: field → what judges a column of its values; a quarter of the cost of judging records one by one.
#: None is an empty field. Raises pydantic's ``ValidationError`` with every value that breaks the rule.
JUDGES: dict[Kind, dict[str, TypeAdapter[Any]]] = {kind: _judges(kind) for kind in KINDS}


def column(field: str) -> str:
    """The export's column for a field of the normalized record: ``rate`` for ``rate_minor``."""
    return field.removesuffix("_minor")


#: By kind: the columns that an export may have for it, and those it must have. Without a currency column, or
#: where it is empty, the profile's currency holds.
COLUMNS: dict[Kind, tuple[str, ...]] = {
    kind: tuple(column(field) for field in rules if field != "aired_at") for kind, rules in RULES.items()
}
REQUIRED: dict[Kind, frozenset[str]] = {
    kind: frozenset(column(field) for field in schema["required"]) - {"record_type", "currency"}
    for kind, schema in SCHEMAS.items()
}

#: The fields that a record may be without.
OPTIONAL: frozenset[str] = frozenset(
    field for schema in SCHEMAS.values() for field in schema["properties"] if field not in schema["required"]
)
#: The columns that hold money.
MONEY: frozenset[str] = frozenset(
    column(field) for rules in RULES.values() for field in rules if column(field) != field
)


class Between(NamedTuple):
    """A rule between fields: ``field`` breaks it when ``broken`` says so of the values of ``fields``."""

    fields: tuple[str, ...]
    field: str
    rule: str
    broken: Callable[..., bool]  #: None stands for what is empty


_BETWEEN: dict[Kind, list[Between]] = {
    "spot": [
        Between(
            ("clearance", "air_time"),
            "air_time",
            "is required of a cleared spot",
            lambda clearance, time: clearance == "cleared" and time is None,
        )
    ],
    "avail": [
        Between(
            ("window_start", "window_end"),
            "window_end",
            "must be after window_start",
            lambda start, end: start is not None and end is not None and start >= end,
        ),
        Between(
            ("units_total", "units_sold"),
            "units_sold",
            "must be at most units_total",
            lambda total, sold: total is not None and sold is not None and sold > total,
        ),
    ],
    "billing": [
        Between(
            ("gross_minor", "agency_commission_minor", "net_minor"),
            "net_minor",
            "must be gross less agency_commission, to the smallest unit",
            lambda *amounts: None not in amounts and amounts[0] - amounts[1] != amounts[2],
        )
    ],
    "makegood": [
        Between(
            ("original_spot_id", "replacement_spot_id"),
            "replacement_spot_id",
            "must be another spot than original_spot_id",
            lambda original, replacement: replacement is not None and replacement == original,
        )
    ],
}


def conflicts(kind: Kind, columns: Columns) -> list[tuple[int, str, str]]:
    """The rules between fields that records break, as (index, field, rule); what is empty is not judged."""
    empty = Column.constant(None, columns["record_type"].count)
    return [
        (index, field, rule)
        for fields, field, rule, is_broken in _BETWEEN[kind]
        for index, broken in enumerate(map(is_broken, *(columns.get(name, empty).each() for name in fields)))
        if broken
    ]
