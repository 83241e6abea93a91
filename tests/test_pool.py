"""How requests leave this machine: both uploads end to end, connections, timeouts, TLS, proxies."""

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from aiohttp import web
from batches import batch, send
from cryptography.hazmat.primitives import serialization as form
from pydantic import SecretStr

from schemas.batch import Upload
from schemas.errors import UsageError
from streams.dispatch.answer import Booked, NoToken, Unavailable
from streams.dispatch.avstar import Avstar
from streams.lab.faults import Script
from streams.lab.sandbox import Options, Sandbox, running
from streams.settings import AvstarSettings

OAUTH = {"oauth_client_id": "sandbox", "oauth_client_secret": SecretStr("sandbox-secret")}


def client(url: str, **settings: Any) -> "aclosing[Avstar]":
    section = AvstarSettings(base_url=url, **({"api_key": SecretStr("sandbox-key")} | settings))
    return aclosing(Avstar(section, requests_at_once=4))


# -- uploads


@pytest.mark.parametrize("strategy", ["json", "multipart"])
async def test_both_uploads_book_the_same_records(strategy: Any) -> None:
    numbers = range(3000)
    async with running(Options()) as started, client(started.url) as avstar:
        answer = await send(avstar, batch(*numbers, upload=Upload(strategy)))
        assert isinstance(answer, Booked)
        assert (answer.accepted, answer.duplicates) == (3000, 0)
        other = "json" if strategy == "multipart" else "multipart"
        again = await send(avstar, batch(*numbers, upload=Upload(other)))
        assert isinstance(again, Booked)  # under the same key: the stored answer, whichever way it came
        assert (again.accepted, again.duplicates) == (3000, 0)
        assert started.sandbox.ledger.totals()["records"] == 3000
        assert answer.exchange["request_headers"]["Content-Type"].startswith(
            "application/json" if strategy == "json" else "multipart/form-data; boundary="
        )


async def test_rejections_of_a_multipart_upload_are_told_by_index() -> None:
    async with running(Options()) as started, client(started.url) as avstar:
        fault = {"kind": "reject", "field": "n", "value": 7}
        started.sandbox.faults.play(Script.model_validate({"faults": [fault]}))
        answer = await send(avstar, batch(*range(10), upload=Upload("multipart")))
        assert isinstance(answer, Booked)
        assert [rejection["index"] for rejection in answer.rejected] == [7]


# -- connections and timeouts


