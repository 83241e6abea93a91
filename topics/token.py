"""The token that aiokafka shows to brokers; librdkafka gets its own, from the same settings."""

from collections.abc import Callable
from time import monotonic

import aiohttp
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from schemas.redact import hide
from topics.connection import KafkaSettings

#: Of a token's life, after which a connection gets a new one.
_USED_FOR = 0.8
_SHOWN_CHARACTERS = 300


class ClientCredentials(AbstractTokenProvider):
    """Tokens by client credentials (RFC 6749, 4.4), id and secret in the header, as librdkafka asks for them.

    A token is kept for most of its life, for all loops that connect.
    """

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = monotonic) -> None:
        """Raises ``UsageError`` when a file of the settings cannot be used."""
        self._kafka, self._clock = kafka, clock
        self._tls = kafka.oauth_ssl_context()
        self._token, self._use_until = "", 0.0
        kafka.client_secret()

    async def token(self) -> str:
        """A token that lives. Raises ``KafkaConnectionError``, which aiokafka retries."""
        if self._clock() >= self._use_until:
            asked_at = self._clock()
            self._token, life_s = await self._ask()
            self._use_until = asked_at + life_s * _USED_FOR
        return self._token

    async def _ask(self) -> tuple[str, float]:
        kafka = self._kafka
        form = {"grant_type": "client_credentials"}
        if kafka.oauth_scope:
            form["scope"] = kafka.oauth_scope
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=kafka.timeout_s)) as session,
                session.post(
                    kafka.oauth_token_url,
                    data=form,
                    headers={"Authorization": f"Basic {kafka.basic()}"},
                    ssl=self._tls,
                    allow_redirects=False,
                    raise_for_status=True,
                ) as answer,
            ):
                granted = await answer.json()
                return str(granted["access_token"]), float(granted.get("expires_in") or 0)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError) as error:
            said = hide(f"{type(error).__name__}: {error}", kafka.secrets())[:_SHOWN_CHARACTERS]
            raise KafkaConnectionError(f"no token from {kafka.oauth_token_url}: {said}") from None
