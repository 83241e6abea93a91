"""What an Avion log must come to, in any of the four formats, worked out from the file's bytes alone.

Written from the domain's rules, not from the product: nothing of it is imported (the profile is read as the
TOML file that it is), and everything is done one record at a time with the plainest means.
"""

import csv
import hashlib
import json
import re
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple
from xml.dom.minidom import Element, parseString
from xml.parsers.expat import ExpatError
from zoneinfo import ZoneInfo

PROFILES = {
    form: tomllib.loads((Path(__file__).parents[1] / f"schemas/profiles/{name}.toml").read_text("utf-8"))
    for form, name in (("csv", "avion"), ("tsv", "avion-tsv"), ("fixed", "avion-fixed"), ("xml", "avion-xml"))
}
#: What is the same in all of them.
PROFILE = PROFILES["csv"]


#: RFC 8785 for text and whole numbers: members sorted, no white space.
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Verdict(NamedTuple):
    """A record's number in the file, from 1; its placement hash, or "" when it is rejected, and then why."""

    number: int
    placement_hash: str
    why: str = ""


class Wrong(Exception):
    """The record breaks a rule; the first one is enough here."""


def verdicts(data: bytes, form: str = "csv") -> Iterator[Verdict]:
    """Judge every record of a log in UTF-8."""
    read = {"csv": tables, "tsv": tables, "fixed": positions, "xml": elements}[form]
    for number, cells in enumerate(read(data.removeprefix(b"\xef\xbb\xbf"), form), 1):
        try:
            if isinstance(cells, Wrong):
                raise cells
            normal = normalize(defaultdict(str, cells))
        except Wrong as wrong:
            yield Verdict(number, "", str(wrong))
        else:
            canonical = ENCODER.encode(normal)
            yield Verdict(number, hashlib.sha256(canonical.encode()).hexdigest())


Read = Iterator[dict[str, str] | Wrong]


def tables(data: bytes, form: str) -> Read:
    """The records of CSV and TSV, header row first."""
    delimiter = {"csv": ",", "tsv": "\t"}[form]
    records = frame(data, delimiter)
    columns = [column(heading) for heading in split(next(records).decode(), delimiter)]
    for record in records:
        try:
            yield dict(zip(columns, row(record, len(columns), delimiter), strict=True))
        except Wrong as wrong:
            yield wrong


def positions(data: bytes, form: str) -> Read:
    """The records of fixed width: every line that is not blank."""
    profile = PROFILES[form]
    for line in re.findall(rb"[^\n]+", data):
        if not line.strip():
            continue
        try:
            text = line.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            yield Wrong(str(error))
            continue
        if "\0" in text or text[profile["line_length"] :].strip():
            yield Wrong("not a line of the log")
            continue
        places = dict(profile["fixed"]["all"])
        found = places["record_type"]
        kind = text[found["start"] - 1 :][: found["length"]].strip().upper()
        places |= profile["fixed"].get(KINDS.get(kind, ""), {})
        yield {name: text[at["start"] - 1 :][: at["length"]] for name, at in places.items()}


def elements(data: bytes, form: str) -> Read:
    """The records of XML: from each start tag to its end tag, or to the next start where that comes first."""
    for record in re.findall(rb"<Record[ >](?:(?!<Record[ >])[\s\S])*", re.sub(rb"<!--.*?-->", b"", data)):
        try:
            root = parseString(record[: record.find(b"</Record>") + 9] if b"</Record>" in record else record)
            paths = PROFILES[form]["xml"]["fields"]
            yield {name: at_path(root.documentElement, path.split("/")) for name, path in paths.items()}
        except (ExpatError, UnicodeDecodeError) as error:
            yield Wrong(str(error))
        except Wrong as wrong:
            yield wrong


def at_path(element: Element, steps: list[str]) -> str:
    """The text of an element or attribute below another; "" when it is not there."""
    if not steps:
        return "".join(child.data for child in element.childNodes if child.nodeType != child.ELEMENT_NODE)
    if steps[0].startswith("@"):
        return element.getAttribute(steps[0][1:])
    found = [child for child in element.childNodes if child.nodeName == steps[0]]
    if len(found) > 1:
        raise Wrong(f"{steps[0]} twice")
    return at_path(found[0], steps[1:]) if found else ""


def frame(data: bytes, delimiter: str) -> Iterator[bytes]:
    """Cut a log into records; blank and comment lines are left out.

    A quoted field may hold line breaks when the record is well-formed; else its first line is the record.
    """
    lines = re.findall(rb"[^\n]*\n|[^\n]+", data)
    at = 0
    while at < len(lines):
        if lines[at].startswith(b"#") or not lines[at].strip(b" \t\r\n" if delimiter == "," else b" \r\n"):
            at += 1
            continue
        size = lines_of_record(lines, at, delimiter)
        yield b"".join(lines[at : at + size])
        at += size


