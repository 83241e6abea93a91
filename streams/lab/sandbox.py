"""The Avstar sandbox: the API of the real thing, on loopback if not told otherwise, with ledger and faults.

Authorization is ``Authorization: Bearer <API key or token>``, or ``X-API-Key: <API key>``. The paths under
``/sandbox`` are open. ``openapi.json`` beside this module is what ``GET /openapi.json`` answers.
"""

import asyncio
import gc
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from schemas.errors import UsageError
from schemas.letter import RecordRejection
from streams.lab import upload
from streams.lab.account import Account, Credentials
from streams.lab.faults import Fault, Faults, Script
from streams.lab.ledger import Booking, Ledger, Stored
from streams.lab.mishap import befall
from streams.lab.refusal import Refusal, json_response, refusals
from streams.lab.upload import Upload

_KEY = re.compile(r'"([\x21\x23-\x5b\x5d-\x7e]{1,255})"')  # a string of RFC 9651, without escapes
_ARRIVALS = 100_000  # the last ones; they do not survive a restart
_GOODBYE_S = 0.5  # for requests in flight when the sandbox ends


class Options(NamedTuple):
    """How a sandbox is set up. Port 0: any free one. Limits of 0 are none. No folder: nothing survives."""

    host: str = "127.0.0.1"
    port: int = 0
    data_dir: Path | None = None
    credentials: Credentials = Credentials()
    token_ttl_s: int = 3600
    requests_per_minute: int = 0
    requests_at_once: int = 0
    max_bytes: int = 67_108_864
    max_records: int = 20_000


@dataclass(slots=True)
class _Arrival:
    """When a request came (seconds since 1970), and its answer's status: 0 without one."""

    at: float
    status: int = 0


