"""A proxy that the environment names: whatever it is for, requests of ours do not go through it."""

import json
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from schemas.registry import Registry, RegistrySettings
from streams.lab.gauge import Gauge
from streams.lab.service import answers
from streams.settings import Settings


class Service(ThreadingHTTPServer):
    """Answers every GET with what a registry and a role say."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []  #: what was asked for, and with which proof

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        body = json.dumps({"schema": '"string"', "partitions": [0]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def serving() -> Iterator[Service]:
    with Service() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


service, other = pytest.fixture(serving, name="service"), pytest.fixture(serving, name="other")


@pytest.fixture(name="proxy")
def named_by_the_environment(other: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, other.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # which remembers the environment
    return other


def test_the_registry_s_password_is_the_registry_s_alone(service: Service, proxy: Service) -> None:
    given = {"url": service.url, "username": "me", "password": SecretStr("hush")}
    assert Registry(RegistrySettings(**given)).schema(7) == "string"
    basic = f"Basic {b64encode(b'me:hush').decode()}"
    assert {proof for _, proof in service.asked} == {basic}
    assert proxy.asked == []


def test_the_lab_finds_its_services(service: Service, proxy: Service) -> None:
    assert answers(service.url)
    assert Gauge(Settings(), {"validate": f"{service.url}/status/"}).ready()
    assert [path for path, _ in service.asked] == ["/", "/status/role"]
    assert proxy.asked == []
