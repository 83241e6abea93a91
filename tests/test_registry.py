"""The registry's client: against the embedded registry, and against none."""

import copy
import json
import socket
import ssl
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError
from pydantic import SecretStr

from schemas.codec import Codec, schema, schema_id
from schemas.errors import Problem, Unreachable, UsageError
from schemas.records import KINDS
from schemas.registry import Registry, RegistrySettings
from streams.lab.registry import Registry as Embedded


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Embedded(tmp_path_factory.mktemp("registry")) as running:
        yield running.url


@pytest.mark.broker
def test_schemas_register_once_and_come_back_by_id(url: str) -> None:
    ids = {}
    for kind in KINDS:
        ids[kind] = Registry(RegistrySettings(url=url)).register(f"once.{kind}", schema(kind))
        assert Registry(RegistrySettings(url=url)).register(f"once.{kind}", schema(kind)) == ids[kind]
    assert len(set(ids.values())) == len(KINDS)
    for kind, number in ids.items():
        assert Registry(RegistrySettings(url=url)).schema(number) == schema(kind)
        assert schema_id(Codec(kind, number).frame) == number


@pytest.mark.broker
def test_workers_that_start_at_once_register_the_same(url: str) -> None:
    """Of those that make a new subject's rule at the same moment Apicurio refuses all but one."""
    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            topic, together = f"at-once-{number}", threading.Barrier(4)

            def register(topic: str = topic, together: threading.Barrier = together) -> int:
                registry = Registry(RegistrySettings(url=url))
                together.wait()
                return registry.register(topic, schema("spot"))

            found = [pool.submit(register) for _ in range(4)]
            assert len({one.result() for one in found}) == 1


@pytest.mark.broker
def test_a_schema_must_stay_compatible_in_both_directions(url: str) -> None:
    registry = Registry(RegistrySettings(url=url))
    first = registry.register("grown", schema("spot"))
    grown = copy.deepcopy(schema("spot"))
    grown["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
    assert registry.register("grown", grown) != first
    for break_it in (
        lambda fields: fields.pop(4),
        lambda fields: fields.append({"name": "new", "type": "string"}),
    ):
        broken = copy.deepcopy(grown)
        break_it(broken["fields"])
        with pytest.raises(
            Problem, match=r"version 1 of grown-value .* are incompatible: (spot_id|new): "
        ) as caught:
            registry.register("grown", broken)
        assert caught.value.exit_status == 1
        others = SchemaRegistryClient({"url": url})
        with pytest.raises(SchemaRegistryError, match="409"):
            others.register_schema("grown-value", Schema(json.dumps(broken), "AVRO"))


@pytest.mark.broker
def test_an_unknown_id_is_told(url: str) -> None:
    with pytest.raises(Problem, match="schema 987654 was refused"):
        Registry(RegistrySettings(url=url)).schema(987_654)


def test_a_registry_that_is_not_there_is_told_without_secrets() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = RegistrySettings(url=url, username="someone", password=SecretStr("hush"), timeout_s=1)
    with pytest.raises(Unreachable) as caught:
        Registry(settings).schema(1)
    assert f"{url}: no schema registry answers" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_registry_that_hangs_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="timed out"):
            Registry(RegistrySettings(url=address, timeout_s=0.3)).schema(1)


def test_an_address_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(UsageError, match=r"setting registry: Invalid url"):
        Registry(RegistrySettings(url="nonsense"))


class Gate(BaseHTTPRequestHandler):
    """Lets those through to the registry who have the password."""

    registry = ""
    basic = "Basic " + b64encode(b"reader:p4ss:word").decode()

    def do_GET(self) -> None:
        if self.headers["Authorization"] != self.basic:
            self._answer(401, json.dumps({"error_code": 401, "message": "Unauthorized"}).encode())
            return
        size = int(self.headers["Content-Length"] or 0)
        request = urllib.request.Request(
            self.registry + self.path,
            data=self.rfile.read(size) if size else None,
            method=self.command,
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                self._answer(answer.status, answer.read())
        except urllib.error.HTTPError as refused:
            self._answer(refused.code, refused.read())

    do_POST = do_PUT = do_GET  # noqa: N815 - the names are http.server's

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def gate(url: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A registry behind TLS and basic authentication: its address, and its authority's certificate."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    handler = type("Handler", (Gate,), {"registry": url})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}", tmp_path / "authority.pem"
        server.shutdown()


@pytest.mark.broker
def test_a_registry_behind_tls_and_a_password(gate: tuple[str, Path]) -> None:
    address, cafile = gate
    settings = RegistrySettings(
        url=address, cafile=cafile, username="reader", password=SecretStr("p4ss:word")
    )
    number = Registry(settings).register("behind", schema("spot"))
    assert Registry(settings).schema(number) == schema("spot")


@pytest.mark.broker
def test_a_password_that_is_wrong_and_a_certificate_that_is_not_known_are_told(
    gate: tuple[str, Path],
) -> None:
    address, cafile = gate
    wrong = RegistrySettings(url=address, cafile=cafile, username="reader", password=SecretStr("hush-hush"))
    with pytest.raises(Problem, match="schema 1 was refused: Unauthorized") as refused:
        Registry(wrong).schema(1)
    assert "hush" not in str(refused.value)
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        Registry(wrong.model_copy(update={"cafile": None})).schema(1)


def test_an_authority_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    settings = RegistrySettings(url="https://localhost", cafile=tmp_path / "none.pem")
    with pytest.raises(UsageError, match="setting registry"):
        Registry(settings)
