"""The sandbox's one account: its credentials, its tokens, and its limits."""

import binascii
import secrets
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from streams.lab.refusal import Refusal

_WINDOW_S = 60.0
_SCOPE = "ingest"
_BASIC = {"WWW-Authenticate": 'Basic realm="avstar"'}
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="avstar"'}


class Credentials(NamedTuple):
    """What opens the account. None of these is a secret: they are the sandbox's."""

    api_key: str = "sandbox-key"
    client_id: str = "sandbox"
    client_secret: str = "sandbox-secret"  # noqa: S105 - public, see above
    required: bool = True


class Account:
    """Who may come in, and how often; ``clock`` gives seconds, monotonic. A limit of 0 is none."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Callable[[], float],
        *,
        token_ttl_s: int,
        requests_per_minute: int,
        requests_at_once: int,
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._token_ttl_s = token_ttl_s
        self._per_minute = requests_per_minute
        self._at_once = requests_at_once
        self._tokens: dict[str, tuple[float, str]] = {}  # token → when it expires, its scope
        self._inside = 0
        self._window_start = clock()
        self._window_used = 0

    def token(self, form: Mapping[str, Any], authorization: str) -> dict[str, Any]:
        """Client credentials (RFC 6749, 4.4) → a new bearer token; a :class:`Refusal` of 5.2."""
        if form.get("grant_type") != "client_credentials":
            raise Refusal(400, "unsupported_grant_type", "grant_type must be client_credentials")
        client = _basic(authorization) or (form.get("client_id"), form.get("client_secret"))
        if client != (self._credentials.client_id, self._credentials.client_secret):
            raise Refusal(
                401, "invalid_client", "unknown client", {"WWW-Authenticate": 'Basic realm="avstar"'}
            )
        scope = str(form.get("scope") or _SCOPE)
        now = self._clock()
        self._tokens = {token: held for token, held in self._tokens.items() if held[0] > now}
        token = secrets.token_urlsafe(24)
        self._tokens[token] = now + self._token_ttl_s, scope
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self._token_ttl_s,
            "scope": scope,
        }

    def authorize(self, headers: Mapping[str, str]) -> None:
        """Let the API key or a live token in: ``Authorization: Bearer …`` or, the key only, ``X-API-Key``."""
        if not self._credentials.required:
            return
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        given = headers.get("X-API-Key") or (bearer.strip() if scheme.lower() == "bearer" else "")
        if not given:
            raise Refusal(401, "unauthorized", "send Authorization: Bearer, or X-API-Key", _CHALLENGE)
        if given == self._credentials.api_key:
            return
        expires, scope = self._tokens.get(given, (0.0, ""))
        if expires <= self._clock():
            challenge = {"WWW-Authenticate": _CHALLENGE["WWW-Authenticate"] + ', error="invalid_token"'}
            raise Refusal(401, "invalid_token", "the token is unknown, expired or revoked", challenge)
        if _SCOPE not in scope.split():
            raise Refusal(403, "insufficient_scope", f"the token lacks the scope {_SCOPE}")

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Take a place among the requests of this minute and of this moment, or be refused with 429."""
        left_s = self._window_left_s()
        if self._per_minute and self._window_used >= self._per_minute:
            raise self._limited("too many requests in this minute", left_s)
        if self._at_once and self._inside >= self._at_once:
            raise self._limited("too many requests at once", 1)
        self._window_used += 1
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def limit_headers(self) -> dict[str, str]:
        """RateLimit and RateLimit-Policy (IETF draft), while there is a limit per minute."""
        if not self._per_minute:
            return {}
        left_s = self._window_left_s()
        remaining = max(0, self._per_minute - self._window_used)
        return {
            "RateLimit-Policy": f'"minute";q={self._per_minute};w={_WINDOW_S:.0f}',
            "RateLimit": f'"minute";r={remaining};t={left_s}',
        }

    def _limited(self, message: str, wait_s: int) -> Refusal:
        return Refusal(429, "rate_limited", message, {"Retry-After": str(wait_s)})

    def _window_left_s(self) -> int:
        """Whole seconds, rounded up, until the window of this minute ends; opens the next when it has."""
        passed = self._clock() - self._window_start
        if passed >= _WINDOW_S:
            self._window_start += passed - passed % _WINDOW_S
            self._window_used = 0
            passed %= _WINDOW_S
        return int(_WINDOW_S - passed) + 1


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        # Both are form-encoded (RFC 6749, 2.3.1).
        client, _, secret = b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(client), unquote_plus(secret)
