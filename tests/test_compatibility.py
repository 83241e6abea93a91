"""Schemas that may not follow each other are told, by `make lint` and by the worker."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from flow import Flow

from schemas.codec import schema
from schemas.compatibility import conflicts, released
from schemas.records import KINDS, Kind
from topics.catalogue import AVAILS, SPOTS

Change = Callable[[list[dict[str, Any]]], object]


def field(fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in fields if one["name"] == name)


def retyped(name: str, to: Any, **other: Any) -> Change:
    return lambda fields: field(fields, name).update(type=to, **other)


def added(to: Any, **other: Any) -> Change:
    return lambda fields: fields.append({"name": "later", "type": to, **other})


def removed(name: str) -> Change:
    return lambda fields: fields.remove(field(fields, name))


ENUM = {"type": "enum", "name": "Mode", "symbols": ["a", "b"]}

#: What may be done.
ALLOWED: dict[str, Change] = {
    "nothing": lambda fields: None,
    "an optional field": added(["null", "string"], default=None),
    "a field with a default": added("long", default=0),
    "an optional field goes": removed("revision"),
    "another order": lambda fields: fields.insert(0, fields.pop()),
    "another description": lambda fields: fields[0].update(doc="new"),
    "branches in another order": retyped("ad_id", ["string", "null"], default=""),
}
#: What may not, and the field at fault.
FORBIDDEN: dict[str, tuple[Change, str]] = {
    "a required field": (added("string"), "later"),
    "a required field goes": (removed("spot_id"), "spot_id"),
    "wider": (retyped("duration_s", "long"), "duration_s"),
    "narrower": (retyped("rate_minor", "int"), "rate_minor"),
    "another type": (retyped("station", "int"), "station"),
    "optional from now on": (retyped("station", ["null", "string"], default=None), "station"),
    "required from now on": (retyped("ad_id", "string", default=""), "ad_id"),
    "a branch more": (retyped("ad_id", ["null", "string", "long"]), "ad_id"),
    "an enumeration": (retyped("clearance", ENUM), "clearance"),
}


def changed(kind: Kind, change: Change) -> dict[str, Any]:
    new = copy.deepcopy(schema(kind))
    change(new["fields"])
    return new


@pytest.mark.parametrize("name", ALLOWED)
def test_what_may_be_done(name: str) -> None:
    new = changed("spot", ALLOWED[name])
    assert conflicts(schema("spot"), new) == []
    assert conflicts(new, schema("spot")) == []


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_may_not_be_done_names_the_field(name: str) -> None:
    change, at_fault = FORBIDDEN[name]
    new = changed("spot", change)
    for found in (conflicts(schema("spot"), new), conflicts(new, schema("spot"))):
        assert found
        assert all(one.startswith(f"{at_fault}: ") for one in found)


def test_a_symbol_more_is_not_read_by_old_readers() -> None:
    one, more = ({"type": "record", "name": "X", "fields": []} for _ in range(2))
    one["fields"] = [{"name": "mode", "type": ENUM}]
    more["fields"] = [{"name": "mode", "type": ENUM | {"symbols": ["a", "b", "c"]}}]
    assert conflicts(one, more)
    assert conflicts(one, one) == []


def test_another_meaning_is_told_though_avro_allows_it() -> None:
    micros = ["null", {"type": "long", "logicalType": "timestamp-micros"}]
    (found,) = conflicts(schema("spot"), changed("spot", retyped("aired_at", micros)))
    assert found.startswith("aired_at: its logical type")


def test_another_name_is_another_record() -> None:
    assert "Spot" in conflicts(schema("spot"), schema("spot") | {"name": "Place"})[0]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_was_released(kind: Kind) -> None:
    assert released(kind)[0][0] == f"{kind}-1.avsc"


def test_lint_shows_what_a_change_breaks(tmp_path: Path) -> None:
    """In a copy of the package, as `make lint` runs it."""
    root = Path(__file__).parent.parent
    shutil.copytree(root / "schemas", tmp_path / "schemas", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "schemas.compatibility"]
    assert f"\t$(BIN)/python {' '.join(command[1:])}\n" in (root / "Makefile").read_text()
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    path = tmp_path / "schemas" / "avro" / "spot.avsc"
    path.write_text(json.dumps(changed("spot", retyped("duration_s", "string"))))
    broken = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert broken.returncode == 1
    where = "schemas/avro/spot.avsc may not follow released/spot-1.avsc: duration_s: a"
    assert broken.stderr.splitlines() == [
        f'{where} "int" is not read as "string" by readers of the new schema',
        f'{where} "string" is not read as "int" by readers of the old schema',
    ]


@pytest.mark.broker
def test_the_registry_judges_as_we_do(flow: Flow) -> None:
    client = SchemaRegistryClient({"url": flow.lab.registry.url})
    client.register_schema("judged", Schema(json.dumps(schema("spot")), "AVRO"))
    client.set_compatibility("judged", "FULL_TRANSITIVE")

    def allows(change: Change) -> bool:
        return client.test_compatibility("judged", Schema(json.dumps(changed("spot", change)), "AVRO"))

    assert [name for name, change in ALLOWED.items() if not allows(change)] == []
    assert [name for name, (change, _) in FORBIDDEN.items() if allows(change)] == []


@pytest.mark.broker
def test_a_worker_starts_only_on_a_registry_that_its_schemas_go_with(flow: Flow) -> None:
    """One that has no schema of ours yet, and one where somebody took the guard away."""
    client = SchemaRegistryClient({"url": flow.lab.registry.url})
    strange = Schema(json.dumps(changed("avail", removed("avail_id"))), "AVRO")
    client.register_schema(f"{AVAILS.name}-value", strange)
    status, said = flow.run("worker", "--role", "validate")
    assert status == 1
    assert said.splitlines()[-1].startswith(
        f"spotstream: {flow.lab.registry.url}: version 1 of {AVAILS.name}-value and this version's schema are"
        " incompatible: avail_id: is new and has no default"
    )
    assert client.get_compatibility(f"{SPOTS.name}-value") == "FULL_TRANSITIVE"
    client.set_compatibility(f"{SPOTS.name}-value", "NONE")
    client.register_schema(
        f"{SPOTS.name}-value", Schema(json.dumps(changed("spot", added("string"))), "AVRO")
    )
    status, said = flow.run("worker", "--role", "validate")
    assert status == 1
    assert f"version 2 of {SPOTS.name}-value and this version's schema are incompatible: later: was" in said
