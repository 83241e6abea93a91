"""Bento as a baseline of ``bench validate``, where it is installed: a stream processor in Go.

It does less than the others: it reads rows, trims and folds texts, makes numbers of numbers, and holds each
record against the JSON schema of its kind; dates and times stay as they are, no rule between fields is looked
at, and nothing is hashed.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import Problem
from schemas.profile import Profile
from schemas.records import KINDS, MONEY, SCHEMAS, Kind, column
from streams.lab.bench.children import limit_s, running, until
from streams.lab.bench.sink import RECORDS, Sink
from topics.catalogue import RAW


def missing() -> str:
    """Why it cannot run here; empty when it can."""
    return "" if shutil.which("bento") else "bento is not installed"


def rate(bootstrap: str, group: str, records: int, mapping: str, file: Path) -> float:
    """Have it judge the raw topic and POST to a sink, on the last core; records/s after the first batch.

    ``mapping``: see :func:`mapping`. ``file`` is where its configuration is written. Raises :class:`Problem`
    when it fails.
    """
    with Sink() as sink:
        file.write_bytes(orjson.dumps(_configuration(bootstrap, group, sink.url, mapping)))
        command = [shutil.which("bento") or "bento", "-c", str(file)]
        with running(command, core=-1, grace_s=0, env=os.environ | {"GOMAXPROCS": "1"}) as child:
            until(
                lambda: sum(map(_records, sink.taken())) >= 0.95 * records,  # what it rejects is not sent
                [child],
                limit_s(records),
                lambda: Problem("did not take all records", where=f"bento, see {file}"),
            )
        taken = sink.taken()
    first, last = min(taken, key=taken.__getitem__), max(taken, key=taken.__getitem__)
    return sum(_records(key) for key in taken if key != first) / (taken[last] - taken[first])


def _records(key: str) -> int:
    """How many a request had: its key says it, see the output's headers."""
    return int(key.partition("/")[2])


def _configuration(bootstrap: str, group: str, sink: str, mapping: str) -> dict[str, Any]:
    return {
        "http": {"enabled": False},
        "logger": {"level": "FATAL"},
        "input": {
            "kafka_franz": {
                "seed_brokers": [bootstrap],
                "topics": [RAW.name],
                "consumer_group": group,
                "start_from_oldest": True,
                "checkpoint_limit": 4 * RECORDS,
                "batching": {"count": RECORDS, "period": "1s"},
            }
        },
        "pipeline": {
            "threads": 1,
            "processors": [
                {"mapping": mapping},
                {"switch": [_case(kind) for kind in KINDS]},
                {"mapping": "root = if errored() { deleted() }"},
                {"mapping": "meta records = batch_size()"},
                {"archive": {"format": "json_array"}},
            ],
        },
        "output": {
            "http_client": {
                "url": sink,
                "verb": "POST",
                "headers": {"Idempotency-Key": '${! uuid_v4() }/${! meta("records") }'},
                "max_in_flight": 1,
            }
        },
    }


def _case(kind: Kind) -> dict[str, Any]:
    rules = orjson.dumps(SCHEMAS[kind]).decode()
    return {"check": f'this.record_type == "{kind}"', "processors": [{"json_schema": {"schema": rules}}]}


def mapping(profile: Profile, header: Sequence[str]) -> str:
    """The rows of a file to records, in Bloblang."""
    layout = profile.layout(header)
    cases = []
    for kind in KINDS:
        places = {field: layout.places(kind).get(column(field)) for field in SCHEMAS[kind]["properties"]}
        fields = {"record_type": f'"{kind}"'} | {
            field: _value(f"$row.index({place}).trim()", field, SCHEMAS[kind], profile.currency)
            for field, place in places.items()
            if place is not None and field != "record_type"
        }
        literal = ", ".join(f'"{field}": {value}' for field, value in fields.items())
        names = ", ".join(f'"{name}"' for name in profile.record_types[kind])
        cases.append(f"[{names}].contains($kind) => {{ {literal} }}")
    joined = "\n          ".join(cases)
    spellings = {
        name.upper(): code for code, names in profile.codes.clearance.items() for name in (code, *names)
    }
    return f"""
        let clearances = {orjson.dumps(spellings).decode()}
        let row = content().string().parse_csv(parse_header_row: false).index(0)
        let kind = $row.index({layout.columns.index("record_type")}).trim().uppercase()
        root = match {{
          {joined}
          _ => throw("no such kind")
        }}
    """


def _value(cell: str, field: str, rules: dict[str, Any], currency: str) -> str:
    if field == "currency":
        return f'if {cell} == "" {{ "{currency}" }} else {{ {cell}.uppercase() }}'
    if column(field) in MONEY:
        return f'({cell}.replace_all(",", "").number() * 100).round()'
    if rules["properties"][field].get("type") == "integer":
        return f"{cell}.number()"
    if field == "clearance":
        return f"$clearances.get({cell}.uppercase())"
    value = cell if field == "advertiser" else f"{cell}.uppercase()"
    return value if field in rules["required"] else f'if {cell} == "" {{ deleted() }} else {{ {value} }}'
