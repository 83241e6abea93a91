"""The doctor against services that are there, that are not, and that are there and wrong."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from flow import COMMAND, Flow
from test_canaries import CANARIES, USERS, Gossip, escaped, gossip  # noqa: F401 - a fixture

from schemas.codec import schema
from schemas.registry import Registry, RegistrySettings
from streams.lab.kafka import Broker
from topics import provision
from topics.catalogue import SPOTS, VALIDATED
from topics.connection import KafkaSettings

pytestmark = pytest.mark.broker

NOBODY = "127.0.0.1:9"


class Examined:
    """What the doctor said: exit status, and of each check the verdicts."""

    def __init__(self, flow: Flow, *arguments: str, **given: Any) -> None:
        began = time.monotonic()
        done = subprocess.run(
            [*COMMAND, "doctor", "--json", *arguments], env=flow.environment(**given), cwd=flow.folder,
            timeout=60, capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.took_s = time.monotonic() - began
        self.text, self.status = done.stdout + done.stderr, done.returncode
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        assert found["status"] == self.status
        self.checks = found["checks"]

    def of(self, check: str) -> dict[str, str]:
        """Status and text of a check's verdicts, all in one."""
        found = [one for one in self.checks if one["check"] == check]
        return {one["status"]: f"{one['what']}; {one['remedy']}" for one in found}


@pytest.fixture
def registered(flow: Flow) -> Flow:
    """The lab, with the schemas that a worker registers."""
    registry = Registry(RegistrySettings(url=flow.lab.registry.url))
    for kind, topic in VALIDATED.items():
        registry.register(topic.name, schema(kind))
    return flow


def test_all_is_well(registered: Flow) -> None:
    found = Examined(registered)
    assert found.status == 0
    assert {one["status"] for one in found.checks} == {"ok"}, found.checks
    assert {"settings", "kafka", "topics", "registry", "avstar", "files"} <= {
        one["check"] for one in found.checks
    }
    assert found.of("avstar")["ok"] == "credentials: an API key; "


def test_a_line_for_each_check(registered: Flow) -> None:
    done = subprocess.run(
        [*COMMAND, "doctor"],
        env=registered.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) >= 6
    assert {line[:6] for line in lines} == {"ok    "}


@pytest.mark.parametrize(
    ("check", "given"),
    [
        ("kafka", {"KAFKA__BOOTSTRAP_SERVERS": NOBODY}),
        ("registry", {"REGISTRY__URL": f"http://{NOBODY}"}),
        ("avstar", {"AVSTAR__BASE_URL": f"http://{NOBODY}"}),
    ],
)
def test_a_service_that_is_not_there_is_named_beside_those_that_are(
    registered: Flow, check: str, given: dict[str, str]
) -> None:
    found = Examined(registered, "--timeout", "5", **given)
    assert found.status == 3
    assert NOBODY in found.of(check)["fail"]
    well = {"kafka", "registry"} - {check}
    assert all(set(found.of(one)) == {"ok"} for one in well)


def test_services_that_hang_cost_no_more_than_their_time(flow: Flow) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        at = f"127.0.0.1:{mute.getsockname()[1]}"
        found = Examined(
            flow, "--timeout", "3",
            KAFKA__BOOTSTRAP_SERVERS=at, REGISTRY__URL=f"http://{at}", AVSTAR__BASE_URL=f"http://{at}",
        )  # fmt: skip
    assert found.took_s < 3 + 4, "the interpreter's start and end included"
    assert found.status == 3
    assert {one["check"] for one in found.checks if one["unreachable"]} >= {"kafka", "registry", "avstar"}


def test_settings_that_are_wrong(flow: Flow) -> None:
    found = Examined(flow, AVSTAR__API_KEY_FILE="gone")
    assert found.status == 1
    assert "avstar.api_key_file" in found.of("settings")["fail"]
    status, said = flow.run("doctor", BATCH__RECORDS=7)
    assert (status, "batch.records" in said) == (2, True)


