"""How requests leave this machine: pooled connections, their timeouts, TLS, the proxy."""

import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from errno import ECONNRESET
from typing import IO, Literal, NamedTuple

import aiohttp
from yarl import URL

from schemas.errors import UsageError
from schemas.network import is_loopback, tls
from schemas.secret import Secret
from streams.settings import AvstarSettings


class Reply(NamedTuple):
    """An answer as it came off the wire; ``body`` is None when it is longer than was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Pool:
    """Connections that are kept and used again. Belongs to the event loop that makes it."""

    def __init__(
        self,
        settings: AvstarSettings,
        *,
        connections: int,
        total_s: float,
        middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
    ) -> None:
        """``connections``: at the most; ``total_s``: for a request in all.

        Raises ``UsageError`` when the settings for TLS or the proxy cannot be used.
        """
        self._proxy = _Proxy(settings)
        self._anonymous = not settings.ssl_certfile
        self._answered = False
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections,
                keepalive_timeout=settings.keepalive_s,
                ttl_dns_cache=round(settings.dns_cache_s),
                ssl=_tls(settings),
            ),
            timeout=aiohttp.ClientTimeout(
                total=total_s,
                connect=settings.connect_timeout_s,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.read_timeout_s,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=middlewares,
        )

    def secrets(self) -> list[str]:
        """What may be shown to nobody."""
        return self._proxy.secrets()

    async def post(
        self, url: URL, body: bytes | IO[bytes], headers: Mapping[str, str], *, limit: int
    ) -> Reply:
        """Post ``body``, follow no redirect, and read an answer of ``limit`` bytes at the most.

        Raises ``aiohttp.ClientError``, ``TimeoutError`` or ``OSError`` for what the network does.
        """
        return await self._request("POST", url, body, headers, limit)

    async def head(self, url: URL) -> Reply:
        """See whether anything answers at ``url``; raises as :meth:`post` does."""
        return await self._request("HEAD", url, None, {}, 0)

    async def _request(
        self, method: str, url: URL, body: bytes | IO[bytes] | None, headers: Mapping[str, str], limit: int
    ) -> Reply:
        own, to_proxy = self._proxy.headers(url)
        async with self._session.request(
            method,
            url,
            data=body,
            headers={**headers, **own},
            allow_redirects=False,
            proxy=self._proxy.url,
            proxy_headers=to_proxy,
        ) as response:
            self._answered = True
            return Reply(response.status, response.headers, await _read(response, limit))

    def explain(self, error: Exception) -> str:
        """What :meth:`post` raised, for people; still with what an API may have put into it."""
        if isinstance(error, TimeoutError) and not str(error):
            return "no answer in time"
        why = f"{type(error).__name__}: {error}"
        # A server that misses our certificate often just ends the connection, in the handshake or after it.
        ended = isinstance(error, aiohttp.ServerDisconnectedError) or (
            isinstance(error, OSError) and error.errno in {None, ECONNRESET}
        )
        if ended and self._anonymous and not self._answered:
            why += "; over TLS perhaps because it demands a certificate: avstar.ssl_certfile"
        return why

    async def aclose(self) -> None:
        """Close all connections; what is in flight fails."""
        await self._session.close()


def address(url: str, setting: str, *, plain: bool) -> URL:
    """``url`` as the address of an API. ``UsageError`` unless it is one and holds no credentials.

    Whoever is on the way reads what is sent over HTTP, credentials first of all; so it is taken for this
    machine only, or where ``plain`` allows it.
    """
    where = f"setting {setting}"
    try:
        found = URL(url)
    except ValueError:
        found = URL()
    if found.scheme not in {"http", "https"} or not found.host:
        raise UsageError("not the address of an HTTP API", where=where)
    if found.user or found.password:
        raise UsageError("an address holds no credentials", where=where, remedy="use the settings for them")
    if found.scheme == "http" and not plain and not is_loopback(found.host):
        raise UsageError(
            "credentials would cross the network in the clear",
            where=where,
            remedy="use https, or set avstar.plain_http where the network is trusted",
        )
    return found


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            response.close()
            return None
    return bytes(body)


def _tls(settings: AvstarSettings) -> ssl.SSLContext | Literal[True]:
    """What to trust and to show; True for what aiohttp does by itself, with a context that it made once."""
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise UsageError("a key is of no use without its certificate", where="setting avstar.ssl_certfile")
    if not settings.ssl_cafile and not settings.ssl_certfile:
        return True
    return tls("avstar.ssl_", settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile)


class _Proxy:
    """The HTTP proxy, if there is one. Its password may change while we run."""

    def __init__(self, settings: AvstarSettings) -> None:
        self.url = address(settings.proxy, "avstar.proxy", plain=True) if settings.proxy else None
        self._username = settings.proxy_username
        self._password = Secret(
            settings.proxy_password, settings.proxy_password_file, "avstar.proxy_password"
        )
        if ":" in self._username or not self._username.isprintable():
            raise UsageError("a user name has no colon in it", where="setting avstar.proxy_username")

    def headers(self, url: URL) -> tuple[dict[str, str], dict[str, str]]:
        """What a request to ``url`` carries for the proxy: in its own headers, and in those of a CONNECT."""
        if self.url is None or not self._username:
            return {}, {}
        found = {"Proxy-Authorization": f"Basic {self._basic()}"}
        return ({}, found) if url.scheme == "https" else (found, {})

    def secrets(self) -> list[str]:
        return [self._password.value, self._basic()] if self._username else []

    def _basic(self) -> str:
        return b64encode(f"{self._username}:{self._password.value}".encode()).decode()
