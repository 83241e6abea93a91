"""The Avstar client: one pooled session, one attempt a call, every way it can end a value."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO

import aiohttp
from yarl import URL

from schemas.errors import UsageError
from schemas.letter import Exchange
from streams.answer import Answer, Unavailable, classify
from streams.authorization import ApiKey, Authorizer
from streams.settings import AvstarSettings

_ANSWER_BYTES = 16_777_216  # 10,000 rejections of 1.6 kB each
_BODY_CHARACTERS = 4096  # of an answer, kept for people
_KEEPALIVE_S = 60.0
_HIDDEN = "***"
_SECRET_HEADERS = frozenset({"set-cookie", "www-authenticate", "proxy-authenticate"})


class Avstar:
    """Sends batches to Avstar over one pool of connections. Belongs to the event loop that makes it."""

    def __init__(
        self, settings: AvstarSettings, *, requests_at_once: int, authorizer: Authorizer | None = None
    ) -> None:
        """``authorizer``: the settings' API key, unless another is given.

        Raises ``UsageError`` when the base address or the API key cannot be one.
        """
        self._url = _endpoint(settings.base_url)
        self._authorizer = authorizer or ApiKey(settings.api_key, settings.api_key_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=requests_at_once, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(
                total=settings.request_timeout_s,
                connect=settings.connect_timeout_s,
                sock_connect=settings.connect_timeout_s,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails."""
        await self._session.close()

    async def send(self, key: str, body: bytes, headers: Mapping[str, str], records: int) -> Answer:
        """One attempt to book ``body``, as it is, under ``key``; ``headers`` say what it is.

        Never raises for what the network or Avstar does. Cancelled, it hangs up.
        """
        secret = await self._authorizer.headers()
        sent = {"Idempotency-Key": f'"{key}"', "Accept": "application/json", **headers}
        exchange = Exchange(
            method="POST",
            url=str(self._url),
            request_headers=sent | dict.fromkeys(secret, _HIDDEN),
        )
        started = time.monotonic()
        try:
            async with self._session.post(
                self._url, data=BytesIO(body), headers=sent | secret, allow_redirects=False
            ) as response:
                answer = await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = _why(error)
            exchange["error"] = why
            return Unavailable(exchange, _since_ms(started), why)
        exchange["status"] = response.status
        exchange["response_headers"] = _shown_headers(response.headers)
        exchange["response_body"] = _shown_body(answer or b"", secret)
        latency_ms = _since_ms(started)
        if answer is None:
            return Unavailable(
                exchange, latency_ms, f"{response.status} with more than {_ANSWER_BYTES} bytes"
            )
        return classify(
            response.status,
            response.headers,
            answer,
            records=records,
            exchange=exchange,
            latency_ms=latency_ms,
            at=datetime.now(UTC),
        )


def _endpoint(base_url: str) -> URL:
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise UsageError("not the address of an HTTP API", where="setting avstar.base_url")
    if url.user or url.password:
        raise UsageError(
            "an address holds no credentials",
            where="setting avstar.base_url",
            remedy="use avstar.api_key_file",
        )
    return url / "v2/ingest"


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body; None when it is longer than any answer."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _ANSWER_BYTES:
            response.close()
            return None
    return bytes(body)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"


def _since_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: _HIDDEN if name.lower() in _SECRET_HEADERS else value for name, value in headers.items()}


def _shown_body(body: bytes, secret: Mapping[str, str]) -> str:
    """The start of the body, for people; an API that echoes our credentials does not get them logged."""
    shown = body[: 4 * _BODY_CHARACTERS].decode(errors="replace")
    for value in secret.values():
        for word in (value, value.rpartition(" ")[2]):
            shown = shown.replace(word, _HIDDEN)
    return shown[:_BODY_CHARACTERS]