def test_the_token_endpoint_is_asked(registered: Flow) -> None:
    requests = registered.totals()["requests"]
    given = {"AVSTAR__OAUTH_CLIENT_ID": "sandbox", "AVSTAR__OAUTH_CLIENT_SECRET": "canary-wrong"}
    found = Examined(registered, **given)
    assert found.status == 1
    assert "/oauth/token: 401" in found.of("avstar")["fail"]
    assert "canary-wrong" not in found.text
    right = Examined(registered, **given | {"AVSTAR__OAUTH_CLIENT_SECRET": "sandbox-secret"})
    assert (right.status, "fail" in right.of("avstar")) == (0, False), right.checks
    assert "a token from" in right.of("avstar")["ok"]
    assert registered.totals()["requests"] == requests, "no data was sent"
    away = Examined(registered, **given | {"AVSTAR__OAUTH_TOKEN_URL": f"http://{NOBODY}/token"})
    assert (away.status, NOBODY in away.of("avstar")["fail"]) == (3, True)
    (fail,) = [one for one in away.checks if one["status"] == "fail"]
    assert fail["unreachable"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker without our topics."""
    with Broker(tmp_path_factory.mktemp("bare")) as running:
        yield running


def test_topics_that_are_missing_or_not_as_declared(flow: Flow, bare: Broker) -> None:
    found = Examined(flow, KAFKA__BOOTSTRAP_SERVERS=bare.bootstrap)
    assert found.status == 1
    assert "topics apply" in found.of("topics")["fail"]
    kafka = KafkaSettings(bootstrap_servers=bare.bootstrap)
    admin = AdminClient(kafka.confluent())
    admin.create_topics([NewTopic(SPOTS.name, 3, 1)])[SPOTS.name].result(15)
    provision.apply(kafka)
    found = Examined(flow, KAFKA__BOOTSTRAP_SERVERS=bare.bootstrap, KAFKA__REPLICATION_FACTOR=3)
    assert found.status == 0, found.checks
    told = " ".join(one["what"] for one in found.checks if one["status"] == "warn")
    assert f"! {SPOTS.name}: partitions 3 -> 8" in told
    assert f"{SPOTS.name} has 1 replicas, kafka.replication_factor is 3" in told


def test_schemas_that_are_missing_or_incompatible(flow: Flow, tmp_path: Path) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    from streams.lab.registry import Registry as Embedded

    with Embedded(tmp_path / "registry") as fresh:
        found = Examined(flow, REGISTRY__URL=fresh.url)
        assert (found.status, SPOTS.name in found.of("registry")["warn"]) == (0, True)
        other = '{"type": "record", "name": "Spot", "fields": [{"name": "x", "type": "string"}]}'
        SchemaRegistryClient({"url": fresh.url}).register_schema(f"{SPOTS.name}-value", Schema(other, "AVRO"))
        found = Examined(flow, REGISTRY__URL=fresh.url)
        assert (found.status, f"{SPOTS.name}-value" in found.of("registry")["fail"]) == (1, True)


class _Yesterday(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response_only(404)
        self.send_header("Date", self.date_time_string(time.time() - 90))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_clock_that_is_wrong(registered: Flow) -> None:
    with HTTPServer(("127.0.0.1", 0), _Yesterday) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = Examined(registered, AVSTAR__BASE_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert found.status == 0
    assert "our clock is 9" in found.of("clock")["warn"]
    assert "ahead of Avstar's" in found.of("clock")["warn"]


def test_files_that_are_to_be_tailed(registered: Flow) -> None:
    (registered.folder / "log.csv").write_text("x\n")
    assert str(registered.folder) in Examined(registered, "log.csv").of("files")["ok"]
    found = Examined(registered, "gone.csv")
    assert (found.status, "gone.csv" in found.of("files")["fail"]) == (1, True)
    assert "tail.watch" in Examined(registered, TAIL__WATCH="poll").of("files")["ok"]


def test_the_doctor_tells_no_secret(flow: Flow, gossip: Gossip) -> None:  # noqa: F811
    given: dict[str, Any] = CANARIES | USERS | {
        "AVSTAR__OAUTH_CLIENT_ID": "flow-client", "AVSTAR__PROXY": gossip.url, "REGISTRY__URL": gossip.url,
        "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT", "AVSTAR__BASE_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    found = Examined(flow, "--timeout", "5", **given)
    assert found.status == 3
    assert any("/oauth/token" in line for line in gossip.asked)
    assert escaped(found.text) == []
    assert "***" in found.text
