"""A web application on a thread of its own, for what other processes ask while a test waits."""

import asyncio
import threading

from aiohttp import web


class Served:
    """Serves ``app`` at ``url`` until it is closed."""

    def __init__(self, app: web.Application, runner: web.AppRunner | None = None) -> None:
        self._runner = runner or web.AppRunner(app, access_log=None)
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._runner.setup())
        self._loop.run_until_complete(web.TCPSite(self._runner, "127.0.0.1", 0).start())
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
