"""The Avstar sandbox over HTTP: every answer, every fault, what it books, and what survives."""

import asyncio
import errno
import gzip
import io
import json
import os
import random
import signal
import subprocess
import time
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from schemas.batch import build
from schemas.errors import Problem, UsageError
from streams.lab.account import Credentials
from streams.lab.sandbox import Options, command, running
from streams.lab.up import SandboxProcess

OPENAPI = json.loads(Path("streams/lab/openapi.json").read_text())
KEY = {"Authorization": "Bearer sandbox-key"}


def record(number: int, **more: Any) -> dict[str, Any]:
    """A record as the API takes it; the same number gives the same hash."""
    fields = {"record_type": "spot", "spot_id": f"S-{number:06d}"} | more
    return {"idempotency_key": sha256(json.dumps(fields).encode()).hexdigest()} | fields


def batch(*numbers: int) -> list[dict[str, Any]]:
    return [record(number) for number in numbers]


class Client:
    """Posts to a sandbox and checks every answer against the OpenAPI document."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def ingest(
        self,
        records: Any,
        key: str = "k1",
        *,
        body: bytes | io.BytesIO | aiohttp.MultipartWriter | None = None,
        **headers: str,
    ) -> "Got":
        data = json.dumps({"batch_id": f"b-{key}", "records": records}).encode() if body is None else body
        sent = KEY | {"Idempotency-Key": f'"{key}"'}
        if isinstance(data, bytes):
            sent["Content-Type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("POST", "/v2/ingest", data=data, headers={k: v for k, v in sent.items() if v})

    async def send(self, method: str, path: str, **request: Any) -> "Got":
        async with self.session.request(method, self.url + path, **request) as answer:
            got = Got(answer.status, answer.headers, await answer.read())
        conforms(method, path, got)
        return got

    async def faults(self, *faults: dict[str, Any], seed: int = 0) -> None:
        got = await self.send("PUT", "/sandbox/faults", json={"seed": seed, "faults": faults})
        assert got.status == 200, got.body

    async def ledger(self) -> dict[str, int]:
        totals: dict[str, int] = (await self.send("GET", "/sandbox/ledger")).json
        return totals

    async def booked(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (await self.send("GET", "/sandbox/ledger/records")).body.splitlines()
        ]


class Got:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def conforms(method: str, path: str, got: Got) -> None:
    """The answer is one that the document declares for this operation."""
    responses = OPENAPI["paths"][path][method.lower()]["responses"]
    response = responses.get(str(got.status)) or responses["default"]
    if "$ref" in response:
        response = OPENAPI["components"]["responses"][response["$ref"].rpartition("/")[2]]
    content = response.get("content", {})
    media_type = got.headers.get("Content-Type", "").partition(";")[0]
    if media_type == "application/json":
        schema = {"components": OPENAPI["components"], **content["application/json"]["schema"]}
        jsonschema.Draft202012Validator(schema).validate(got.json)
    elif media_type != "text/html":  # only a fault says that
        assert (not content and not got.body) or media_type in content


@asynccontextmanager
async def sandbox(**options: Any) -> AsyncIterator[Client]:
    async with running(Options(**options)) as started, aiohttp.ClientSession() as session:
        yield Client(session, started.url)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with sandbox() as connected:
        yield connected


# -- booking


async def test_books_each_record_once_whatever_key_brings_it(client: Client) -> None:
    assert (await client.ingest(batch(1, 2, 3), "a")).json == {"accepted": 3, "duplicates": 0}
    assert (await client.ingest(batch(3, 4, 5, 4, 1), "b")).json == {"accepted": 2, "duplicates": 3}
    assert await client.booked() == batch(1, 2, 3, 4, 5)
    assert await client.ledger() == {
        "requests": 2, "batches": 2, "records": 5, "unique_records": 5, "duplicates_booked": 0,
    }  # fmt: skip


async def test_a_key_seen_before_gets_its_stored_answer(client: Client) -> None:
    await client.ingest(batch(1), "first")
    once = await client.ingest(batch(1, 2), "again")
    assert once.json == {"accepted": 1, "duplicates": 1}
    assert (await client.ingest(batch(1, 2), "again")).body == once.body
    assert (await client.ledger())["batches"] == 2


async def test_a_key_with_other_hashes_or_another_order_is_refused(client: Client) -> None:
    await client.ingest(batch(1, 2), "a")
    for other in (batch(1, 3), batch(2, 1), batch(1)):
        refused = await client.ingest(other, "a")
        assert (refused.status, refused.json["code"]) == (422, "key_reused")
    assert len(await client.booked()) == 2


async def test_takes_the_product_s_own_batches(client: Client) -> None:
    canonical = [b'{"n":%d,"record_type":"spot"}' % number for number in range(7)]
    made = build([(sha256(body).hexdigest(), body) for body in canonical])
    got = await client.ingest(
        None, made.key, body=made.body, Content_Encoding=made.content_encoding, Content_Type=made.content_type
    )
    assert got.json == {"accepted": 7, "duplicates": 0}
    assert [one["n"] for one in await client.booked()] == list(range(7))


async def test_malformed_records_are_rejected_alone(client: Client) -> None:
    good = record(1)
    bad = [
        {"record_type": "spot"},
        good | {"idempotency_key": "abc"},
        good | {"idempotency_key": 7},
        good | {"idempotency_key": " " * 64},
        "text",
        record(2) | {"record_type": ""},
        record(3) | {"record_type": ["spot"]},
    ]
    got = await client.ingest([*bad, good])
    assert got.status == 207
    assert got.json["accepted"] == 1
    assert [one["index"] for one in got.json["rejected"]] == list(range(len(bad)))
    assert await client.booked() == [good]
    assert (await client.ingest([*bad, good])).body == got.body


WHOLE = json.dumps({"batch_id": "b", "records": batch(1)}).encode()


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"body": b"{"}),
        (400, {"body": b"[]"}),
        (400, {"body": b'{"batch_id": "b"}'}),
        (400, {"body": b'{"records": []}'}),
        (400, {"body": b"\xff\xfe"}),
        (400, {"body": b"not gzip", "Content_Encoding": "gzip"}),
        (400, {"body": gzip.compress(WHOLE)[:-4], "Content_Encoding": "gzip"}),
        (400, {"body": gzip.compress(WHOLE) + b"more", "Content_Encoding": "gzip"}),
        (400, {"Idempotency_Key": ""}),
        (400, {"Idempotency_Key": "bare"}),
        (400, {"Idempotency_Key": '""'}),
        (401, {"Authorization": ""}),
        (401, {"Authorization": "Bearer wrong"}),
        (401, {"Authorization": "Basic c2FuZGJveDpzYW5kYm94LXNlY3JldA=="}),
        (413, {"records": batch(*range(11))}),
        (413, {"body": b" " * 5000}),
        (415, {"Content_Type": "text/plain"}),
        (415, {"Content_Encoding": "br"}),
        (422, {"records": []}),
    ],
)
async def test_refuses(status: int, request_: dict[str, Any]) -> None:
    async with sandbox(max_bytes=4000, max_records=10) as client:
        got = await client.ingest(request_.pop("records", batch(1)), **request_)
        assert got.status == status, got.body
        assert (await client.ledger())["records"] == 0
        assert (await client.ingest(batch(1))).status == 200  # the same connection and key go on


async def test_unknown_paths_and_methods_have_the_same_form_of_error(client: Client) -> None:
    async with client.session.get(client.url + "/v2/nothing") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
    async with client.session.get(client.url + "/v2/ingest") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_gzip_bomb_is_refused_before_it_is_in_memory() -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    async with sandbox(max_bytes=1 << 20) as client:
        tracemalloc.start()
        try:
            got = await client.ingest(
                None, body=io.BytesIO(bomb), Content_Type="application/json", Content_Encoding="gzip"
            )
            assert (got.status, got.json["code"]) == (413, "too_large")
            assert tracemalloc.get_traced_memory()[1] < 6 << 20
        finally:
            tracemalloc.stop()


# -- multipart


def multipart(records: list[Any], manifest: Any) -> aiohttp.MultipartWriter:
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in records)
    writer = aiohttp.MultipartWriter("form-data")
    writer.append_json(manifest).set_content_disposition("form-data", name="manifest")
    part = writer.append(lines, {"Content-Type": "application/x-ndjson"})
    part.set_content_disposition("form-data", name="records")
    return writer


@pytest.mark.parametrize("size", [1, 700, 5000])
@pytest.mark.parametrize("packed", [False, True])
async def test_multipart_books_what_json_books(client: Client, size: int, packed: bool) -> None:
    records = batch(*range(size))
    writer = multipart(records, {"batch_id": "b", "records": size})
    headers = {"Content_Type": writer.content_type}
    body: Any = writer
    if packed:
        sink = _Sink()
        await writer.write(sink)
        body, headers["Content_Encoding"] = gzip.compress(bytes(sink.data)), "gzip"
    assert (await client.ingest(None, "m", body=body, **headers)).json == {"accepted": size, "duplicates": 0}
    assert await client.booked() == records
    assert (await client.ingest(records, "m")).json == {"accepted": size, "duplicates": 0}


class _Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, chunk: bytes) -> None:
        self.data += chunk


async def test_multipart_that_is_not_whole_is_refused(client: Client) -> None:
    short = multipart(batch(1, 2), {"batch_id": "b", "records": 3})
    assert (await client.ingest(None, body=short, Content_Type=short.content_type)).status == 422
    nameless = aiohttp.MultipartWriter("form-data")
    nameless.append_json({"batch_id": "b"}).set_content_disposition("form-data", name="records")
    assert (await client.ingest(None, body=nameless, Content_Type=nameless.content_type)).status == 400
    broken = b'--x\r\nContent-Disposition: form-data; name="manifest"\r\n\r\n{"batch_id": "b"}\r\n'
    got = await client.ingest(None, body=broken, Content_Type="multipart/form-data; boundary=x")
    assert got.status == 400
    split = b'{"idempotency_key":\n"x"}'  # a record may not be spread over lines
    assert (
        await client.ingest(None, body=_ndjson(split), Content_Type="multipart/form-data; boundary=x")
    ).status == 400
    assert (await client.ledger())["records"] == 0


def _ndjson(lines: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    return head % (b"manifest", b'{"batch_id": "b"}') + head % (b"records", lines) + b"--x--\r\n"


# -- credentials and limits


async def test_a_token_opens_until_it_expires() -> None:
    form = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "sandbox-secret"}
    async with sandbox(token_ttl_s=1) as client:
        token = (await client.send("POST", "/oauth/token", data=form)).json
        assert token["expires_in"] == 1
        bearer = f"Bearer {token['access_token']}"
        assert (await client.ingest(batch(1), Authorization=bearer)).status == 200
        while (got := await client.ingest(batch(1), Authorization=bearer)).status == 200:
            await asyncio.sleep(0.05)
        assert (got.status, got.json["code"]) == (401, "invalid_token")
        assert "invalid_token" in got.headers["WWW-Authenticate"]
        assert (await client.ingest(batch(1), Authorization="", X_API_Key="sandbox-key")).status == 200


async def test_token_requests_follow_rfc_6749(client: Client) -> None:
    async def ask(basic: str = "", **form: str) -> Got:
        headers = {"Authorization": f"Basic {b64encode(basic.encode()).decode()}"} if basic else {}
        return await client.send("POST", "/oauth/token", data=form, headers=headers)

    grant = {"grant_type": "client_credentials"}
    assert (await ask("sandbox:sandbox-secret", **grant)).status == 200
    wrong = await ask("sandbox:wrong", **grant)
    assert (wrong.status, wrong.json["error"]) == (401, "invalid_client")
    assert (await ask(**grant)).status == 401
    assert (await ask(grant_type="password")).json["error"] == "unsupported_grant_type"
    reader = (await ask(**grant, client_id="sandbox", client_secret="sandbox-secret", scope="read")).json
    got = await client.ingest(batch(1), Authorization=f"Bearer {reader['access_token']}")
    assert (got.status, got.json["code"]) == (403, "insufficient_scope")


async def test_an_open_sandbox_asks_for_nothing() -> None:
    async with sandbox(credentials=Credentials(required=False)) as client:
        assert (await client.ingest(batch(1), Authorization="")).status == 200


async def test_the_limit_per_minute_is_told_and_kept() -> None:
    async with sandbox(requests_per_minute=2) as client:
        first = await client.ingest(batch(1), "a")
        assert first.headers["RateLimit-Policy"] == '"minute";q=2;w=60'
        assert first.headers["RateLimit"].startswith('"minute";r=1;t=')
        await client.ingest(batch(2), "b")
        refused = await client.ingest(batch(3), "c")
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.headers["RateLimit"].startswith('"minute";r=0;t=')
        assert (await client.ledger())["records"] == 2


async def test_the_limit_at_once_is_kept() -> None:
    async with sandbox(requests_at_once=2) as client:
        await client.faults({"kind": "latency", "seconds": 0.3})
        statuses = await asyncio.gather(*(client.ingest(batch(n), f"k{n}") for n in range(5)))
        assert sorted(got.status for got in statuses) == [200, 200, 429, 429, 429]


async def test_a_key_in_flight_is_a_conflict(client: Client) -> None:
    await client.faults({"kind": "latency", "seconds": 0.3, "count": 1})
    answers = await asyncio.gather(*(client.ingest(batch(1)) for _ in range(3)))
    assert sorted(got.status for got in answers) == [200, 409, 409]
    assert (await client.ingest(batch(1))).json == {"accepted": 1, "duplicates": 0}


# -- faults

FAILURES = (aiohttp.ClientError, TimeoutError)


@pytest.mark.parametrize("at", ["headers", "body", "booked"])
async def test_a_reset_books_only_when_it_comes_after_booking(client: Client, at: str) -> None:
    await client.faults({"kind": "reset", "at": at, "count": 1})
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await client.ingest(batch(1))
    assert caught.value.errno == errno.ECONNRESET
    assert (await client.ledger())["records"] == (1 if at == "booked" else 0)
    assert (await client.ingest(batch(1))).json == {"accepted": 1, "duplicates": 0}
    assert (await client.ledger())["duplicates_booked"] == 0


@pytest.mark.parametrize("kind", ["lost_answer", "truncated", "not_json"])
async def test_an_answer_that_is_lost_is_stored_all_the_same(client: Client, kind: str) -> None:
    await client.faults({"kind": kind, "count": 1})
    try:
        assert (await client.ingest(batch(1))).body.startswith(b"<html>")
    except FAILURES:
        assert kind != "not_json"
    assert (await client.booked()) == batch(1)
    assert (await client.ingest(batch(1))).json == {"accepted": 1, "duplicates": 0}


async def test_a_hang_lets_go_of_the_key_when_the_client_hangs_up(client: Client) -> None:
    await client.faults({"kind": "hang", "seconds": 60, "count": 1})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.ingest(batch(1)), 0.2)
    while (got := await client.ingest(batch(1))).status == 409:
        await asyncio.sleep(0.01)
    assert got.json == {"accepted": 1, "duplicates": 0}


async def test_a_slow_answer_is_whole(client: Client) -> None:
    await client.faults({"kind": "slow", "seconds": 0.3})
    started = time.monotonic()
    assert (await client.ingest(batch(1))).json == {"accepted": 1, "duplicates": 0}
    assert time.monotonic() - started >= 0.25


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413, 422, 429, 500, 503, 599])
async def test_any_status_can_be_played(client: Client, status: int) -> None:
    await client.faults({"kind": "status", "status": status, "retry_after": 7, "count": 2})
    for _ in range(2):
        got = await client.ingest(batch(1))
        assert (got.status, got.headers["Retry-After"], got.json["code"]) == (status, "7", "scripted")
    assert (await client.ingest(batch(1))).status == 200


async def test_retry_after_can_be_a_date(client: Client) -> None:
    await client.faults({"kind": "status", "status": 429, "retry_after": 30, "retry_after_form": "date"})
    date = (await client.ingest(batch(1))).headers["Retry-After"]
    assert 27 < parsedate_to_datetime(date).timestamp() - time.time() <= 31


async def test_records_are_rejected_by_field_or_hash_or_share(client: Client) -> None:
    records = [record(n, station="WABC" if n % 3 else "KXYZ") for n in range(300)]
    await client.faults(
        {"kind": "reject", "field": "station", "value": "KXYZ", "code": "unknown_station"},
        {"kind": "reject", "hashes": [records[1]["idempotency_key"]], "code": "listed"},
    )
    got = await client.ingest(records)
    codes = {one["index"]: one["code"] for one in got.json["rejected"]}
    assert codes == dict.fromkeys(range(0, 300, 3), "unknown_station") | {1: "listed"}
    assert got.json["accepted"] == 300 - len(codes)

    await client.faults({"kind": "reject"})
    again = await client.ingest(records, "again")
    assert again.json == {
        "accepted": 0, "duplicates": got.json["accepted"],
        "rejected": [one | {"code": "scripted", "message": again.json["rejected"][0]["message"]}
                     for one in got.json["rejected"]],
    }  # fmt: skip

    await client.faults({"kind": "reject", "record_probability": 0.2})
    fresh = batch(*range(1000, 2000))
    first = await client.ingest(fresh, "a")
    assert 120 < len(first.json["rejected"]) < 280
    # The same records again, under another key: those booked are duplicates, the others rejected again.
    second = await client.ingest(fresh, "b")
    assert second.json["rejected"] == first.json["rejected"]
    assert second.json["duplicates"] == first.json["accepted"]


async def test_a_status_can_be_bound_to_a_record(client: Client) -> None:
    await client.faults({"kind": "status", "status": 422, "field": "spot_id", "value": "S-000007"})
    assert (await client.ingest(batch(1, 7), "a")).status == 422
    assert (await client.ingest(batch(1), "b")).status == 200
    assert (await client.ingest(batch(7), "c")).status == 422


async def test_faults_are_counted_timed_and_repeatable(client: Client) -> None:
    async def play() -> list[int]:
        await client.faults(
            {"kind": "status", "status": 500, "probability": 0.3},
            {"kind": "status", "status": 429, "probability": 0.5, "count": 3},
            seed=5,
        )
        return [(await client.ingest(batch(1))).status for _ in range(60)]

    first = await play()
    assert first == await play()
    assert first.count(429) == 3
    assert 8 < first.count(500) < 30
    shown = (await client.send("GET", "/sandbox/faults")).json["faults"]
    assert [fault["hits"] for fault in shown] == [first.count(500), 3]
    assert (await client.send("DELETE", "/sandbox/faults")).status == 204
    assert (await client.send("GET", "/sandbox/faults")).json["faults"] == []

    await client.faults({"kind": "status", "status": 503, "after_s": 0.2, "for_s": 0.3})
    seen = []
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        seen.append((await client.ingest(batch(1))).status)
    turns = [seen[0]] + [now for before, now in pairwise(seen) if now != before]
    assert turns == [200, 503, 200]


async def test_the_token_endpoint_fails_by_script_too(client: Client) -> None:
    await client.faults({"kind": "status", "status": 500, "path": "/oauth/token"})
    assert (await client.send("POST", "/oauth/token", data={})).status == 500
    assert (await client.ingest(batch(1))).status == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "flood"},
        {"kind": "reset", "odds": 1},
        {"kind": "reset", "probability": 2},
        {"kind": "reject", "at": "booked"},
        {"kind": "reset", "at": "headers", "field": "spot_id"},
        {"kind": "reset", "at": "body", "path": "/oauth/token"},
        {"kind": "status", "retry_after": 99_999_999_999_999, "retry_after_form": "date"},
    ],
)
async def test_a_wrong_script_is_refused_and_the_old_one_stays(client: Client, fault: dict[str, Any]) -> None:
    await client.faults({"kind": "status", "status": 500})
    assert (await client.send("PUT", "/sandbox/faults", json={"faults": [fault]})).status == 400
    assert (await client.ingest(batch(1))).status == 500


async def test_the_ledger_can_count_a_double_booking(client: Client) -> None:
    await client.ingest(batch(1, 2), "a")
    await client.faults({"kind": "no_dedupe"})
    assert (await client.ingest(batch(1, 2), "a")).json == {"accepted": 2, "duplicates": 0}
    assert (await client.ingest(batch(2, 3), "b")).json == {"accepted": 2, "duplicates": 0}
    totals = await client.ledger()
    assert (totals["records"], totals["unique_records"], totals["duplicates_booked"]) == (6, 3, 3)
    assert await client.booked() == batch(1, 2, 1, 2, 2, 3)


async def test_the_ledger_can_show_what_only_hashes_would_have_kept_from_being_booked_twice(
    client: Client,
) -> None:
    await client.faults({"kind": "keys_only"})
    await client.ingest(batch(1, 2), "a")
    assert (await client.ingest(batch(1, 2), "a")).json == {"accepted": 2, "duplicates": 0}
    assert await client.booked() == batch(1, 2)
    assert (await client.ingest(batch(2, 3), "b")).json == {"accepted": 2, "duplicates": 0}
    assert await client.booked() == batch(1, 2, 2, 3)


async def test_an_upload_that_breaks_off_frees_its_key(client: Client) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"batch_id": "b", '
        await asyncio.sleep(60)

    sent = KEY | {"Idempotency-Key": '"k1"', "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(0.2)
    with pytest.raises(TimeoutError):
        await client.session.post(client.url + "/v2/ingest", data=half(), headers=sent, timeout=timeout)
    while (got := await client.ingest(batch(1))).status == 409:
        await asyncio.sleep(0.01)
    assert got.status == 200


# -- the document, restart and kill


async def test_the_document_is_served(client: Client) -> None:
    assert (await client.send("GET", "/openapi.json")).json == OPENAPI
    for schema in OPENAPI["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_the_document_s_fault_is_the_code_s() -> None:
    from streams.lab.faults import Fault

    declared = OPENAPI["components"]["schemas"]["Fault"]["properties"]
    fields = Fault.model_json_schema()["properties"]
    assert set(declared) == set(fields) | {"hits"}
    assert declared["kind"]["enum"] == fields["kind"]["enum"]
    for name, field in fields.items():
        for word in ("minimum", "maximum", "default"):
            if field.get(word) is not None and word in declared[name]:
                assert declared[name][word] == field[word], name


async def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    async with sandbox(data_dir=tmp_path) as client:
        await client.ingest(batch(1, 2), "a")
        await client.faults({"kind": "reject", "field": "spot_id", "value": "S-000003"})
        partly = await client.ingest(batch(2, 3, 4), "b")
        before = await client.ledger(), await client.booked()
    async with sandbox(data_dir=tmp_path) as client:
        assert (await client.ledger(), await client.booked()) == before
        assert (await client.ingest(batch(2, 3, 4), "b")).body == partly.body
        assert (await client.ingest(batch(4, 3), "c")).json == {"accepted": 1, "duplicates": 1}


async def test_a_folder_or_a_port_has_one_sandbox(tmp_path: Path) -> None:
    async with running(Options(data_dir=tmp_path)) as started:
        with pytest.raises(UsageError, match="another sandbox"):
            async with running(Options(data_dir=tmp_path)):
                pass
        port = int(started.url.rpartition(":")[2])
        with pytest.raises(UsageError, match="is taken"):
            async with running(Options(port=port)):
                pass


async def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "file").touch()
    for folder, why in ((tmp_path / "file", "File exists"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"{folder}: is no folder to keep a ledger in: {why}"):
            async with running(Options(data_dir=folder)):
                pass


def test_starts_again_after_a_kill_as_its_port_was_written(tmp_path: Path) -> None:
    (tmp_path / "port").touch()
    with SandboxProcess(tmp_path) as started:
        assert started.url.endswith(":" + (tmp_path / "port").read_text())


async def test_any_torn_end_is_cut_off_and_damage_is_told(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with sandbox(data_dir=tmp_path) as client:
        await client.ingest(batch(1, 2), "a")
        first = ledger.stat().st_size
        await client.ingest(batch(*range(3, 60)), "b")
    whole = ledger.read_bytes()
    for cut in {len(whole) - 1, first + 1, *random.Random(1).sample(range(first, len(whole)), 20)}:
        ledger.write_bytes(whole[:cut])
        async with sandbox(data_dir=tmp_path) as client:
            assert await client.booked() == batch(1, 2)
            assert (await client.ingest(batch(3), "b")).json == {"accepted": 1, "duplicates": 0}
        async with sandbox(data_dir=tmp_path) as client:  # nothing of the torn entry lies behind the new one
            assert await client.booked() == batch(1, 2, 3)
    ledger.write_bytes(whole[:40] + b"\0" + whole[41:])
    with pytest.raises(Problem, match="damaged"):
        async with sandbox(data_dir=tmp_path):
            pass


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Any]:
    """Starts sandboxes as ``up`` does, on one folder; none is left behind."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(command(0, tmp_path), stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def test_every_answered_booking_survives_a_sigkill(child: Any) -> None:
    answered: dict[str, Any] = {}
    dice = random.Random(7)
    for life in range(3):
        process, url = child()
        async with aiohttp.ClientSession() as session:
            client = Client(session, url)
            for key, body in answered.items():
                numbers = range(int(key) * 50, int(key) * 50 + 50)
                assert (await client.ingest(batch(*numbers), key)).body == body
            kill = asyncio.get_running_loop().call_later(
                dice.uniform(0.05, 0.4), os.kill, process.pid, signal.SIGKILL
            )

            async def send(worker: int, life: int = life, client: Client = client) -> None:
                for turn in range(1000):
                    number = (life * 4 + worker) * 1000 + turn
                    numbers = range(number * 50, number * 50 + 50)
                    answered[str(number)] = (await client.ingest(batch(*numbers), str(number))).body

            await asyncio.gather(*(send(worker) for worker in range(4)), return_exceptions=True)
            kill.cancel()
            process.wait()
    process, url = child()
    async with aiohttp.ClientSession() as session:
        client = Client(session, url)
        totals, booked = await client.ledger(), {one["idempotency_key"] for one in await client.booked()}
    assert len(answered) > 4
    assert totals["duplicates_booked"] == 0
    assert totals["records"] == len(booked)
    assert {
        one["idempotency_key"] for key in answered for one in batch(*range(int(key) * 50, int(key) * 50 + 50))
    } <= booked
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0


async def test_tells_when_requests_came_and_how_they_ended(client: Client) -> None:
    before = time.time()
    await client.ingest(batch(1), "a")
    await client.faults({"kind": "status", "status": 503})
    await client.ingest(batch(1), "b")
    await client.faults({"kind": "reset"})
    with pytest.raises(aiohttp.ClientError):
        await client.ingest(batch(1), "c")
    told = await client.send("GET", "/sandbox/requests")
    arrivals = [json.loads(line) for line in told.body.splitlines()]
    assert [arrival["status"] for arrival in arrivals] == [200, 503, 0]
    assert before <= arrivals[0]["at"] <= arrivals[1]["at"] <= time.time()