@asynccontextmanager
async def server(handler: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Peers:
    """Books everything, and remembers which connections it came over."""

    def __init__(self) -> None:
        self.ports: list[int] = []

    async def book(self, request: web.Request) -> web.Response:
        assert request.transport
        self.ports.append(request.transport.get_extra_info("peername")[1])
        return web.json_response({"accepted": 1, "duplicates": 0})


async def test_one_connection_serves_requests_one_after_the_other() -> None:
    peers = Peers()
    async with server(peers.book) as url, client(url) as avstar:
        for number in range(5):
            await send(avstar, batch(number))
    assert len(set(peers.ports)) == 1


async def test_an_idle_connection_is_not_kept_for_ever() -> None:
    peers = Peers()
    async with server(peers.book) as url, client(url, keepalive_s=0.05) as avstar:
        await send(avstar, batch(1))
        await asyncio.sleep(0.2)
        await send(avstar, batch(2))
    assert len(set(peers.ports)) == 2


async def test_silence_ends_a_request_before_its_time_is_up() -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with server(silent) as url, client(url, read_timeout_s=0.2, request_timeout_s=30) as avstar:
        answer = await send(avstar, batch(1))
    assert isinstance(answer, Unavailable)
    assert "imeout" in answer.why
    assert answer.latency_ms < 2000


# -- TLS


class Certificates(NamedTuple):
    authority: trustme.CA
    cafile: Path
    certfile: Path  #: of a client
    keyfile: Path

    def server_context(self, *, demand: bool = False, host: str = "localhost") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(host).configure_cert(context)
        if demand:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def certificates(folder: Path) -> Certificates:
    authority = trustme.CA()
    own = authority.issue_cert("client@spotstream.example")
    made = Certificates(authority, folder / "ca.pem", folder / "client.pem", folder / "client.key")
    authority.cert_pem.write_to_path(made.cafile)
    own.cert_chain_pems[0].write_to_path(made.certfile)
    own.private_key_pem.write_to_path(made.keyfile)
    return made


@pytest.fixture
def certs(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


async def test_an_authority_of_one_s_own_is_trusted_and_connections_are_kept(certs: Certificates) -> None:
    peers = Peers()
    async with (
        server(peers.book, certs.server_context()) as url,
        client(url, ssl_cafile=certs.cafile) as avstar,
    ):
        for number in range(3):
            assert isinstance(await send(avstar, batch(number)), Booked)
    assert len(set(peers.ports)) == 1


@pytest.mark.parametrize("trusted", ["the system's", "another"])
async def test_an_authority_that_is_not_trusted_is_named_as_the_reason(
    certs: Certificates, tmp_path: Path, trusted: str
) -> None:
    settings: dict[str, Any] = {}
    if trusted == "another":
        (tmp_path / "other").mkdir()
        settings = {"ssl_cafile": certificates(tmp_path / "other").cafile}
    peers = Peers()
    async with server(peers.book, certs.server_context()) as url, client(url, **settings) as avstar:
        answer = await send(avstar, batch(1))
    assert isinstance(answer, Unavailable)
    assert "certificate verify failed" in answer.why
    assert "demands" not in answer.why
    assert peers.ports == []


async def test_a_certificate_of_another_host_is_not_taken(certs: Certificates) -> None:
    context = certs.server_context(host="elsewhere.example")
    async with server(Peers().book, context) as url, client(url, ssl_cafile=certs.cafile) as avstar:
        answer = await send(avstar, batch(1))
    assert isinstance(answer, Unavailable)
    assert "not valid for 'localhost'" in answer.why or "Hostname mismatch" in answer.why


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_demands_a_certificate_gets_one(
    certs: Certificates, version: ssl.TLSVersion
) -> None:
    context = certs.server_context(demand=True)
    context.minimum_version = context.maximum_version = version
    async with server(Peers().book, context) as url:
        own = {"ssl_certfile": certs.certfile, "ssl_keyfile": certs.keyfile}
        async with client(url, ssl_cafile=certs.cafile, **own) as avstar:
            assert isinstance(await send(avstar, batch(1)), Booked)
        async with client(url, ssl_cafile=certs.cafile) as avstar:
            answer = await send(avstar, batch(1))
    assert isinstance(answer, Unavailable)
    # Its no may be overtaken by the end of the connection.
    assert re.search("alert|avstar.ssl_certfile", answer.why)


async def test_the_token_endpoint_is_reached_by_the_same_rules(certs: Certificates) -> None:
    async with running(Options()) as started:

        async def handler(request: web.Request) -> web.StreamResponse:
            sandbox: Sandbox = started.sandbox
            return await (sandbox._token if request.path == "/oauth/token" else sandbox._ingest)(request)

        async with server(handler, certs.server_context(demand=True)) as url:
            own = {"ssl_certfile": certs.certfile, "ssl_keyfile": certs.keyfile}
            async with client(url, ssl_cafile=certs.cafile, **own, **OAUTH) as avstar:
                assert "token" not in getattr(await send(avstar, batch(1)), "why", "")
            async with client(url, **OAUTH) as avstar:
                answer = await send(avstar, batch(1))
    assert isinstance(answer, NoToken)
    assert "certificate verify failed" in answer.why


@pytest.mark.parametrize("name", ["ssl_cafile", "ssl_certfile"])
@pytest.mark.parametrize("content", [None, "", "nonsense", "encrypted"])
async def test_files_that_cannot_be_used_are_usage_errors(
    certs: Certificates, tmp_path: Path, name: str, content: str | None
) -> None:
    file = tmp_path / "file.pem"
    if content == "encrypted":
        key = certs.keyfile.read_bytes()
        locked = form.load_pem_private_key(key, None).private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"x")
        )
        file.write_bytes(certs.certfile.read_bytes() * (name == "ssl_certfile") + locked)
    elif content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=rf"avstar\.{name}"):
        Avstar(AvstarSettings(**{name: file}), requests_at_once=1)


