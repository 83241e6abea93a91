"""A sink for batches: an HTTP server in a process of its own that takes them and does nothing with them."""

import multiprocessing
import time
from types import TracebackType
from typing import Self

import psutil
from aiohttp import web

from schemas.errors import Problem
from streams.lab.service import answers, free_port

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()


def pin(pid: int, core: int) -> None:
    """To one core, counted as Python counts: -1 is the last. Whoever is measured has the last one."""
    if hasattr(psutil.Process, "cpu_affinity"):
        psutil.Process(pid).cpu_affinity([range(psutil.cpu_count() or 1)[core]])


def _serve(port: int) -> None:
    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"accepted": RECORDS, "duplicates": 0})

    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", take)
    pin(multiprocessing.current_process().pid or 0, 0)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)
