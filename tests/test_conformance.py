"""The sandbox does what its OpenAPI description says, and the client understands all that it allows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from schemas.letter import Exchange
from streams.dispatch.answer import Booked, Limited, Refused, Unauthorized, Unavailable, classify
from streams.lab import sandbox as lab

CONFORMANCE = Path(__file__).parent / "conformance"
OPENAPI = json.loads((Path(lab.__file__).parent / "openapi.json").read_text())
RESPONSES = OPENAPI["paths"]["/v2/ingest"]["post"]["responses"]
KIND = {400: Refused, 401: Unauthorized, 403: Unauthorized, 413: Refused, 422: Refused, 429: Limited}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a sandbox in a process of its own."""
    log = tmp_path_factory.mktemp("sandbox") / "log"
    command = [sys.executable, "-m", "streams.cli", "sandbox"]
    with log.open("w") as stderr, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as child:  # fmt: skip
        assert child.stdout
        try:
            yield child.stdout.readline().strip()
        finally:
            child.terminate()
    assert "/streams/lab/" not in log.read_text(), log.read_text()  # in a traceback


# The scripts of faults that are made up would spoil the other answers, so they come last and alone.
@pytest.mark.parametrize(
    "what",
    [
        ["--exclude-path", "/sandbox/faults", "--max-examples", "8"],
        ["--include-path", "/sandbox/faults", "--max-examples", "15", "--phases", "fuzzing"],
    ],
    ids=["api", "faults"],
)
def test_the_sandbox_conforms_to_its_description(address: str, what: list[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file", CONFORMANCE / "schemathesis.toml",
            "run", f"{address}/openapi.json", *what,
            "--header", "Authorization: Bearer sandbox-key",
            "--seed", "1", "--no-shrink", "--no-color",
            "--suppress-health-check", "all",
        ],
        check=False, capture_output=True, text=True, timeout=90, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CONFORMANCE)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "No issues found" in ran.stdout


def from_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the few forms that our description uses for answers."""
    if "$ref" in schema:
        return from_schema(OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    match schema["type"]:
        case "object":
            parts = {name: from_schema(part) for name, part in schema["properties"].items()}
            needed = {name: parts.pop(name) for name in schema["required"]}
            assert schema["additionalProperties"] is False
            return st.fixed_dictionaries(needed, optional=parts)
        case "array":
            return st.lists(from_schema(schema["items"]), min_size=schema["minItems"], max_size=5)
        case "integer":
            return st.integers(0, 8) | st.integers(schema["minimum"])
        case "string":
            return st.text()
    raise NotImplementedError(schema)


def _described(status: str) -> tuple[st.SearchStrategy[Any], dict[str, st.SearchStrategy[Any]]]:
    """Bodies and headers that an answer of ``/v2/ingest`` may have."""
    response = RESPONSES[status]
    if "$ref" in response:
        response = OPENAPI["components"]["responses"][response["$ref"].rpartition("/")[2]]
    headers = {name: from_schema(header["schema"]) for name, header in response.get("headers", {}).items()}
    return from_schema(response["content"]["application/json"]["schema"]), headers


@st.composite
def _answers(draw: st.DrawFn) -> tuple[int, dict[str, str], bytes]:
    status = draw(st.sampled_from(sorted(RESPONSES)))
    body, headers = _described(status)
    code = int(status) if status != "default" else draw(st.sampled_from([404, 408, 500, 502, 504, 599]))
    shown = draw(st.fixed_dictionaries({}, optional=headers))
    return code, shown, json.dumps(draw(body)).encode()


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(answer=_answers(), records=st.integers(1, 5))
def test_every_answer_that_is_described_is_understood(
    answer: tuple[int, dict[str, str], bytes], records: int
) -> None:
    status, headers, body = answer
    exchange = Exchange(method="POST", url="", request_headers={}, response_body=body.decode())
    found = classify(
        status,
        CIMultiDict(headers),
        body,
        records=records,
        exchange=exchange,
        latency_ms=1,
        at=datetime.now(UTC),
    )
    if status not in {HTTPStatus.OK, HTTPStatus.MULTI_STATUS}:
        assert type(found) is KIND.get(status, Unavailable)
        assert isinstance(found, Limited) or json.loads(body)["message"][:50].strip() in (
            found.message if isinstance(found, Refused) else getattr(found, "why", "")
        )
        return
    booking = json.loads(body)
    indexes = {rejection["index"] for rejection in booking.get("rejected", [])}
    accounted = booking["accepted"] + booking["duplicates"] + len(indexes) == records
    whole = (
        accounted and len(indexes) == len(booking.get("rejected", [])) and max(indexes, default=0) < records
    )
    assert type(found) is (Booked if whole else Unavailable)


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(data=st.data(), records=st.integers(1, 30))
def test_answers_that_account_for_each_record_are_booked(data: st.DataObject, records: int) -> None:
    rejected = data.draw(st.lists(st.integers(0, records - 1), unique=True, max_size=records))
    accepted = data.draw(st.integers(0, records - len(rejected)))
    texts = from_schema({"$ref": "#/components/schemas/Rejection"})
    body = {
        "accepted": accepted,
        "duplicates": records - len(rejected) - accepted,
        "rejected": [data.draw(texts) | {"index": index} for index in rejected],
    }
    exchange = Exchange(method="POST", url="", request_headers={})
    found = classify(
        207,
        {},
        json.dumps(body).encode(),
        records=records,
        exchange=exchange,
        latency_ms=1,
        at=datetime.now(UTC),
    )
    assert isinstance(found, Booked)
    assert found.rejected == sorted(body["rejected"], key=itemgetter("index"))
