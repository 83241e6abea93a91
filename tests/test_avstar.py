"""One attempt at Avstar: every way it can end is a value, and no secret is in it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from schemas.batch import Batch, build
from schemas.errors import UsageError
from schemas.letter import Exchange
from streams.dispatch.answer import Answer, Booked, Limited, Refused, Unauthorized, Unavailable, classify
from streams.dispatch.authorization import ApiKey
from streams.dispatch.avstar import Avstar
from streams.dispatch.retry_after import CAP_S, retry_after_s
from streams.lab.sandbox import Options, Running, running
from streams.settings import AvstarSettings

REJECTION = b'{"index": 1, "code": "c", "message": "m"}'
AT = datetime(2025, 3, 9, 12, 0, 0, tzinfo=UTC)


def batch(*numbers: int) -> Batch:
    bodies = [b'{"n":%d,"record_type":"spot"}' % number for number in numbers]
    return build([(sha256(body).hexdigest(), body) for body in bodies])


def client(url: str, key: str = "sandbox-key", **settings: Any) -> "aclosing[Avstar]":
    section = AvstarSettings(base_url=url, api_key=SecretStr(key), **settings)
    return aclosing(Avstar(section, requests_at_once=4))


async def send(avstar: Avstar, batch: Batch) -> Answer:
    headers = {"Content-Type": batch.content_type, "Content-Encoding": batch.content_encoding}
    return await avstar.send(batch.key, batch.body, headers, batch.records)


async def play(url: str, *faults: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as session, session.put(
        url + "/sandbox/faults", json={"faults": faults}
    ) as answer:  # fmt: skip
        assert answer.status == 200, await answer.text()


@pytest.fixture
async def sandbox() -> AsyncIterator[Running]:
    async with running(Options()) as started:
        yield started


# -- against the sandbox


async def test_a_batch_is_booked_and_then_known(sandbox: Running) -> None:
    async with client(sandbox.url) as avstar:
        first = await send(avstar, batch(1, 2, 3))
        assert isinstance(first, Booked)
        assert (first.status, first.accepted, first.duplicates, first.rejected) == (200, 3, 0, [])
        other = await send(avstar, batch(3, 4))
        assert isinstance(other, Booked)
        assert (other.accepted, other.duplicates) == (1, 1)


async def test_rejected_records_are_told_by_index(sandbox: Running) -> None:
    await play(
        sandbox.url, {"kind": "reject", "field": "n", "value": 2, "code": "closed", "message": "too late"}
    )
    async with client(sandbox.url) as avstar:
        answer = await send(avstar, batch(1, 2, 3))
    assert isinstance(answer, Booked)
    assert (answer.status, answer.accepted) == (207, 2)
    assert answer.rejected == [{"index": 1, "code": "closed", "message": "too late"}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused), (413, Refused), (422, Refused),
        (401, Unauthorized), (403, Unauthorized),
        (429, Limited),
        (404, Unavailable), (408, Unavailable), (409, Unavailable), (415, Unavailable),
        (500, Unavailable), (502, Unavailable), (503, Unavailable), (599, Unavailable),
    ],
)  # fmt: skip
async def test_each_status_has_one_meaning(sandbox: Running, status: int, kind: type) -> None:
    await play(sandbox.url, {"kind": "status", "status": status, "message": "as you asked"})
    async with client(sandbox.url) as avstar:
        answer = await send(avstar, batch(1))
    assert type(answer) is kind
    assert answer.exchange["status"] == status
    if not isinstance(answer, Limited | Booked):
        assert f"{status} as you asked" == (answer.message if isinstance(answer, Refused) else answer.why)


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_both_forms_of_retry_after_are_read(sandbox: Running, form: str, status: int) -> None:
    await play(sandbox.url, {"kind": "status", "status": status, "retry_after": 40, "retry_after_form": form})
    async with client(sandbox.url) as avstar:
        answer = await send(avstar, batch(1))
    assert isinstance(answer, Limited | Unavailable)
    assert answer.retry_after_s is not None
    assert 38 <= answer.retry_after_s <= 41


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset", "at": "headers"},
        {"kind": "reset"},
        {"kind": "lost_answer"},
        {"kind": "truncated"},
        {"kind": "not_json"},
        {"kind": "hang", "seconds": 60},
        {"kind": "slow", "seconds": 60},
        {"kind": "latency", "seconds": 60},
    ],
)
async def test_what_networks_do_leaves_the_outcome_open_and_is_resent(
    sandbox: Running, fault: dict[str, Any]
) -> None:
    await play(sandbox.url, fault | {"count": 1})
    async with client(sandbox.url, request_timeout_s=0.5) as avstar:
        answer = await send(avstar, batch(1, 2))
        assert isinstance(answer, Unavailable)
        assert answer.why
        assert answer.retry_after_s is None
        assert answer.latency_ms <= 1500
        if fault["kind"] == "latency":  # the sandbox works on: the key stays in flight
            conflict = await send(avstar, batch(1, 2))
            assert isinstance(conflict, Unavailable)
            assert conflict.why.startswith("409")
            return
        while isinstance(again := await send(avstar, batch(1, 2)), Unavailable):
            assert again.why.startswith("409")
        assert isinstance(again, Booked)
        assert (again.accepted, again.duplicates) == (2, 0)
    assert sandbox.sandbox.ledger.totals()["duplicates_booked"] == 0


async def test_an_api_that_is_not_there_is_unavailable() -> None:
    async with running(Options()) as gone:
        pass
    async with client(gone.url) as avstar:
        answer = await send(avstar, batch(1))
    assert isinstance(answer, Unavailable)
    assert "Cannot connect" in answer.why
    assert "status" not in answer.exchange


async def test_connections_are_kept_and_bounded(sandbox: Running) -> None:
    async with client(sandbox.url) as avstar:
        await asyncio.gather(*(send(avstar, batch(n)) for n in range(40)))
        connector = avstar._pool._session.connector
        assert connector is not None
        assert 1 <= sum(map(len, connector._conns.values())) <= 4


# -- answers that only a broken API gives


@asynccontextmanager
async def api(*, status: int = 200, body: bytes = b"{}", **headers: str) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            return web.json_response({"accepted": 1, "duplicates": 0})
        return web.Response(status=status, body=body, headers=headers)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{any:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'{"accepted": 2}',
        b'{"accepted": 2, "duplicates": 1}',
        b'{"accepted": 3, "duplicates": -1}',
        b'{"accepted": "2", "duplicates": 0}',
        b'{"accepted": 1.0, "duplicates": 1}',
        b'{"accepted": true, "duplicates": 1}',
        b'{"accepted": 2, "duplicates": 0, "rejected": [{"index": 1, "code": "c", "message": "m"}]}',
        b'{"accepted": 1, "duplicates": 0, "rejected": [{"index": 2, "code": "c", "message": "m"}]}',
        b'{"accepted": 1, "duplicates": 0, "rejected": [{"index": -1, "code": "c", "message": "m"}]}',
        b'{"accepted": 1, "duplicates": 0, "rejected": [{"index": "0"}]}',
        b'{"accepted": 0, "duplicates": 0, "rejected": [%b, %b]}' % (REJECTION, REJECTION),
        b'{"accepted": 2, "duplicates": 0',
    ],
)  # fmt: skip
async def test_an_answer_that_does_not_account_for_every_record_settles_nothing(body: bytes) -> None:
    for status in (200, 207):
        async with api(status=status, body=body) as url, client(url) as avstar:
            answer = await send(avstar, batch(1, 2))
            assert isinstance(answer, Unavailable)
            assert answer.exchange["response_body"] == body.decode()


@pytest.mark.parametrize("status", [201, 204, 302, 307])
async def test_other_successes_and_redirects_settle_nothing(status: int) -> None:
    async with api(status=status, Location="/elsewhere") as url, client(url) as avstar:
        assert isinstance(await send(avstar, batch(1)), Unavailable)


async def test_an_endless_answer_is_given_up() -> None:
    async with api(body=b" " * (17 << 20)) as url, client(url) as avstar:
        answer = await send(avstar, batch(1))
        assert isinstance(answer, Unavailable)
        assert "more than" in answer.why


async def test_the_exchange_holds_what_helps_and_no_secret() -> None:
    body = json.dumps({"message": "who is top-secret-key?"}).encode()
    headers = {"Set-Cookie": "a=b", "X-Trace": "7"}
    async with api(status=422, body=body, **headers) as url, client(url, "top-secret-key") as avstar:
        answer = await send(avstar, batch(1))
    exchange = answer.exchange
    assert (exchange["method"], exchange["url"]) == ("POST", f"{url}/v2/ingest")
    assert exchange["request_headers"]["Idempotency-Key"] == f'"{batch(1).key}"'
    assert exchange["request_headers"]["Content-Encoding"] == "gzip"
    assert exchange["request_headers"]["Authorization"] == "***"
    assert exchange["response_headers"]["X-Trace"] == "7"
    assert exchange["response_headers"]["Set-Cookie"] == "***"
    assert "who is ***?" in exchange["response_body"]
    assert isinstance(answer, Refused)
    assert answer.message == "422 who is ***?"
    assert "top-secret-key" not in repr(answer)


@pytest.mark.parametrize("status", [207, 422])
async def test_reasons_that_quote_the_secret_are_kept_without_it(status: int) -> None:
    # Written as JSON may write it, too: the first letter is a t.
    body = REJECTION.replace(b'"c"', b'"\\u0074op-secret-key"').replace(b'"m"', b'"not top-secret-key!"')
    whole = b'{"accepted": 1, "duplicates": 0, "rejected": [%b]}' % body
    async with api(status=status, body=whole) as url, client(url, "top-secret-key") as avstar:
        answer = await send(avstar, batch(1, 2))
    assert isinstance(answer, Booked | Refused)
    assert answer.rejected == [{"index": 1, "code": "***", "message": "not ***!"}]


async def test_a_secret_that_looks_like_a_count_spoils_no_booking() -> None:
    body = b'{"accepted":5000,"duplicates":0}'
    async with api(body=body) as url, client(url, "5000") as avstar:
        answer = await avstar.send("k", b"", {}, 5000)
    assert isinstance(answer, Booked)
    assert answer.exchange["response_body"] == '{"accepted":***,"duplicates":0}'


# -- credentials and address


async def test_a_key_file_is_read_again_when_it_changes(sandbox: Running, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("wrong\n")
    settings = AvstarSettings(base_url=sandbox.url, api_key_file=file)
    async with aclosing(Avstar(settings, requests_at_once=1)) as avstar:
        assert isinstance(await send(avstar, batch(1)), Unauthorized)
        _replace(file, "sandbox-key\n")
        assert isinstance(await send(avstar, batch(1)), Booked)
        file.unlink()  # in the middle of being replaced
        assert isinstance(await send(avstar, batch(2)), Booked)
        _replace(file, "wrong again")
        assert isinstance(await send(avstar, batch(3)), Unauthorized)


def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def test_no_key_sends_no_header() -> None:
    async with api(status=422) as url, client(url, "") as avstar:
        answer = await send(avstar, batch(1))
    assert "Authorization" not in answer.exchange["request_headers"]


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two\nlines", "schl\u00fcssel".encode(), b"\xff\xfe"])
def test_a_key_file_that_holds_no_key_is_a_usage_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"avstar\.api_key_file") as caught:
        ApiKey(AvstarSettings(api_key_file=file))
    assert "schl" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "avstar", "ftp://avstar.example", "http://", "http://[::1", "https://me:secret@avstar.example",
        "http://avstar.example", "http://10.0.0.1:8080", "http://127.0.0.1.avstar.example",
    ],
)  # fmt: skip
async def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match=r"avstar\.base_url") as caught:
        Avstar(AvstarSettings(base_url=url), requests_at_once=1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.0.0.9:1", "http://[::1]:1"])
async def test_this_machine_may_be_addressed_in_the_clear(url: str) -> None:
    async with client(url):
        pass
    async with client("http://avstar.example", plain_http=True):
        pass


async def test_a_base_address_keeps_its_path() -> None:
    async with api() as url, client(f"{url}/eu/") as avstar:
        assert (await send(avstar, batch(1))).exchange["url"] == f"{url}/eu/v2/ingest"


# -- Retry-After, pure


@given(seconds=st.integers(0, 10**12))
def test_seconds_are_taken_and_capped(seconds: int) -> None:
    assert retry_after_s(str(seconds), "", AT) == min(seconds, CAP_S)


@given(ahead=st.integers(-(10**6), 10**6), skew=st.integers(-(10**6), 10**6))
def test_a_date_counts_from_the_server_s_clock(ahead: int, skew: int) -> None:
    theirs = AT + timedelta(seconds=skew)
    until = format_datetime(theirs + timedelta(seconds=ahead), usegmt=True)
    assert retry_after_s(until, format_datetime(theirs, usegmt=True), AT) == min(max(ahead, 0), CAP_S)
    assert retry_after_s(until, "no date", AT) == min(max(ahead + skew, 0), CAP_S)


@pytest.mark.parametrize(
    "date", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_all_three_forms_of_a_date_are_read(date: str) -> None:
    assert retry_after_s(date, "", datetime(1994, 11, 6, 8, 49, 0, tzinfo=UTC)) == 37


@pytest.mark.parametrize("value", ["", "-1", "1.5", "soon", "²", "0x10", "1e3", "99:99", "1 2"])
def test_garbage_is_ignored(value: str) -> None:
    assert retry_after_s(value, "", AT) is None


@given(value=st.text(max_size=40), date=st.text(max_size=40))
def test_whatever_it_says_it_is_nothing_or_a_bounded_wait(value: str, date: str) -> None:
    wait = retry_after_s(value, date, AT)
    assert wait is None or 0 <= wait <= CAP_S


@given(status=st.integers(100, 599), body=st.binary(max_size=60), records=st.integers(1, 9))
def test_no_answer_at_all_makes_the_reading_fail(status: int, body: bytes, records: int) -> None:
    exchange = Exchange(method="POST", url="", request_headers={})
    answer = classify(status, {}, body, records=records, exchange=exchange, latency_ms=1, at=AT)
    assert isinstance(answer, Refused) == (status in {400, 413, 422})
