"""No secret comes out: canaries in every secret setting, a flow that fails in every way, and a search."""

import json
import re
import signal
import subprocess
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from confluent_kafka.admin import AdminClient
from flow import COMMAND, Flow, until
from pydantic import SecretStr
from served import Served

from streams import settings
from streams.lab.service import free_port
from topics.catalogue import CATALOGUE
from topics.reader import read_all

pytestmark = pytest.mark.broker

CANARIES = {
    "AVSTAR__API_KEY": "canary-api-key",
    "AVSTAR__OAUTH_CLIENT_SECRET": "canary-client-secret",
    "AVSTAR__PROXY_PASSWORD": "canary-proxy-password",
    "KAFKA__OAUTH_CLIENT_SECRET": "canary-kafka-client-secret",
    "KAFKA__SASL_PASSWORD": "canary-sasl-password",
    "REGISTRY__PASSWORD": "canary-registry-password",
    "WORKER__WEB_TOKEN": "canary-web-token",
}
USERS = {
    "AVSTAR__PROXY_USERNAME": "proxy-user",
    "KAFKA__SASL_USERNAME": "kafka-user",
    "REGISTRY__USERNAME": "registry-user",
}
OAUTH = {
    "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA__SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA__OAUTH_CLIENT_ID": "me",
}  # fmt: skip
TOKEN = "canary-token-of-the-flow"
BASIC = [
    b64encode(f"{user}:{secret}".encode()).decode()
    for user, secret in (
        ("flow-client", CANARIES["AVSTAR__OAUTH_CLIENT_SECRET"]),
        ("proxy-user", CANARIES["AVSTAR__PROXY_PASSWORD"]),
        ("registry-user", CANARIES["REGISTRY__PASSWORD"]),
        ("me", CANARIES["KAFKA__OAUTH_CLIENT_SECRET"]),
    )
]


def escaped(text: str) -> list[str]:
    """The secrets that are in ``text``."""
    return [secret for secret in (*CANARIES.values(), TOKEN, *BASIC) if secret in text]