class Sandbox:
    """The request handlers and what they share."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.ledger = Ledger(options.data_dir)
        self.faults = Faults(time.monotonic)
        self._account = Account(
            options.credentials,
            time.monotonic,
            token_ttl_s=options.token_ttl_s,
            requests_per_minute=options.requests_per_minute,
            requests_at_once=options.requests_at_once,
        )
        self._in_flight: set[str] = set()
        self._arrivals: deque[_Arrival] = deque(maxlen=_ARRIVALS)

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[refusals])
        app.add_routes(
            [
                web.get("/openapi.json", _openapi),
                web.post("/oauth/token", self._token),
                web.post("/v2/ingest", self._ingest),
                web.get("/sandbox/ledger", self._totals),
                web.get("/sandbox/ledger/records", self._records),
                web.get("/sandbox/requests", self._requests),
                web.get("/sandbox/faults", self._show_faults),
                web.put("/sandbox/faults", self._put_faults),
                web.delete("/sandbox/faults", self._clear_faults),
            ]
        )
        return app

    async def _token(self, request: web.Request) -> web.StreamResponse:
        struck = self.faults.strike(request.path, "headers")
        if (spoilt := await befall(request, struck, {})) is not None:
            return spoilt
        try:
            form = await request.post()
        except (ValueError, HttpProcessingError) as error:
            raise Refusal(400, "invalid_request", f"not a form: {error}") from None
        token = self._account.token(form, request.headers.get("Authorization", ""))
        return json_response(200, token, {"Cache-Control": "no-store"})

    async def _ingest(self, request: web.Request) -> web.StreamResponse:
        arrival = _Arrival(time.time())
        self._arrivals.append(arrival)
        self.ledger.count_request()
        try:
            self._account.authorize(request.headers)
            with self._account.admitted():
                answer = await self._one_at_a_time(request)
        except Refusal as refusal:
            answer = refusal.response()
        if not answer.prepared:
            answer.headers.update(self._account.limit_headers())
        if request.transport is not None and not request.transport.is_closing():
            arrival.status = answer.status
        return answer

    async def _one_at_a_time(self, request: web.Request) -> web.StreamResponse:
        key = _idempotency_key(request.headers)
        if key in self._in_flight:
            raise Refusal(409, "in_flight", "a request under this key is in flight")
        self._in_flight.add(key)
        try:
            return await self._answer(request, key)
        finally:
            self._in_flight.discard(key)

    async def _answer(self, request: web.Request, key: str) -> web.StreamResponse:
        """Read, book, answer; a fault may strike at each of the three moments and end it there."""
        struck = self.faults.strike(request.path, "headers")
        if (spoilt := await befall(request, struck, {})) is not None:
            return spoilt
        limits = self._options
        batch = await upload.read(request, max_bytes=limits.max_bytes, max_records=limits.max_records)
        struck = self.faults.strike(request.path, "body", batch.records, batch.hashes)
        named = struck[-1].named(batch.records, batch.hashes) if struck else ()
        if (spoilt := await befall(request, struck, {}, named)) is not None:
            return spoilt
        stored = self._book(key, batch, struck)
        struck = self.faults.strike(request.path, "booked", batch.records, batch.hashes)
        if (spoilt := await befall(request, struck, stored.answer)) is not None:
            return spoilt
        return json_response(stored.status, stored.answer)

    def _book(self, key: str, batch: Upload, struck: Sequence[Fault]) -> Stored:
        kinds = {fault.kind for fault in struck}
        fingerprint = batch.fingerprint
        stored = self.ledger.result(key)
        if stored is not None and "no_dedupe" not in kinds:
            if stored.fingerprint != fingerprint:
                raise Refusal(422, "key_reused", "this key was used with other record hashes")
            return stored
        rejected = self._rejected(batch, struck)
        booking = Booking(key, fingerprint, batch.batch_id, batch.records, batch.hashes, rejected)
        try:
            return self.ledger.book(booking, dedupe=kinds.isdisjoint({"no_dedupe", "keys_only"}))
        except OSError as error:
            raise Refusal(503, "storage", f"nothing was booked: {error.strerror}") from None

    def _rejected(self, batch: Upload, struck: Sequence[Fault]) -> list[RecordRejection]:
        """Malformed records and those that a fault takes; what is booked already is a duplicate instead."""
        rejected = {rejection["index"]: rejection for rejection in batch.rejected}
        for fault in struck:
            if fault.kind != "reject":
                continue
            for rejection in fault.rejections(batch.records, batch.hashes, self.faults.script.seed):
                if not self.ledger.booked(batch.hashes[rejection["index"]]):
                    rejected.setdefault(rejection["index"], rejection)
        return [rejected[index] for index in sorted(rejected)]

    async def _totals(self, _: web.Request) -> web.Response:
        return json_response(200, self.ledger.totals())

    async def _records(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for piece in self.ledger.records():
            await response.write(piece)
        await response.write_eof()
        return response

    async def _requests(self, _: web.Request) -> web.Response:
        lines = (orjson.dumps(arrival, option=orjson.OPT_APPEND_NEWLINE) for arrival in self._arrivals)
        return web.Response(body=b"".join(lines), content_type="application/x-ndjson")

    async def _show_faults(self, _: web.Request) -> web.Response:
        return json_response(200, self.faults.report())

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            script = Script.model_validate_json(await request.read())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Refusal(400, "malformed", f"{where}: {first['msg']}") from None
        self.faults.play(script)
        return json_response(200, self.faults.report())

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.faults.play(Script())
        return web.Response(status=204)


async def _openapi(_: web.Request) -> web.Response:
    body = files("streams.lab").joinpath("openapi.json").read_bytes()
    return web.Response(body=body, content_type="application/json")


def _idempotency_key(headers: Mapping[str, str]) -> str:
    found = _KEY.fullmatch(headers.get("Idempotency-Key", "").strip())
    if not found:
        raise Refusal(400, "idempotency_key", 'send Idempotency-Key: "<hex>", in its quotes')
    return found[1]


class Running(NamedTuple):
    """A sandbox that answers at ``url``."""

    url: str
    sandbox: Sandbox


@asynccontextmanager
async def running(options: Options) -> AsyncIterator[Running]:
    """Run a sandbox on this event loop. ``UsageError`` when its port or its folder is taken."""
    sandbox = Sandbox(options)
    # The upload unpacks for itself, because it bounds what comes out.
    app = sandbox.application()
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=_GOODBYE_S)
    try:
        await runner.setup()
        site = web.TCPSite(runner, options.host, options.port)
        try:
            await site.start()
        except OSError:
            raise UsageError(
                "is taken, or not of this machine",
                where=f"port {options.port} of {options.host}",
                remedy="choose another --port or --host",
            ) from None
        host, port = runner.addresses[0][:2]
        yield Running(f"http://{host}:{port}", sandbox)
    finally:
        await runner.cleanup()
        sandbox.ledger.close()


def settings_lines(url: str) -> list[str]:
    """What the environment of a client needs to use the sandbox at ``url``."""
    return [
        f"SPOTSTREAM_AVSTAR__BASE_URL={url}",
        f"SPOTSTREAM_AVSTAR__API_KEY={Credentials().api_key}",
        f"SPOTSTREAM_AVSTAR__LEDGER_URL={url}/sandbox/ledger",
    ]


def command(port: int, data_dir: Path, *options: str) -> list[str]:
    """Of a child process that runs a sandbox; its address is the first line of its standard output."""
    where = ["--port", str(port), "--data-dir", str(data_dir)]
    return [sys.executable, "-m", "streams.cli", "sandbox", *where, *options]


def serve(options: Options) -> None:
    """Run a sandbox in the foreground until SIGTERM or SIGINT; its address is the first line on stdout."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)  # a batch is thousands of objects that soon go
    asyncio.run(_serve(options))


async def _serve(options: Options) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with running(options) as sandbox:
        print(sandbox.url, flush=True)
        await ended.wait()
