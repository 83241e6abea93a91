"""The Avstar client: one pooled session, one attempt a call, every way it can end a value."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from types import MappingProxyType

import aiohttp

from schemas.letter import Exchange
from schemas.redact import HIDDEN, hider
from streams import traces
from streams.dispatch.answer import Answer, NoToken, Unavailable, classify
from streams.dispatch.authorization import Authorizer, TokenError, from_settings
from streams.dispatch.policy import Action, Status
from streams.dispatch.pool import Pool, address
from streams.settings import AvstarSettings

_ANSWER_BYTES = 16_777_216  # 10,000 rejections of 1.6 kB each
_BODY_CHARACTERS = 4096  # of an answer, kept for people
_SECRET_HEADERS = frozenset({"set-cookie", "www-authenticate", "proxy-authenticate"})


class Avstar:
    """Sends batches to Avstar over one pool of connections. Belongs to the event loop that makes it."""

    def __init__(
        self,
        settings: AvstarSettings,
        *,
        requests_at_once: int,
        policy: Mapping[Status, Action] = MappingProxyType({}),
        authorizer: Authorizer | None = None,
    ) -> None:
        """``policy``: what statuses mean, where :mod:`.policy` has it otherwise. ``authorizer``: what
        the settings say, unless another is given.

        Raises ``UsageError`` when addresses, credentials, TLS or proxy cannot be used.
        """
        self._url = address(settings.base_url, "avstar.base_url", plain=settings.plain_http) / "v2/ingest"
        self._policy = policy
        self._authorizer = authorizer or from_settings(settings)
        self._pool = Pool(
            settings,
            connections=requests_at_once,
            total_s=settings.request_timeout_s,
            middlewares=(self._authorizer,),
        )

    @property
    def token_age_s(self) -> float | None:
        """Seconds since the access token was asked for; None without one."""
        return self._authorizer.token_age_s

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails."""
        await self._pool.aclose()
        await self._authorizer.aclose()

    async def send(self, key: str, body: bytes, headers: Mapping[str, str], records: int) -> Answer:
        """One attempt to book ``body``, as it is, under ``key``; ``headers`` say what it is.

        Never raises for what the network, the token endpoint or Avstar does. Cancelled, it hangs up.
        """
        sent = {"Idempotency-Key": f'"{key}"', "Accept": "application/json", **headers, **traces.headers()}
        shown = sent | ({self._authorizer.header: HIDDEN} if self._authorizer.header else {})
        exchange = Exchange(method="POST", url=str(self._url), request_headers=shown)
        started = time.monotonic()
        try:
            reply = await self._pool.post(self._url, BytesIO(body), sent, limit=_ANSWER_BYTES)
        except TokenError as error:
            exchange["error"] = error.why
            return NoToken(exchange, _since_ms(started), error.why, error.retry_after_s)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = self._hidden(self._pool.explain(error))
            exchange["error"] = why
            return Unavailable(exchange, _since_ms(started), why)
        exchange["status"] = reply.status
        exchange["response_headers"] = {
            self._hidden(name): HIDDEN if name.lower() in _SECRET_HEADERS else self._hidden(value)
            for name, value in reply.headers.items()
        }
        latency_ms = _since_ms(started)
        if reply.body is None:
            return Unavailable(exchange, latency_ms, f"{reply.status} with more than {_ANSWER_BYTES} bytes")
        said = reply.body.decode(errors="replace")
        hidden = hider(self._secrets())
        exchange["response_body"] = hidden(said)[:_BODY_CHARACTERS]
        return classify(
            reply.status,
            reply.headers,
            said.encode(),
            records=records,
            exchange=exchange,
            latency_ms=latency_ms,
            at=datetime.now(UTC),
            policy=self._policy,
            hidden=hidden,
        )

    def _hidden(self, text: str) -> str:
        # Bytes of a header that are no UTF-8 come as surrogates, which no dead letter could be written with.
        text = text.encode(errors="backslashreplace").decode()
        return hider(self._secrets())(text)

    def _secrets(self) -> list[str]:
        return [*self._authorizer.secrets(), *self._pool.secrets()]


def _since_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
