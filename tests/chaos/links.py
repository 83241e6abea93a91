"""TCP links that can be slow, stalled or cut: a proxy in front of each service, in one thread."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from streams.lab.service import free_port

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: what is closed is reset
_PIECE = 65_536


class Link:
    """Forwards what comes to ``port`` to the port ``target``, unless told otherwise."""

    def __init__(self) -> None:
        self.port, self.target = free_port(), 0
        self.latency_s = 0.0
        self.cut = False
        self.flows, self.answers = asyncio.Event(), asyncio.Event()
        self.flows.set()
        self.answers.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._silent = asyncio.Event()  # one for all connections that are open now

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client until either end closes."""
        self._ends.add(writer)
        silent = self._silent
        try:
            if self.cut:
                return self._reset(writer)
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._ends.add(back)
            try:
                forth = self._pump(reader, back, silent, self.flows)
                await asyncio.gather(forth, self._pump(there, writer, silent, self.flows, self.answers))
            finally:
                self._drop(back)
        except OSError:
            self._reset(writer)
        finally:
            self._drop(writer)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        silent: asyncio.Event,
        *gates: asyncio.Event,
    ) -> None:
        while data := await reader.read(_PIECE):
            if silent.is_set():
                continue
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            for opened in gates:  # what was on its way arrives late, as on a real network
                await opened.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def silence_all(self) -> None:
        """Leave every connection open for ever, and let nothing through; new ones are as usual."""
        self._silent.set()
        self._silent = asyncio.Event()

    def reset_all(self) -> None:
        """Reset every connection."""
        for writer in list(self._ends):
            self._reset(writer)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, AttributeError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._ends.discard(writer)
        writer.close()


class Links:
    """All links by name, on an event loop in a thread of its own; a context manager."""

    def __init__(self, *names: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # what is reset complains
        self._links = {name: Link() for name in names}
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for link in self._links.values():
            self._run(asyncio.start_server(link.connected, "127.0.0.1", link.port))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def port(self, name: str) -> int:
        """Where clients connect."""
        return self._links[name].port

    def lead(self, name: str, port: int) -> None:
        """Tell where a link goes to."""
        self._links[name].target = port

    def hold_answers(self, name: str, *, held: bool) -> None:
        """Hear what clients say, and let nothing back."""
        answers = self._links[name].answers
        self._loop.call_soon_threadsafe(answers.clear if held else answers.set)

    def slow(self, name: str, latency_s: float) -> None:
        """Hold each piece of data for this long; 0: as usual."""
        self._links[name].latency_s = latency_s

    def stall(self, name: str, *, stalled: bool) -> None:
        """Forward nothing more, keep connections open and take new ones; or go on with what was held."""
        flows = self._links[name].flows
        self._loop.call_soon_threadsafe(flows.clear if stalled else flows.set)

    def silence(self, name: str) -> None:
        """Make every connection half-open, as when a machine on the way is gone; new ones are as usual."""
        self._loop.call_soon_threadsafe(self._links[name].silence_all)

    def cut(self, name: str, *, cut: bool) -> None:
        """Reset all connections and each new one; or be there again."""
        link = self._links[name]
        link.cut = cut
        if cut:
            self._loop.call_soon_threadsafe(link.reset_all)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
