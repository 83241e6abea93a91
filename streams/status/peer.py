"""The other role's process: asked for what only it knows, where somebody looks at the page."""

from http.client import HTTPException
from typing import Any
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import orjson

from schemas.secret import Secret
from streams.settings import WorkerSettings

_TIMEOUT_S = 1.0
_MOST_BYTES = 1_000_000
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - to ask, not to bind


class _NoRedirects(HTTPRedirectHandler):
    """The token goes to whom it was given for, not to wherever that one points."""

    def redirect_request(self, *_: Any) -> None:
        """None: the answer is taken for what it is, no role's."""


#: A proxy is for the way out, and need not see the token.
_DIRECTLY = build_opener(ProxyHandler({}), _NoRedirects())

#: Where a role tells what only it knows; below its address.
PATH = "status/role"


def address(settings: WorkerSettings, role: str) -> str:
    """Of the role that is not ``role``: ``worker.peer_url``, or this machine's; empty where nobody knows."""
    if settings.peer_url:
        return settings.peer_url.rstrip("/") + "/"
    if not settings.web_port:
        return ""
    host = _EVERYWHERE.get(settings.web_host, settings.web_host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{settings.web_port + (role == 'validate')}/"


def ask(url: str, token: Secret | None) -> dict[str, Any] | None:
    """What the role at ``url`` tells; None when it does not answer in a second. Blocks."""
    request = Request(url + PATH, headers={"Authorization": f"Bearer {token.value}"} if token else {})  # noqa: S310
    try:
        with _DIRECTLY.open(request, timeout=_TIMEOUT_S) as answer:
            told = orjson.loads(answer.read(_MOST_BYTES))
    except (OSError, HTTPException, ValueError):  # nobody, no HTTP, no JSON
        return None
    return told if isinstance(told, dict) and told.get("role") else None
