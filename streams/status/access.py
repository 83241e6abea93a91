"""Who may see the pages: on this machine everybody, elsewhere whoever has the token.

A browser shows the token once, in a form, and gets a cookie for half a day. The cookie is made of the token,
so a new token ends all sessions, and what a browser keeps is not the token.
"""

import asyncio
import hmac
import time
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from schemas.errors import UsageError
from schemas.network import is_loopback
from schemas.secret import Secret
from streams.settings import WorkerSettings

COOKIE = "spotstream"
SESSION_S = 12 * 3600

#: Shorter ones can be guessed.
_SHORTEST = 16

#: How long whoever guesses has to wait.
_WRONG_S = 0.5


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    why: str


class Access:
    """Decides about requests by their headers. Raises :class:`UsageError` for what would let everybody in."""

    def __init__(self, settings: WorkerSettings) -> None:
        given = settings.web_token.get_secret_value() or settings.web_token_file
        self.token = (
            Secret(settings.web_token, settings.web_token_file, "worker.web_token") if given else None
        )
        if self.token and len(self.token.value) < _SHORTEST:
            raise UsageError(
                f"is too short to keep anybody out: {_SHORTEST} characters at the least",
                where="setting worker.web_token",
            )
        if not self.token and not is_loopback(settings.web_host):
            raise UsageError(
                f"the pages would be open to everybody who reaches {settings.web_host}",
                where="setting worker.web_host",
                remedy="set worker.web_token or worker.web_token_file, or 127.0.0.1 for this machine alone",
            )

    def refuses(self, request: web.BaseRequest) -> Refusal | None:
        """None: it may be answered."""
        if self.token is None:
            # A stranger's page can make its own name lead to this machine, and read what is answered.
            why = "without worker.web_token the pages are for this machine: use localhost or 127.0.0.1"
            return None if is_loopback(_host(request)) else Refusal(403, why)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return None
        if self._is_session(request.cookies.get(COOKIE, "")):
            return None
        return Refusal(401, "the token of worker.web_token is needed: Authorization: Bearer …")

    async def session(self, token: str) -> str:
        """A cookie's value for whoever gives the token; empty for another, after a while."""
        if self.token and self._is_token(token.strip()):
            return self._signed(str(int(time.time()) + SESSION_S))
        await asyncio.sleep(_WRONG_S)
        return ""

    def _is_token(self, given: str) -> bool:
        assert self.token  # noqa: S101 - for mypy: asked only where there is one
        return hmac.compare_digest(_bytes(given), self.token.value.encode())

    def _is_session(self, cookie: str) -> bool:
        until = cookie.partition(".")[0]
        # Whether it is ours comes first: what anybody writes need not be a number.
        return hmac.compare_digest(_bytes(cookie), _bytes(self._signed(until))) and int(until) > time.time()

    def _signed(self, until: str) -> str:
        assert self.token  # noqa: S101 - as above
        mark = hmac.new(self.token.value.encode(), b"status page until " + _bytes(until), sha256).hexdigest()
        return f"{until}.{mark}"


def _host(request: web.BaseRequest) -> str:
    """As the request names it; empty where that is no host."""
    try:
        return urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return ""


def _bytes(given: str) -> bytes:
    """As they came: a header need not be UTF-8."""
    return given.encode(errors="surrogateescape")
