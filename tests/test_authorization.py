"""OAuth2 client credentials: one token for all, renewed by one; its endpoint's faults are its own."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from batches import batch, send
from pydantic import SecretStr
from structlog.testing import capture_logs

from schemas.errors import UsageError
from streams.dispatch.answer import Answer, Booked, NoToken, Unauthorized
from streams.dispatch.authorization import OAuth2
from streams.dispatch.avstar import Avstar
from streams.dispatch.delivery import Delivery
from streams.dispatch.throttle import Throttle
from streams.lab.account import Credentials
from streams.lab.faults import Script
from streams.lab.sandbox import Options, Running, running
from streams.settings import AvstarSettings, BreakerSettings, DispatchSettings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Line:
    """A client with a token, and the sandbox it talks to."""

    def __init__(self, started: Running, avstar: Avstar, oauth: OAuth2) -> None:
        self.sandbox, self.avstar, self.oauth = started.sandbox, avstar, oauth

    def faults(self, *faults: dict[str, Any]) -> None:
        """Play them; the first counts the token requests."""
        counter = {"kind": "latency", "path": "/oauth/token"}
        self.sandbox.faults.play(Script.model_validate({"faults": [counter, *faults]}))

    def token_faults(self, **fault: Any) -> None:
        self.faults(fault | {"path": "/oauth/token"})

    @property
    def token_requests(self) -> int:
        return int(self.sandbox.faults.report()["faults"][0]["hits"])

    @property
    def requests(self) -> int:
        return int(self.sandbox.ledger.totals()["requests"])

    def revoke(self) -> None:
        self.sandbox._account._tokens.clear()

    async def send(self, number: int = 1) -> Answer:
        return await send(self.avstar, batch(number))

    async def renewed(self) -> None:
        """Until a renewal that is under way has ended."""
        while self.oauth._renewal:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def line(
    options: Options | None = None, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Line]:
    async with running(options or Options()) as started:
        given = {"oauth_client_id": "sandbox", "oauth_client_secret": SecretStr("sandbox-secret")} | settings
        section = AvstarSettings(base_url=started.url, **given)
        oauth = OAuth2(section, clock or time.monotonic)
        async with aclosing(Avstar(section, requests_at_once=60, authorizer=oauth)) as avstar:
            found = Line(started, avstar, oauth)
            found.faults()
            yield found


@pytest.mark.parametrize("way", ["basic", "post"])
@pytest.mark.parametrize("secret", ["sandbox-secret", "p:%&+ =~"])
async def test_a_token_opens_avstar_whichever_way_the_client_shows_its_secret(way: str, secret: str) -> None:
    options = Options(credentials=Credentials(client_id="the client", client_secret=secret))
    who = {"oauth_client_id": "the client", "oauth_client_secret": SecretStr(secret)}
    async with line(options, oauth_client_auth=way, **who) as sut:
        for number in range(3):
            assert isinstance(await sut.send(number), Booked)
        assert sut.token_requests == 1


async def test_a_scope_is_asked_for() -> None:
    async with line(oauth_scope="read") as sut:
        answer = await sut.send()
    assert isinstance(answer, Unauthorized)
    assert answer.status == 403
    assert "scope" in answer.why


async def test_fifty_requests_without_a_token_ask_for_one() -> None:
    async with line() as sut:
        sut.token_faults(kind="latency", seconds=0.1)
        answers = await asyncio.gather(*(sut.send(number) for number in range(50)))
        assert all(isinstance(answer, Booked) for answer in answers)
        assert sut.token_requests == 1
        assert sut.requests == 50


async def test_well_before_its_end_one_renews_while_all_go_on_with_the_old_token() -> None:
    clock = Clock()
    async with line(Options(token_ttl_s=3600), clock) as sut:
        await sut.send()
        clock.now += 0.74 * 3600
        await sut.send()
        assert sut.token_requests == 1
        clock.now += 0.12 * 3600
        sut.token_faults(kind="latency", seconds=0.5)
        started = time.monotonic()
        answers = await asyncio.gather(*(sut.send(number) for number in range(20)))
        assert time.monotonic() - started < 0.4
        assert all(isinstance(answer, Booked) for answer in answers)
        assert sut.oauth.token_age_s == pytest.approx(0.86 * 3600)
        await sut.renewed()
        assert sut.token_requests == 1
        assert sut.oauth.token_age_s == 0
        await sut.send()
        assert sut.token_requests == 1


async def test_workers_do_not_renew_at_the_same_moment() -> None:
    clock = Clock()
    times = set()
    async with line(Options(token_ttl_s=3600), clock) as sut:
        for _ in range(20):
            await sut.send()
            token = sut.oauth._token
            assert token
            assert 0.75 <= (token.renew_at - clock.now) / 3600 <= 0.85
            times.add(token.renew_at)
            sut.oauth._token = None
    assert len(times) == 20


async def test_a_renewal_that_fails_early_harms_nobody_and_is_tried_again_later() -> None:
    clock = Clock()
    async with line(Options(token_ttl_s=3600), clock) as sut:
        await sut.send()
        clock.now += 0.9 * 3600
        sut.token_faults(kind="status", status=503)
        with capture_logs() as logs:
            for _ in range(5):
                assert isinstance(await sut.send(), Booked)
                await sut.renewed()
        assert sut.token_requests == 1
        assert [entry["log_level"] for entry in logs] == ["warning"]
        clock.now += 1
        assert isinstance(await sut.send(), Booked)
        await sut.renewed()
        assert sut.token_requests == 2
        sut.faults()
        clock.now += 30
        assert isinstance(await sut.send(), Booked)
        await sut.renewed()
        assert (sut.token_requests, sut.oauth.token_age_s) == (1, 0)


async def test_an_expired_token_is_not_sent() -> None:
    async with line(Options(token_ttl_s=1)) as sut:
        for number in range(3):
            assert isinstance(await sut.send(number), Booked)
            await asyncio.sleep(0.95)
            await sut.renewed()
        assert sut.requests == 3
        assert sut.token_requests == 3


@pytest.mark.parametrize(("life_s", "left_s"), [(3600, 9), (60, 5)])
async def test_a_token_that_may_end_on_the_way_is_not_sent(life_s: int, left_s: int) -> None:
    clock = Clock()
    async with line(Options(token_ttl_s=life_s), clock) as sut:
        await sut.send()
        sut.token_faults(kind="status", status=503)
        clock.now += life_s - left_s - 2
        assert isinstance(await sut.send(), Booked)
        await sut.renewed()
        clock.now += 2
        assert isinstance(await sut.send(), NoToken)
        assert sut.requests == 2


async def test_a_revoked_token_is_renewed_once_and_the_requests_sent_again() -> None:
    async with line() as sut:
        await sut.send()
        sut.revoke()
        answers = await asyncio.gather(*(sut.send(number) for number in range(20)))
        assert all(isinstance(answer, Booked) for answer in answers)
        assert sut.token_requests == 2
        assert 1 + 20 + 1 <= sut.requests <= 1 + 20 + 20
        assert sut.sandbox.ledger.totals()["records"] == 20


async def test_a_second_401_is_the_answer() -> None:
    async with line() as sut:
        sut.faults({"kind": "status", "status": 401, "message": "go away"})
        answer = await sut.send()
        assert isinstance(answer, Unauthorized)
        assert answer.why == "401 go away"
        assert (sut.requests, sut.token_requests) == (2, 2)


async def test_a_large_body_is_sent_whole_again_after_a_401() -> None:
    async with line() as sut:
        await sut.send()
        sut.revoke()
        answer = await send(sut.avstar, batch(*range(60_000)))
    assert answer.exchange["status"] == 413  # it was understood: 60,000 are too many


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"kind": "status", "status": 503}, "503 scripted"),
        ({"kind": "status", "status": 400, "code": "invalid_client"}, "400 invalid_client"),
        ({"kind": "status", "status": 401, "code": "invalid_client"}, "401 invalid_client"),
        ({"kind": "status", "status": 429, "retry_after": 40}, "429 scripted"),
        ({"kind": "hang", "seconds": 60}, "no answer in time"),
        ({"kind": "slow", "seconds": 60}, "no answer in time"),
        ({"kind": "reset"}, "Cannot|reset|disconnected"),
        ({"kind": "truncated"}, "without a bearer token|payload|disconnected|closed"),
        ({"kind": "not_json"}, "200 without a bearer token"),
    ],
)
async def test_the_token_endpoint_s_failures_are_their_own(fault: dict[str, Any], why: str) -> None:
    async with line(oauth_timeout_s=0.3) as sut:
        sut.token_faults(**fault)
        with capture_logs() as logs:
            answers = await asyncio.gather(*(sut.send(number) for number in range(5)))
            later = await sut.send()
        for answer in (*answers, later):
            assert isinstance(answer, NoToken)
            assert answer.why.startswith("no token from http://127.0.0.1")
            low, high = (30, 40) if "retry_after" in fault else (0, 0.5)
            assert low < answer.retry_after_s <= high
            assert "status" not in answer.exchange
        assert re.search(why, later.why)
        assert (sut.requests, sut.token_requests) == (0, 1)  # all waited for one, the last did not ask
        assert [entry["log_level"] for entry in logs] == ["error"]
        assert why.partition("|")[0] in logs[0]["why"] or "|" in why


async def test_a_token_endpoint_that_is_away_for_a_while_costs_time_only() -> None:
    quick = DispatchSettings(backoff_base_s=0.01, backoff_cap_s=0.05)
    async with line() as sut:
        sut.token_faults(kind="status", status=400, code="invalid_client", count=2)
        delivery = Delivery(sut.avstar, quick, Throttle(quick, BreakerSettings()))
        settled = await asyncio.gather(*(delivery.deliver(batch(number)) for number in range(10)))
        assert all(isinstance(one.answer, Booked) for one in settled)
        assert sut.requests == 10
        assert sut.token_requests == 3


async def test_a_rotated_secret_is_tried_at_once(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("wrong\n")
    async with line(oauth_client_secret=SecretStr(""), oauth_client_secret_file=file) as sut:
        answer = await sut.send()
        assert isinstance(answer, NoToken)
        assert "401 invalid_client" in answer.why
        new = tmp_path / "new"
        new.write_text("sandbox-secret\n")
        new.replace(file)
        assert isinstance(await sut.send(), Booked)
        # What is in use is not touched by a rotation, and a file that is gone for a moment changes nothing.
        file.unlink()
        sut.revoke()
        assert isinstance(await sut.send(), Booked)


async def test_who_gives_up_waiting_does_not_end_the_renewal() -> None:
    async with line() as sut:
        sut.token_faults(kind="latency", seconds=0.2)
        first, second = asyncio.create_task(sut.send(1)), asyncio.create_task(sut.send(2))
        await asyncio.sleep(0.05)
        first.cancel()
        assert isinstance(await second, Booked)
        assert sut.token_requests == 1


async def test_closing_ends_a_renewal() -> None:
    async with line() as sut:
        sut.token_faults(kind="hang", seconds=60)
        waiting = asyncio.create_task(sut.send())
        while not sut.oauth._renewal:
            await asyncio.sleep(0.005)
        renewal = sut.oauth._renewal
        waiting.cancel()
    await asyncio.wait([renewal], timeout=1)
    assert renewal.cancelled()


@asynccontextmanager
async def token_endpoint(**body: Any) -> AsyncIterator[str]:
    """Grants ``body``, and books one record."""

    async def token(_: web.Request) -> web.Response:
        return web.json_response(body)

    async def ingest(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer t1"
        return web.json_response({"accepted": 1, "duplicates": 0})

    app = web.Application()
    app.add_routes([web.post("/oauth/token", token), web.post("/v2/ingest", ingest)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ask(url: str) -> Answer:
    section = AvstarSettings(base_url=url, oauth_client_id="c", oauth_client_secret=SecretStr("s"))
    async with aclosing(Avstar(section, requests_at_once=1)) as avstar:
        return await send(avstar, batch(1))


@pytest.mark.parametrize("more", [{}, {"expires_in": None}, {"expires_in": "3600"}, {"expires_in": 0.5}])
@pytest.mark.parametrize("kind", ["Bearer", "bearer"])
async def test_what_other_servers_grant_is_taken(more: dict[str, Any], kind: str) -> None:
    async with token_endpoint(access_token="t1", token_type=kind, **more) as url:
        assert isinstance(await ask(url), Booked)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"access_token": "t1"},
        {"access_token": "t1", "token_type": "mac"},
        {"access_token": "", "token_type": "Bearer"},
        {"access_token": "t1\r\nX-Evil: 1", "token_type": "Bearer"},
        {"access_token": ["t1"], "token_type": "Bearer"},
        {"access_token": "t1", "token_type": "Bearer", "expires_in": 0},
        {"access_token": "t1", "token_type": "Bearer", "expires_in": -5},
        {"access_token": "t1", "token_type": "Bearer", "expires_in": "soon"},
        {"access_token": "t1", "token_type": "Bearer", "pad": "x" * 70_000},
    ],
)
async def test_a_grant_that_is_none_is_no_token(body: dict[str, Any]) -> None:
    async with token_endpoint(**body) as url:
        answer = await ask(url)
    assert isinstance(answer, NoToken)
    assert "200 without a bearer token" in answer.why
    assert "t1" not in answer.why


def test_a_client_without_a_secret_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"avstar\.oauth_client_secret"):
        OAuth2(AvstarSettings(oauth_client_id="c"))


@pytest.mark.parametrize("url", ["http://login.example/token", "https://me:hush@login.example", "nonsense"])
def test_a_token_address_that_cannot_be_used_is_a_usage_error(url: str) -> None:
    section = AvstarSettings(oauth_client_id="c", oauth_client_secret=SecretStr("s"), oauth_token_url=url)
    with pytest.raises(UsageError, match=r"avstar\.oauth_token_url") as caught:
        OAuth2(section)
    assert "hush" not in str(caught.value)


async def test_an_endpoint_that_echoes_the_secret_shows_it_to_nobody() -> None:
    async def echo(request: web.Request) -> web.Response:
        form = await request.post()
        said = f"{form.get('client_secret')} {request.headers.get('Authorization')}\x1b[2J"
        return web.json_response({"error": "invalid_client", "error_description": said}, status=401)

    app = web.Application()
    app.router.add_post("/oauth/token", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        for way in ("basic", "post"):
            section = AvstarSettings(
                base_url=url,
                oauth_client_id="c",
                oauth_client_secret=SecretStr('hush"hush/&'),
                oauth_client_auth=way,
            )
            with capture_logs() as logs:
                async with aclosing(Avstar(section, requests_at_once=1)) as avstar:
                    answer = await send(avstar, batch(1))
            assert isinstance(answer, NoToken)
            assert "***" in answer.why
            everything = repr((answer, logs))
            assert "hush" not in everything
            assert "Yzpo" not in everything  # base64 of "c:h"
            assert "\x1b" not in answer.why
    finally:
        await runner.cleanup()
