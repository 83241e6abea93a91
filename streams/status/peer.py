"""The other role's process: asked for what only it knows, where somebody looks at the page."""

from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import orjson

from schemas.secret import Secret
from streams.settings import WorkerSettings

_TIMEOUT_S = 1.0
_MOST_BYTES = 1_000_000
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - to ask, not to bind

#: A proxy is for the way out, and need not see the token.
_DIRECTLY = build_opener(ProxyHandler({}))

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
            told: dict[str, Any] = orjson.loads(answer.read(_MOST_BYTES))
    except (URLError, OSError, ValueError):
        return None
    return told if told.get("role") else None
