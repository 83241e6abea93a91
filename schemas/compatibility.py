"""Whether schemas may follow each other on a topic: both read what the other has written.

Run as a module, it compares each kind's schema with all that were released before; ``make lint`` does so.
"""

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from fastavro.utils import generate_one

from schemas.codec import schema
from schemas.records import KINDS

#: ``KIND-VERSION.avsc``: every schema that records may still have been written with.
RELEASED = Path(__file__).parent / "avro" / "released"


def conflicts(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What forbids that ``new`` follows ``old``, a line for each field and direction; empty: nothing.

    Both are records as JSON has them. Whether a value is read is asked of fastavro, field by field.
    """
    if old["name"] != new["name"]:
        return [f"the record's name has changed from {old['name']} to {new['name']}"]
    before, after = ({field["name"]: field for field in each["fields"]} for each in (old, new))
    found = [
        f"{name}: was removed and had no default: readers of the old schema miss it"
        for name, field in before.items()
        if name not in after and "default" not in field
    ]
    for name, field in after.items():
        if name in before:
            found += _changes(name, before[name]["type"], field["type"])
        elif "default" not in field:
            found.append(
                f"{name}: is new and has no default: readers of the new schema miss it in old records"
            )
    return found


def _changes(name: str, old: Any, new: Any) -> list[str]:
    found = []
    if _meanings(old) != _meanings(new):
        # Readers would take days for milliseconds, and no rule of Avro's forbids it.
        found.append(f"{name}: its logical type has changed from {json.dumps(old)} to {json.dumps(new)}")
    for writer, reader, readers in ((old, new, "new"), (new, old, "old")):
        for branch in writer if isinstance(writer, list) else [writer]:
            if not _reads(branch, writer, reader):
                what = f"a {json.dumps(branch)} is not read as {json.dumps(reader)}"
                found.append(f"{name}: {what} by readers of the {readers} schema")
    return found


def _meanings(avro: Any) -> set[str]:
    branches = avro if isinstance(avro, list) else [avro]
    return {branch.get("logicalType", "") for branch in branches if isinstance(branch, dict)} - {""}


def _reads(branch: Any, writer: Any, reader: Any) -> bool:
    """Whether values of the writer's ``branch``, each symbol of an enumeration, are read by ``reader``."""
    symbols = branch.get("symbols") if isinstance(branch, dict) else None
    parsed = fastavro.parse_schema(_alone(writer))
    for value in symbols or [generate_one(branch)]:
        body = BytesIO()
        fastavro.schemaless_writer(body, parsed, {"field": value})
        body.seek(0)
        try:
            fastavro.schemaless_reader(body, parsed, fastavro.parse_schema(_alone(reader)))
        except (fastavro.read.SchemaResolutionError, ValueError):
            return False
    return True


def _alone(avro: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Alone", "fields": [{"name": "field", "type": avro}]}


def released(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The released schemas of a kind, each with its file's name."""
    return [
        (path.name, json.loads(path.read_text("utf-8"))) for path in sorted(RELEASED.glob(f"{kind}-*.avsc"))
    ]


def main() -> int:
    """Print every conflict; exit status 1 when there is one."""
    found = [
        f"schemas/avro/{kind}.avsc may not follow released/{name}: {conflict}"
        for kind in KINDS
        for name, old in released(kind)
        for conflict in conflicts(old, schema(kind))
    ]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