class Gossip(Served):
    """Proxy, token endpoint, API and registry in one; they fail in turn and quote all that they were told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(self._application())

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/oauth/token", self._token)
        app.router.add_post("/v2/ingest", self._ingest)
        app.router.add_route("*", "/{any:.*}", self._refuse)
        return app

    async def _told(self, request: web.Request) -> str:
        told = json.dumps(dict(request.headers)) + (
            await request.text() if request.path == "/oauth/token" else ""
        )
        self.asked.append(f"{request.path} {told}")
        return told

    def _times(self, path: str) -> int:
        return sum(line.startswith(f"{path} ") for line in self.asked)

    async def _token(self, request: web.Request) -> web.Response:
        told = await self._told(request)
        if self._times("/oauth/token") <= 3:
            body = {"error": "invalid_client", "error_description": told}
            return web.json_response(body, status=401, headers={"X-Told": told})
        return web.json_response({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})

    async def _ingest(self, request: web.Request) -> web.Response:
        records = len(orjson.loads(await request.read())["records"])
        told = await self._told(request)
        turn = self._times("/v2/ingest")
        headers = {"X-Told": told, "Set-Cookie": told}
        fault = {"index": 0, "code": "told", "message": told}
        if status := {1: 500, 2: 401, 3: 401, 4: 403, 5: 503, 6: 404, 7: 422}.get(turn):
            error = {"code": "told", "message": told, "error": "told"}
            named = {"rejected": [fault]} if status == 422 else {}
            return web.json_response(error | named, status=status, headers=headers)
        body = {"accepted": records - 1, "duplicates": 0, "rejected": [fault]}
        return web.json_response(body, status=207, headers=headers)

    async def _refuse(self, request: web.Request) -> web.Response:
        told = await self._told(request)
        return web.json_response({"error_code": 40101, "message": told}, status=401)


@pytest.fixture
def gossip() -> Iterator[Gossip]:
    made = Gossip()
    yield made
    made.close()


def everything_on_topics(flow: Flow) -> str:
    """Keys, values and headers of all messages."""
    there = AdminClient(flow.kafka.confluent()).list_topics(timeout=15).topics
    return "\n".join(
        repr((message.key(), message.value(), message.headers()))
        for topic in CATALOGUE
        if topic.name in there
        for message in read_all(flow.kafka, topic.name)
    )


def run(flow: Flow, *arguments: str, **given: Any) -> str:
    """All that a command says, whatever becomes of it."""
    done = subprocess.run(
        [*COMMAND, *arguments], env=flow.environment(**given), cwd=flow.folder, timeout=90,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def rejected_by_avstar(flow: Flow) -> int:
    return sum(letter.stage == "dispatch" for _, letter, _ in flow.letters())


@pytest.mark.parametrize("way", ["oauth", "key"])
def test_a_flow_that_fails_in_every_way_tells_no_secret(flow: Flow, gossip: Gossip, way: str) -> None:
    port = free_port()
    given: dict[str, Any] = CANARIES | USERS | {
        "AVSTAR__BASE_URL": "http://127.0.0.1:9",
        "AVSTAR__PROXY": gossip.url,
        "LOG__LEVEL": "debug", "LOG__FORMAT": "json",
        "BATCH__SECONDS": 0.2, "DISPATCH__BACKOFF_BASE_S": 0.01, "DISPATCH__BACKOFF_CAP_S": 0.1,
        "WORKER__WEB_PORT": port,
    }  # fmt: skip
    if way == "oauth":
        given["AVSTAR__OAUTH_CLIENT_ID"] = "flow-client"
    worker = flow.start("--debug", "worker", **given)
    before = rejected_by_avstar(flow)
    flow.tail(flow.log(400, seed=91 + (way == "key")))
    until(lambda: rejected_by_avstar(flow) > before, 60)
    flow.settle()
    allowed = {"Authorization": f"Bearer {CANARIES['WORKER__WEB_TOKEN']}"}
    pages = "".join(
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{at}{page}", headers=allowed), timeout=10
        )
        .read()
        .decode()
        for at in (port, port + 1)
        for page in ("/status/view", "/status/role", "/status/letters/list", "/metrics")
    )
    worker.end(signal.SIGTERM)
    ages = re.findall(r"^spotstream_token_age_seconds (\S+)$", pages, re.MULTILINE)
    assert any(0 <= float(age) < 120 for age in ages) == (way == "oauth")
    told = "\n".join(gossip.asked)
    sent = TOKEN if way == "oauth" else CANARIES["AVSTAR__API_KEY"]
    assert sent in told  # the canaries were where they might come out
    assert CANARIES["AVSTAR__PROXY_PASSWORD"] in told or BASIC[1] in told
    assert way == "key" or BASIC[0] in told
    topics = everything_on_topics(flow)
    assert "***" in topics
    letters = run(flow, "dlq", "list", "--json", **given)
    shown = "".join(
        run(flow, "dlq", "show", json.loads(line)["key"], **given) for line in letters.splitlines()[:5]
    )
    for where, text in (("log", worker.said), ("topics", topics), ("pages", pages), ("dlq", letters + shown)):
        assert text
        assert escaped(text) == [], where


def test_errors_of_commands_tell_no_secret(flow: Flow, gossip: Gossip) -> None:
    given: dict[str, Any] = CANARIES | USERS | {"LOG__LEVEL": "debug", "KAFKA__TIMEOUT_S": 3}
    said = [
        run(flow, "--debug", *command, **given | settings)  # the traceback ends with the error itself
        for command, settings in (
            (("topics", "plan"), {"KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT"}),
            (("topics", "plan"), OAUTH | {"KAFKA__OAUTH_TOKEN_URL": f"{gossip.url}/oauth/token"}),
            (("topics", "plan"), OAUTH | {"KAFKA__OAUTH_TOKEN_URL": "http://me:canary-api-key@127.0.0.1/"}),
            (("worker", "--role", "validate"), {"REGISTRY__URL": gossip.url}),
            (("worker", "--role", "validate"), {"REGISTRY__URL": "http://127.0.0.1:9"}),
            (("worker", "--role", "dispatch"), {"AVSTAR__BASE_URL": "http://avstar.example"}),
            (("worker", "--role", "dispatch"), {"AVSTAR__API_KEY": "canary-api-key\nof two lines"}),
            (("topics", "plan"), {"AVSTAR__API_KEYS": "canary-api-key"}),
            (("topics", "plan"), {"KAFKA__SASL_PASSWORD": "canary-sasl-password", "KAFKA__TIMEOUT_S": "x"}),
        )
    ]
    assert [any(basic in line for line in gossip.asked) for basic in BASIC[2:]] == [True, True]
    for text in said:
        assert text
        assert escaped(text) == [], text


def test_settings_tell_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in CANARIES.items():
        monkeypatch.setenv(f"SPOTSTREAM_{name}", value)
    loaded = settings.load()
    found = [value for _, section in loaded for _, value in section if isinstance(value, SecretStr) and value]
    assert {value.get_secret_value() for value in found} == set(CANARIES.values())  # every one has a canary
    for text in (repr(loaded), str(loaded), loaded.model_dump_json(), repr(loaded.model_dump())):
        assert escaped(text) == []


def test_every_secret_setting_has_a_canary() -> None:
    secret = {
        f"{section}__{name}".upper()
        for section, field in settings.Settings.model_fields.items()
        for name, inner in getattr(field.annotation, "model_fields", {}).items()
        if inner.annotation is SecretStr
    }
    assert secret == set(CANARIES)
