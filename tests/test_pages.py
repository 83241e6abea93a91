"""The status page's server without a flow: what strangers send, and whom it asks itself. No broker."""

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from pydantic import SecretStr
from served import Served

from schemas.secret import Secret
from streams.settings import Settings
from streams.status import access, pages, peer
from streams.status.access import Access
from streams.status.role import OwnRole
from topics.transport import App

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


class _Role:
    """A role that owns nothing."""

    name, avstar = "validate", None

    def told(self) -> dict[str, Any]:
        return {"role": self.name, "state": "running", "partitions": [], "held": []}


class Pages(Served):
    """The pages of a role; a broker there is none."""

    def __init__(self, **worker: Any) -> None:
        self.tasks: list[Any] = []
        given = Settings.model_validate({"worker": worker | {"web_port": 0}})
        application = web.Application()
        self.web = SimpleNamespace(web_app=application)
        app = SimpleNamespace(web=self.web, task=self.tasks.append)
        role = cast("OwnRole", _Role())
        pages.serve(cast("App", app), given, role, Access(given.worker))
        super().__init__(application, self.web._runner)

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        found = answer.status, dict(answer.headers), answer.read()
        connection.close()
        return found


@pytest.fixture(scope="module")
def guarded() -> Iterator[Pages]:
    running = Pages(web_token=TOKEN)
    yield running
    running.close()


@pytest.fixture(scope="module")
def local() -> Iterator[Pages]:
    running = Pages()
    yield running
    running.close()


def _form(kind: str) -> dict[str, str]:
    return {"Content_Type": kind}


_URLENCODED, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


@pytest.mark.parametrize(
    ("status", "method", "path", "body", "headers"),
    [
        (401, "GET", "/status/view", b"", {"Cookie": "spotstream=" + "9" * 5000}),
        (401, "GET", "/status/view", b"", {"Cookie": "spotstream=" + "9" * 5000 + ".x"}),
        (401, "GET", "/status/view", b"", {"Cookie": "spotstream=1e9.x"}),
        (401, "GET", "/status/", b"", {"Cookie": "spotstream=\xff\xfe.x"}),
        (401, "POST", "/status/login", b"token=x", _form(f"{_URLENCODED}; charset=foo")),
        (401, "POST", "/status/login", b"token=+2AA-", _form(f"{_URLENCODED}; charset=utf-7")),
        (401, "POST", "/status/login", b"token=%ff%ed%a0%80", _form(_URLENCODED)),
        (400, "POST", "/status/login", b"token=\xff\xfe", _form(_URLENCODED)),
        (400, "POST", "/status/login", b"&".join([b"a=1"] * 1000), _form(_URLENCODED)),
        (413, "POST", "/status/login", b"token=" + b"x" * 1_100_000, _form(_URLENCODED)),
        (401, "POST", "/status/login", b"--b\r\nnothing", _form(f"{_MULTIPART}; boundary=b")),
        (401, "POST", "/status/login", b"token=x", _form(_MULTIPART)),
        (401, "POST", "/status/login", b"", {}),
        (404, "GET", "/status/%ff%00", b"", {"Authorization": f"Bearer {TOKEN}"}),
        (405, "PUT", "/status/view", b"", {"Authorization": f"Bearer {TOKEN}"}),
        (400, "GET", "/status/letters/list?start=x", b"", {"Authorization": f"Bearer {TOKEN}"}),
        (400, "GET", "/status/letters/list?older=%ff", b"", {"Authorization": f"Bearer {TOKEN}"}),
        (400, "GET", f"/status/letters/list?start={'9' * 5000}", b"", {"Authorization": f"Bearer {TOKEN}"}),
        (200, "GET", f"/status/letters/list?start={'9' * 30}", b"", {"Authorization": f"Bearer {TOKEN}"}),
        (200, "GET", "/status/letters/list?start=-9", b"", {"Authorization": f"Bearer {TOKEN}"}),
    ],
)
def test_whatever_is_asked_is_answered_with_all_headers(
    guarded: Pages,
    monkeypatch,
    status: int,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
) -> None:
    monkeypatch.setattr(access, "_WRONG_S", 0)
    found, told, _ = guarded.ask(method, path, body, **headers)
    assert found == status
    assert told["Content-Security-Policy"].startswith("default-src 'none'")


def test_who_has_the_token_gets_a_cookie_that_opens(guarded: Pages) -> None:
    status, told, _ = guarded.ask(
        "POST", "/status/login", b"token=a+token+of%20some+length", **_form(_URLENCODED)
    )
    assert status == 303
    assert guarded.ask("GET", "/status/view", Cookie=told["Set-Cookie"].partition(";")[0])[0] == 200


@pytest.mark.parametrize(
    "host",
    ["[::1", "[", "]", "a]b", "[v1.x]", "\xff", "evil.example", "℀.example".encode().decode("latin-1")],
)
def test_a_host_that_is_none_is_not_this_machine(local: Pages, host: str) -> None:
    status, told, _ = local.ask("GET", "/status/view", Host=host)
    assert status == 403
    assert told["X-Content-Type-Options"] == "nosniff"
    assert local.ask("GET", "/status/view", Host="[::1]:6066")[0] == 200


def test_what_fails_is_logged_and_answered_with_all_headers(local: Pages, monkeypatch, capsys) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a canary")

    monkeypatch.setattr(_Role, "told", fail)
    status, told, body = local.ask("GET", "/status/role")
    assert (status, told["X-Content-Type-Options"]) == (500, "nosniff")
    assert b"canary" not in body
    assert json.loads(body)["error"]
    assert "a canary" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "sent", [b"", b"GET /status/ HTTP/1.1\r\nHost: loc", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET"]
)
def test_who_asks_for_nothing_is_not_waited_for(monkeypatch, sent: bytes) -> None:
    """Each connection takes a descriptor, and a token is asked for only when a head is there."""
    monkeypatch.setattr(pages, "_IDLE_S", 0.5)
    running = Pages(web_token=TOKEN)
    address = running.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=10) as connection:
        connection.sendall(sent)
        while connection.recv(65_536):
            pass
    running.close()


def test_a_form_that_does_not_come_is_not_waited_for(monkeypatch, guarded: Pages) -> None:
    monkeypatch.setattr(pages, "_FORM_S", 0.2)
    assert guarded.ask("POST", "/status/login", b"token=", Content_Length="100")[0] == 400
