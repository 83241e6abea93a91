"""OAuth2 against a server that others wrote: npm's ``oauth2-mock-server``, fetched once into the cache."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from batches import batch, send
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import SecretStr

from streams.dispatch.answer import Answer, Booked, NoToken
from streams.dispatch.avstar import Avstar
from streams.lab.jars import cache_dir
from streams.settings import AvstarSettings

SOURCE = Path(__file__).parent / "oauth2"


def installed() -> Path:
    """The folder of the installed server; locked by hash, so that it is fetched once for each lock."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("the OAuth2 server of others needs node and npm, and they are not on this machine")
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = cache_dir() / "oauth2" / sha256(lock).hexdigest()[:16]
    for file in SOURCE.iterdir():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        fetched = subprocess.run(install, cwd=folder, check=False, capture_output=True, timeout=120)
        assert fetched.returncode == 0, fetched.stderr.decode()
    return folder


class Server:
    """The server as a child process, and what it was asked."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        assert process.stdout
        self.url, self._log = process.stdout.readline().strip(), log

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder, log = installed(), tmp_path_factory.mktemp("oauth2") / "log"
    with log.open("a") as stderr, subprocess.Popen(
        ["node", "server.mjs"],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
    ) as child:  # fmt: skip
        try:
            yield Server(child, log), log
        finally:
            child.terminate()


@pytest.fixture
def server(process: tuple[Server, Path]) -> Server:
    started, log = process
    assert started.url.startswith("http://127.0.0.1:"), log.read_text()
    with log.open("w"):
        pass  # what earlier tests asked is not this one's
    return started


@asynccontextmanager
async def avstar(server: Server, **settings: Any) -> AsyncIterator[tuple[Avstar, list[str]]]:
    """A client, and the tokens that came to an API that takes only those which the server signed."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/jwks") as answer:
        keys = KeySet.import_key_set(await answer.json())
    tokens: list[str] = []

    async def ingest(request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, keys, algorithms=["RS256"]).claims
        except JoseError:
            return web.json_response({"code": "invalid_token"}, status=401)
        assert claims["iss"] == server.url.replace("127.0.0.1", "localhost")
        tokens.append(token)
        return web.json_response({"accepted": 1, "duplicates": 0})

    app = web.Application()
    app.router.add_post("/v2/ingest", ingest)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    section = AvstarSettings(
        base_url=f"http://127.0.0.1:{runner.addresses[0][1]}",
        oauth_token_url=f"{server.url}/token",
        oauth_client_id="spotstream",
        oauth_client_secret=SecretStr("s3cret"),
        **settings,
    )
    try:
        async with aclosing(Avstar(section, requests_at_once=50)) as client:
            yield client, tokens
    finally:
        await runner.cleanup()


async def send_all(client: Avstar, count: int) -> list[Answer]:
    return await asyncio.gather(*(send(client, batch(number)) for number in range(count)))


@pytest.mark.parametrize("way", ["basic", "post"])
async def test_a_token_that_it_signed_opens_the_api_for_fifty_at_once(server: Server, way: str) -> None:
    async with avstar(server, oauth_client_auth=way, oauth_scope="ingest") as (client, tokens):
        answers = await send_all(client, 50)
    assert all(isinstance(answer, Booked) for answer in answers)
    assert len(tokens) == 50
    assert len(set(tokens)) == 1
    (asked,) = server.asked()
    assert asked["body"]["grant_type"] == "client_credentials"
    assert asked["scope"] == "ingest"
    if way == "basic":
        assert asked["authorization"] == "Basic " + "c3BvdHN0cmVhbTpzM2NyZXQ="
        assert "client_secret" not in asked["body"]
    else:
        assert (asked["body"]["client_id"], asked["body"]["client_secret"]) == ("spotstream", "s3cret")
        assert "authorization" not in asked


async def test_a_token_that_lives_a_second_is_followed_by_others(server: Server) -> None:
    async with avstar(server, oauth_scope="short") as (client, tokens):
        for _ in range(5):
            assert all(isinstance(answer, Booked) for answer in await send_all(client, 3))
            await asyncio.sleep(0.5)
    assert 2 <= len(server.asked()) <= 5
    assert len(tokens) == 15


@pytest.mark.parametrize(("scope", "why"), [("refused", "401 invalid_client"), ("down", "503")])
async def test_what_it_refuses_is_no_token(server: Server, scope: str, why: str) -> None:
    async with avstar(server, oauth_scope=scope) as (client, tokens):
        answers = await send_all(client, 10)
    assert all(isinstance(answer, NoToken) and why in answer.why for answer in answers)
    assert tokens == []
    assert len(server.asked()) == 1
