"""How a request proves who sends it: aiohttp client middleware that puts ``Authorization`` on it."""

import asyncio
import random
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from math import inf
from typing import Annotated, NamedTuple, Protocol
from urllib.parse import quote_plus, urlencode

import aiohttp
import orjson
from pydantic import BaseModel, Field, ValidationError, field_validator

from schemas.errors import UsageError
from schemas.redact import hide
from schemas.secret import Secret
from streams import log
from streams.dispatch.pool import Pool, Reply, address
from streams.dispatch.retry_after import retry_after_s
from streams.settings import AvstarSettings

_ANSWER_BYTES = 65_536
_SHOWN_CHARACTERS = 300
_RENEWED_AT = 0.75, 0.85  # of a token's life; drawn, so that workers do not all come at once
_MARGIN_S = 10.0  # before its end a token is not sent any more: it has to live until it arrives…
_MARGIN = 0.1  # …but of a short life no more than this share
_BACKOFF_S, _BACKOFF_CAP_S = 0.5, 20.0
_REMEMBERED = 4  # old tokens that an answer may still quote

_log = log.get(__name__)


class Authorizer(Protocol):
    """Middleware for requests to Avstar."""

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send ``request`` with credentials. Raises :class:`TokenError` when there are none to be had."""
        ...

    async def prove(self) -> str:
        """Have credentials, and say which; empty without any. Raises :class:`TokenError` for no token."""
        ...

    @property
    def header(self) -> str:
        """The header that gets the credentials; empty when none does."""
        ...

    @property
    def token_age_s(self) -> float | None:
        """Seconds since the token was asked for; None without a token."""
        ...

    def secrets(self) -> list[str]:
        """What may be shown to nobody."""
        ...

    async def aclose(self) -> None:
        """End what is under way."""
        ...


class TokenError(Exception):
    """The token endpoint gave no token, ``why`` without secrets; worth asking again in ``retry_after_s``.

    ``answered``: it could be reached.
    """

    def __init__(self, why: str, retry_after_s: float, *, answered: bool) -> None:
        super().__init__(why)
        self.why, self.retry_after_s, self.answered = why, retry_after_s, answered


def from_settings(settings: AvstarSettings) -> Authorizer:
    """OAuth2 where there is a client id, else the API key. ``UsageError`` as the two have it."""
    return OAuth2(settings) if settings.oauth_client_id else ApiKey(settings)


class ApiKey:
    """A scoped API key; without one there is no header."""

    token_age_s = None

    def __init__(self, settings: AvstarSettings) -> None:
        """Raises ``UsageError`` when the key cannot be read or cannot be one."""
        self._key = Secret(settings.api_key, settings.api_key_file, "avstar.api_key")

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """``Authorization: Bearer``, the key as it is now."""
        if key := self._key.value:
            request.headers["Authorization"] = f"Bearer {key}"
        return await handler(request)

    async def prove(self) -> str:
        """Whether there is a key; whether Avstar takes it only a request with records would tell."""
        return "an API key" if self._key.value else ""

    @property
    def header(self) -> str:
        """``Authorization``, if there is a key."""
        return "Authorization" if self._key.value else ""

    def secrets(self) -> list[str]:
        """The key."""
        return [self._key.value]

    async def aclose(self) -> None:
        """Nothing is under way."""


class _Token(NamedTuple):
    """A bearer token; times on the clock of :class:`OAuth2`."""

    value: str
    asked_at: float
    renew_at: float
    sent_until: float


class _Failure(NamedTuple):
    """A renewal that failed; the next one not before ``ask_again_at`` unless the secret is another one."""

    why: str
    ask_again_at: float
    secret: str
    answered: bool


class OAuth2:
    """Client credentials (RFC 6749, 4.4): one token for all requests.

    It is renewed in the background at about four fifths of its life, while requests go on with the old one;
    requests without a token that still lives wait for the one renewal. What a 401 was said to is given up,
    renewed, and the request sent once more; a second 401 is the answer.
    """

    header = "Authorization"

    def __init__(self, settings: AvstarSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds, monotonic. Raises ``UsageError`` for settings that cannot be used."""
        url = settings.oauth_token_url or settings.base_url.rstrip("/") + "/oauth/token"
        self._url = address(url, "avstar.oauth_token_url", plain=settings.plain_http)
        self._client_id, self._scope = settings.oauth_client_id, settings.oauth_scope
        self._in_header = settings.oauth_client_auth == "basic"
        self._secret = Secret(
            settings.oauth_client_secret, settings.oauth_client_secret_file, "avstar.oauth_client_secret"
        )
        if not self._secret.value:
            raise UsageError("a client id needs a secret", where="setting avstar.oauth_client_secret")
        # Half a request's time: what waits for a token in vain shall say so, not that Avstar was slow.
        total_s = min(settings.oauth_timeout_s, settings.request_timeout_s / 2)
        self._pool = Pool(settings, connections=1, total_s=total_s)
        self._clock = clock
        self._token: _Token | None = None
        self._old: deque[str] = deque(maxlen=_REMEMBERED)
        self._failures = 0
        self._failure: _Failure | None = None
        self._renewal: asyncio.Task[_Token | _Failure] | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send with the token, and after a 401 once more with a new one."""
        token = await self._current()
        request.headers[self.header] = f"Bearer {token.value}"
        response = await handler(request)
        if response.status != HTTPStatus.UNAUTHORIZED:
            return response
        response.release()
        if self._token is token:
            _log.warning("the token is not taken any more", age_s=round(self._clock() - token.asked_at))
            self._token = None
        token = await self._current()
        request.headers[self.header] = f"Bearer {token.value}"
        return await handler(request)

    async def prove(self) -> str:
        """Have a token. Raises :class:`TokenError`."""
        await self._current()
        return f"a token from {self._url}"

    @property
    def token_age_s(self) -> float | None:
        """Seconds since the token was asked for; None without a token."""
        return self._clock() - self._token.asked_at if self._token else None

    def secrets(self) -> list[str]:
        """Client secret and tokens, the last few old ones too."""
        return [self._secret.value, self._basic(self._secret.value), *self._old, *self._pool.secrets()]

    async def aclose(self) -> None:
        """End a renewal that is under way."""
        if self._renewal:
            self._renewal.cancel()
        await self._pool.aclose()

    async def _current(self) -> _Token:
        now = self._clock()
        if self._token and now < self._token.sent_until:
            if now >= self._token.renew_at and not self._forbidden(now):
                self._start_renewal()
            return self._token
        if (failure := self._forbidden(now)) and not self._renewal:
            raise TokenError(failure.why, failure.ask_again_at - now, answered=failure.answered)
        # One caller that gives up does not end the renewal for the others.
        outcome = await asyncio.shield(self._start_renewal())
        if isinstance(outcome, _Failure):
            wait_s = max(0.0, outcome.ask_again_at - self._clock())
            raise TokenError(outcome.why, wait_s, answered=outcome.answered)
        return outcome

    def _forbidden(self, now: float) -> _Failure | None:
        """The last failure, if it is too early to ask again; a secret that was rotated is tried at once."""
        failure = self._failure
        if failure and now < failure.ask_again_at and failure.secret == self._secret.value:
            return failure
        return None

    def _start_renewal(self) -> asyncio.Task[_Token | _Failure]:
        """The renewal that is under way, or a new one."""
        if not self._renewal:
            self._renewal = asyncio.create_task(self._renew())
        return self._renewal

    async def _renew(self) -> _Token | _Failure:
        secret, asked_at = self._secret.value, self._clock()
        try:
            granted = await self._ask(secret)
        except TokenError as error:
            self._failures += 1
            ask_again_at = self._clock() + error.retry_after_s
            self._failure = _Failure(error.why, ask_again_at, secret, error.answered)
            self._renewal = None
            return self._failure
        life_s = granted.expires_in
        self._token = _Token(
            granted.access_token,
            asked_at,
            asked_at + life_s * random.uniform(*_RENEWED_AT),
            asked_at + life_s - min(_MARGIN_S, life_s * _MARGIN),
        )
        self._old.append(granted.access_token)
        self._failures, self._failure, self._renewal = 0, None, None
        _log.info("token renewed", life_s=life_s)
        return self._token

    async def _ask(self, secret: str) -> "_Grant":
        """One token request. Raises :class:`TokenError`, logged, with the time to wait in it."""
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        if self._in_header:
            headers["Authorization"] = f"Basic {self._basic(secret)}"
        else:
            form |= {"client_id": self._client_id, "client_secret": secret}
        wait_s = min(_BACKOFF_CAP_S, _BACKOFF_S * 2.0 ** min(self._failures, 10)) * random.uniform(0.5, 1)
        try:
            reply = await self._pool.post(self._url, urlencode(form).encode(), headers, limit=_ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failed(self._pool.explain(error), wait_s, answered=False) from None
        if reply.status == HTTPStatus.OK:
            try:
                return _Grant.model_validate_json(reply.body or b"")
            except ValidationError as error:
                fields = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
                raise self._failed(f"200 without a bearer token ({fields})", wait_s) from None
        asked_s = retry_after_s(
            reply.headers.get("Retry-After", ""), reply.headers.get("Date", ""), datetime.now(UTC)
        )
        raise self._failed(f"{reply.status} {_complaint(reply)}", asked_s or wait_s)

    def _failed(self, why: str, wait_s: float, *, answered: bool = True) -> TokenError:
        """What went wrong, once in the log; with a token in hand it harms nobody yet."""
        shown = "".join(filter(str.isprintable, hide(why, self.secrets())))[:_SHOWN_CHARACTERS]
        why = f"no token from {self._url}: {shown.strip()}"
        alive = self._token is not None and self._clock() < self._token.sent_until
        tell = _log.warning if alive else _log.error
        tell("the token could not be renewed", why=why, old_token_lives=alive, again_in_s=round(wait_s, 1))
        return TokenError(why, wait_s, answered=answered)

    def _basic(self, secret: str) -> str:
        """RFC 6749, 2.3.1: both are form-encoded first."""
        pair = f"{quote_plus(self._client_id)}:{quote_plus(secret)}"
        return b64encode(pair.encode()).decode()


class _Grant(BaseModel):
    """The body of a token endpoint's 200. A token that says nothing of its life is kept until a 401."""

    access_token: Annotated[str, Field(pattern=r"^[\x21-\x7e]+$")]
    token_type: Annotated[str, Field(pattern=r"^(?i:bearer)$")]
    expires_in: Annotated[float, Field(gt=0)] = inf

    @field_validator("expires_in", mode="before")
    @classmethod
    def _unknown(cls, value: object) -> object:
        return inf if value is None else value


def _complaint(reply: Reply) -> str:
    """``error`` and ``error_description`` of RFC 6749, 5.2, if the answer has them."""
    try:
        body = orjson.loads(reply.body or b"")
        said = [body[name] for name in ("error", "error_description") if isinstance(body.get(name), str)]
    except (orjson.JSONDecodeError, AttributeError):
        return ""
    return ": ".join(said)
