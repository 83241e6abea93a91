"""The status page's server without a flow: what strangers send, and whom it asks itself. No broker."""

import socket
import threading

import pytest
from aiohttp import web
from pydantic import SecretStr
from served import Served

from schemas.secret import Secret
from streams.status import peer

TOKEN = "a token of some length"


def other(*routes: web.AbstractRouteDef) -> Served:
    """A server of somebody else's."""
    application = web.Application()
    application.add_routes(routes)
    return Served(application)


def test_the_token_is_not_carried_to_another_server() -> None:
    told = []

    async def elsewhere(request: web.Request) -> web.Response:
        told.append(request.headers.get("Authorization"))
        return web.json_response({"role": "dispatch"})

    there = other(web.get("/status/role", elsewhere))

    async def away(_: web.Request) -> web.Response:
        raise web.HTTPFound(there.url + "/status/role")

    here = other(web.get("/status/role", away))
    token = Secret(SecretStr(TOKEN), None, "worker.web_token")
    assert peer.ask(there.url + "/", token) == {"role": "dispatch"}
    assert peer.ask(here.url + "/", token) is None
    assert told == [f"Bearer {TOKEN}"]
    here.close()
    there.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n7x",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200,
        b"",
    ],
)
def test_whoever_answers_otherwise_is_no_role(raw: bytes) -> None:
    """An exception would end the task that asks, and the page keep what it had."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(65_536)
                connection.sendall(raw)

        threading.Thread(target=answer, daemon=True).start()
        assert peer.ask(f"http://127.0.0.1:{server.getsockname()[1]}/", None) is None