def lines_of_record(lines: list[bytes], at: int, delimiter: str) -> int:
    """How many lines the record takes that starts at line ``at``."""
    for size in range(1, min(1000, len(lines) - at) + 1):
        try:
            split(b"".join(lines[at : at + size]).decode("latin-1"), delimiter)
        except csv.Error as error:
            if "unexpected end" in str(error):
                continue
            return 1
        return size
    return 1


def split(text: str, delimiter: str) -> list[str]:
    """Split a record into cells; raises ``csv.Error`` when quotes are out of order."""
    if '"' not in text:
        return text.rstrip("\r\n").split(delimiter)
    line = text.rstrip("\r\n") if text.count("\n") == 1 else text
    return next(csv.reader([line], strict=True, delimiter=delimiter))


def row(record: bytes, width: int, delimiter: str) -> list[str]:
    """The cells of a record: as many as the header has, trailing empty ones aside."""
    try:
        cells = split(record.decode(), delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Wrong(str(error)) from None
    if len(cells) < width or any(cell.strip() for cell in cells[width:]) or b"\0" in record:
        raise Wrong("not a row of the table")
    return cells[:width]


def column(heading: str) -> str:
    """The canonical name of a heading."""

    def plain(text: str) -> str:
        return re.sub(r"[ _.-]", "", text).lower()

    for name, headings in PROFILE["headings"].items():
        if plain(heading) in map(plain, (name, *headings)):
            return str(name)
    raise Wrong(f"unknown heading {heading}")


def normalize(cells: dict[str, str]) -> dict[str, str | int]:
    """The canonical fields of a record: empty ones left out, money in cents, times in full."""
    kind = KINDS.get(cells["record_type"].strip().upper())
    if kind is None:
        raise Wrong("record_type")
    station = matching(cells, "station", r"[A-Z][A-Z0-9]{2,6}(-[A-Z0-9]{1,4})?")
    day = date(cells["broadcast_date"])
    money = cells["currency"].strip().upper() or PROFILE["currency"]
    if money not in CURRENCIES:
        raise Wrong("currency")
    common: dict[str, str | int] = {"record_type": kind, "station": station, "currency": money}
    common["broadcast_date"] = day.isoformat()[:10]
    if cells["revision"].strip():
        common["revision"] = matching(cells, "revision", r"[0-9]{1,30}").lstrip("0")
    zone = ZoneInfo(PROFILE["stations"].get(station, PROFILE["time_zone"]))
    return common | {"spot": spot, "avail": avail, "billing": billing, "makegood": makegood}[kind](
        cells, day, zone
    )


KINDS = {name: kind for kind, names in PROFILE["record_types"].items() for name in names}
#: Those that the generator uses; all have cents.
CURRENCIES = ("USD", "CAD")
ID = r"[A-Z0-9][A-Z0-9._/-]{0,63}"
SPOT_ID = r"[A-Z0-9-]{3,32}"
Fields = dict[str, str | int]


def spot(cells: dict[str, str], day: datetime, zone: ZoneInfo) -> Fields:
    """The fields that only spots have."""
    found: Fields = {
        "spot_id": matching(cells, "spot_id", SPOT_ID),
        "campaign_id": matching(cells, "campaign_id", ID),
        "advertiser": client(cells["advertiser"]),
        "duration_s": whole(cells, "duration_s", 1, 3600),
        "airtime_code": code(cells, "airtime_code"),
        "clearance": clearance(cells["clearance"]),
        "rate_minor": cents(cells, "rate", 0),
        "billing_code": code(cells, "billing_code"),
    }
    if cells["ad_id"].strip():
        found["ad_id"] = matching(cells, "ad_id", r"[A-Z0-9]{8,12}")
    if cells["air_time"].strip():
        found |= aired(cells, day, zone)
    elif found["clearance"] == "cleared":
        raise Wrong("air_time")
    return found


def avail(cells: dict[str, str], day: datetime, zone: ZoneInfo) -> Fields:
    """The fields that only avails have."""
    found: Fields = {
        "avail_id": matching(cells, "avail_id", ID),
        "break_id": matching(cells, "break_id", ID),
        "window_start": clock(cells["window_start"]),
        "window_end": clock(cells["window_end"]),
        "duration_s": whole(cells, "duration_s", 1, 3600),
        "units_total": (total := whole(cells, "units_total", 0, 1_000_000)),
        "units_sold": whole(cells, "units_sold", 0, total),
        "floor_rate_minor": cents(cells, "floor_rate", 0),
    }
    if str(found["window_start"]) >= str(found["window_end"]):
        raise Wrong("window_end")
    return found


def billing(cells: dict[str, str], day: datetime, zone: ZoneInfo) -> Fields:
    """The fields that only billing records have."""
    gross, commission, net = (cents(cells, name, 0) for name in ("gross", "agency_commission", "net"))
    if gross - commission != net:
        raise Wrong("net")
    return {
        "invoice_id": matching(cells, "invoice_id", ID),
        "line_no": whole(cells, "line_no", 1, 2**31 - 1),
        "spot_id": matching(cells, "spot_id", SPOT_ID),
        "billing_period": matching(cells, "billing_period", r"(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])"),
        "billing_code": code(cells, "billing_code"),
        "gross_minor": gross,
        "agency_commission_minor": commission,
        "net_minor": net,
    }


def makegood(cells: dict[str, str], day: datetime, zone: ZoneInfo) -> Fields:
    """The fields that only make-goods have."""
    found: Fields = {
        "makegood_id": matching(cells, "makegood_id", ID),
        "original_spot_id": matching(cells, "original_spot_id", SPOT_ID),
        "replacement_spot_id": matching(cells, "replacement_spot_id", SPOT_ID),
        "reason_code": code(cells, "reason_code"),
        "duration_s": whole(cells, "duration_s", 1, 3600),
        "adjustment_minor": cents(cells, "adjustment", -(10**15)),
        "approved_at": instant(cells["approved_at"].strip(), zone),
    }
    if found["original_spot_id"] == found["replacement_spot_id"]:
        raise Wrong("replacement_spot_id")
    return found | (aired(cells, day, zone) if cells["air_time"].strip() else {})


@cache
def client(text: str) -> str:
    """A name: composed (NFC), with single spaces, without control characters."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not 1 <= len(name) <= 120 or any(unicodedata.category(letter) == "Cc" for letter in name):
        raise Wrong("advertiser")
    return name


def matching(cells: dict[str, str], name: str, pattern: str) -> str:
    """An id or code: trimmed, upper-cased, and as the pattern wants it."""
    text = cells[name].strip().upper()
    if not re.fullmatch(pattern, text):
        raise Wrong(name)
    return text


def code(cells: dict[str, str], name: str) -> str:
    """One of the profile's codes."""
    text = cells[name].strip().upper()
    if text not in PROFILE["codes"][name]:
        raise Wrong(name)
    return text


def clearance(text: str) -> str:
    """A clearance by its own name or by one of the profile's."""
    for name, spellings in PROFILE["codes"]["clearance"].items():
        if text.strip().upper() in (name.upper(), *spellings):
            return str(name)
    raise Wrong("clearance")


def whole(cells: dict[str, str], name: str, least: int, most: int) -> int:
    """A whole number between two others, both included."""
    text = cells[name].strip()
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise Wrong(name)
    return int(text)


def cents(cells: dict[str, str], name: str, least: int) -> int:
    """Money of two decimals at the most, thousands separated in threes or not at all."""
    found = re.fullmatch(r"(-?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.([0-9]{1,2}))?", cells[name].strip())
    if not found:
        raise Wrong(name)
    amount = int(found[2].replace(",", "")) * 100 + int((found[3] or "").ljust(2, "0"))
    if (amount := -amount if found[1] else amount) < least:
        raise Wrong(name)
    return amount


@cache
def date(text: str) -> datetime:
    """A date of ten characters as MM/DD/YYYY."""
    try:
        if not re.fullmatch(r"[0-9]{2}/[0-9]{2}/[0-9]{4}", text.strip()):
            raise Wrong("date")
        return datetime.strptime(text.strip(), "%m/%d/%Y").replace(tzinfo=UTC)
    except ValueError:
        raise Wrong("date") from None


def clock(text: str) -> str:
    """A time of the broadcast day, in full; what is before 06:00 is after midnight."""
    found = re.fullmatch(r"([012][0-9]):([0-5][0-9]):([0-5][0-9])(\.[0-9]{3})?", text.strip())
    if not found:
        raise Wrong(f"time {text}")
    hour = int(found[1])
    return f"{hour + 24 if hour < 6 else hour:02d}:{found[2]}:{found[3]}{found[4] or '.000'}"


def aired(cells: dict[str, str], day: datetime, zone: ZoneInfo) -> Fields:
    """``air_time`` and the instant that it stands for."""
    time = clock(cells["air_time"])
    days, hour = divmod(int(time[:2]), 24)
    local = day + timedelta(days=days, hours=hour, minutes=int(time[3:5]), seconds=int(time[6:8]))
    utc = local.replace(tzinfo=zone).astimezone(UTC)
    return {"air_time": time, "aired_at": f"{utc.isoformat()[:19]}{time[8:]}Z"}


def instant(text: str, zone: ZoneInfo) -> str:
    """RFC 3339, or the station's clock as MM/DD/YYYY HH:MM:SS; in UTC."""
    try:
        if re.fullmatch(r"[0-9/]{10} [0-9:]{8}", text):
            moment = datetime.strptime(text, "%m/%d/%Y %H:%M:%S").replace(tzinfo=zone)
        elif re.fullmatch(r"[0-9-]{10}T[0-9:]{8}(\.[0-9]+)?(Z|[+-][0-9:]{5})", text):
            moment = datetime.fromisoformat(text)
        else:
            raise Wrong("approved_at")
    except ValueError:
        raise Wrong("approved_at") from None
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"
