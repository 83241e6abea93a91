"""A sink for batches: an HTTP server in a process of its own that takes them and does nothing with them."""

import asyncio
import multiprocessing
import os
import time
from types import TracebackType
from typing import Self

import orjson
from aiohttp import web

from schemas.errors import Problem
from streams.lab.bench.children import pin
from streams.lab.service import answers, fetch, free_port

#: Records in each batch that is sent to it.
RECORDS = 5000

_START_S = 30.0


class Sink:
    """Books :data:`RECORDS` records whatever it is sent; a context manager, entered it is at ``url``."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(self._port,), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        deadline = time.monotonic() + _START_S
        while not answers(self.url):
            if time.monotonic() > deadline or not self._process.is_alive():
                raise Problem("the sink does not start", where=self.url)
            time.sleep(0.01)
        return self

    def taken(self) -> dict[str, float]:
        """When it had read each batch, in seconds since 1970, by idempotency key."""
        found: dict[str, float] = orjson.loads(fetch(f"{self.url}/taken", _START_S))
        return {key.strip('"'): at for key, at in found.items()}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()


def _serve(port: int) -> None:
    pin(os.getpid(), 0)
    asyncio.run(_take(port))


async def _take(port: int) -> None:
    taken: dict[str, float] = {}

    async def take(request: web.Request) -> web.Response:
        await request.read()
        if key := request.headers.get("Idempotency-Key"):
            taken[key] = time.time()
        return web.json_response({"accepted": RECORDS, "duplicates": 0})

    async def tell(_: web.Request) -> web.Response:
        return web.json_response(taken)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_get("/taken", tell)
    app.router.add_route("*", "/{path:.*}", take)
    # To inflate what it only throws away would be most of its work, and the limit of who is measured.
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()