async def test_a_key_needs_its_certificate(certs: Certificates) -> None:
    with pytest.raises(UsageError, match=r"avstar\.ssl_certfile"):
        Avstar(AvstarSettings(ssl_keyfile=certs.keyfile), requests_at_once=1)


# -- proxies


class Proxy:
    """A small HTTP proxy: CONNECT and absolute addresses, with basic authentication if it has a password."""

    def __init__(self, password: str = "") -> None:
        self.password = password
        self.seen: list[str] = []  # first lines
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def expected(self) -> str:
        return "Basic " + b64encode(f"user:{self.password}".encode()).decode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.seen.append(first)
        if self.password and headers.get("proxy-authorization") != self.expected:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        method, target, _ = first.split(" ")
        if method == "CONNECT":
            host, port = target.rsplit(":", 1)
            there, back = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            authority, _, path = target.removeprefix("http://").partition("/")
            host, port = authority.rsplit(":", 1)
            there, back = await asyncio.open_connection(host, int(port))
            own = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if "proxy" not in name)
            back.write(f"{method} /{path} HTTP/1.1\r\n{own}\r\n".encode())
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def proxy(password: str = "") -> AsyncIterator[tuple[str, Proxy]]:
    made = Proxy(password)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", made
    finally:
        listening.close()


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("password", ["", "hush-hush"])
async def test_requests_go_through_the_proxy(certs: Certificates, tls: bool, password: str) -> None:
    context = certs.server_context() if tls else None
    who = {"proxy_username": "user", "proxy_password": SecretStr(password)} if password else {}
    async with (
        server(Peers().book, context) as url,
        proxy(password) as (address, made),
        client(url, ssl_cafile=certs.cafile, proxy=address, **who) as avstar,
    ):
        for number in range(3):
            assert isinstance(await send(avstar, batch(number)), Booked)
    first = made.seen[0]
    assert first.startswith("CONNECT localhost:" if tls else "POST http://localhost:")
    if tls:
        assert len(made.seen) == 1  # the tunnel is kept


async def test_a_proxy_that_wants_to_know_who_is_told_and_the_password_is_read_again(
    certs: Certificates, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("old-hush")
    who = {"proxy_username": "user", "proxy_password_file": file, "ssl_cafile": certs.cafile}
    async with (
        server(Peers().book, certs.server_context()) as url,
        proxy("new-hush!") as (address, made),
        client(url, proxy=address, **who) as avstar,
    ):
        answer = await send(avstar, batch(1))
        assert isinstance(answer, Unavailable)
        assert "407" in answer.why
        file.write_text("new-hush!")
        assert isinstance(await send(avstar, batch(1)), Booked)
    assert "hush" not in repr(answer)
    assert made.expected not in repr(answer)


async def test_the_token_comes_through_the_proxy_too() -> None:
    async with (
        running(Options()) as started,
        proxy() as (address, made),
        client(started.url, proxy=address, **OAUTH) as avstar,
    ):
        assert isinstance(await send(avstar, batch(1)), Booked)
    assert any("/oauth/token" in line for line in made.seen)
    assert any("/v2/ingest" in line for line in made.seen)


async def test_a_proxy_that_is_not_there_is_named_as_the_reason() -> None:
    async with proxy() as (address, _):
        pass
    async with server(Peers().book) as url, client(url, proxy=address) as avstar:
        answer = await send(avstar, batch(1))
    assert isinstance(answer, Unavailable)
    assert "Cannot connect" in answer.why
    assert "certificate" not in answer.why


@pytest.mark.parametrize("address", ["nonsense", "socks5://127.0.0.1:1", "http://me:hush@127.0.0.1:1"])
async def test_a_proxy_address_that_cannot_be_used_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match=r"avstar\.proxy") as caught:
        Avstar(AvstarSettings(proxy=address), requests_at_once=1)
    assert "hush" not in str(caught.value)
