"""What is served: the pages and their data, read only."""

import asyncio
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import Problem, Unreachable, UsageError
from schemas.letter import now
from streams import log
from streams.readiness import Readiness
from streams.settings import Settings
from streams.status import peer
from streams.status.access import COOKIE, SESSION_S, Access
from streams.status.exhibit import exhibit
from streams.status.letters import STATES, Letter, Wanted
from streams.status.lookout import Lookout
from streams.status.role import OwnRole
from streams.status.verdict import verdict
from topics.transport import App

logger = log.get("pages")

#: How long a connection may stay open on which no request has come in full.
_IDLE_S = 30.0

#: How long a form may take to come, and how many fields are looked at.
_FORM_S, _FIELDS = 10.0, 10

#: Rows of the list of dead letters at a time.
_ROWS = 100

#: Answered whoever asks: they tell nothing of the data.
_OPEN = frozenset({"/health", "/ready", "/status/login", "/status/icon.svg"})


def _read(file: str) -> str:
    return (files(__package__) / file).read_text(encoding="utf-8")


def _allowed(text: str) -> str:
    """How a policy names a style or script that stands in the page itself."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


_STYLE = _read("page.css")
_SCRIPT = _read("page.html").partition('<script type="module">')[2].partition("</script>")[0]


def _page(file: str) -> str:
    """With the style in it, so that the first answer can be painted."""
    return _read(file).replace("<style></style>", f"<style>{_STYLE}</style>")


_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self' {_allowed(_SCRIPT)}; "
    f"style-src {_allowed(_STYLE)}; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TYPES = {"html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(app: App, settings: Settings, role: OwnRole, access: Access) -> None:
    """Serve the pages of ``role`` from ``app``."""
    lookout = Lookout(settings, role)
    app.task(lookout.run)
    pages = _Pages(settings, role, lookout, Readiness(app, role.name), access)
    application: web.Application = app.web.web_app
    # In place of Faust's, whose connections stay open for an hour though nothing is ever asked on them.
    app.web._runner = web.AppRunner(application, access_log=None, keepalive_timeout=_IDLE_S)
    application.middlewares.append(pages.guard)
    application.add_routes(
        [
            *(web.get(path, _to_status) for path in ("/", "/status")),
            web.get("/status/", _file("page.html")),
            web.get("/status/letters/", _file("letters.html")),
            *(web.get(f"/status/{file}", _file(file)) for file in _FILES),
            web.post("/status/login", pages.login),
            web.get("/status/view", pages.view),
            web.get("/" + peer.PATH, pages.role),
            web.get("/status/letters/list", pages.letters),
            web.get("/status/letters/letter", pages.letter),
            web.get("/metrics", pages.metrics),
            web.get("/health", pages.health),
            web.get("/ready", pages.ready),
        ]
    )


_FILES = ("page.js", "letters.js", "icon.svg")


def _file(file: str) -> _Handler:
    text, kind = _page(file), _TYPES[file.rpartition(".")[2]]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return answer


async def _to_status(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/status/"})


def _json(told: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(told) + b"\n", content_type="application/json", status=status)


class _Pages:
    """Answers requests, on the web server's loop."""

    def __init__(
        self, settings: Settings, role: OwnRole, lookout: Lookout, readiness: Readiness, access: Access
    ) -> None:
        self._kafka, self._access = settings.kafka, access
        self._role, self._lookout, self._readiness = role, lookout, readiness
        self._peer = peer.address(settings.worker, role.name)
        self._others: list[dict[str, Any]] = []
        self._asking: asyncio.Task[None] | None = None
        self._form = _page("login.html")

    @web.middleware
    async def guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in who may see, and have browsers show nothing but what comes from here."""
        try:
            answer = await self._answer(request, handler)
        except web.HTTPException as error:
            answer = _json({"error": error.reason}, error.status)
        except Exception:
            logger.exception("a request failed", path=request.path)
            answer = _json({"error": "this went wrong; the worker's log says how"}, 500)
        if answer.status == 401:
            answer.headers["WWW-Authenticate"] = "Bearer"
        answer.headers.update(_HEADERS)
        return answer

    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        refusal = None if request.path in _OPEN else self._access.refuses(request)
        if refusal is None:
            return await handler(request)
        if refusal.status == 401 and request.path.endswith("/"):
            return self._asked_for_token(401, "")
        return _json({"error": refusal.why}, refusal.status)

    def _asked_for_token(self, status: int, error: str) -> web.Response:
        body = self._form.replace("<!--error-->", error)
        return web.Response(text=body, content_type="text/html", status=status)

    async def login(self, request: web.Request) -> web.Response:
        """The token, once, for a cookie."""
        try:
            async with asyncio.timeout(_FORM_S):
                # As our page sends it. aiohttp's own reading takes any encoding and form, and fails by many.
                form = parse_qs((await request.read()).decode(), max_num_fields=_FIELDS)
        except (ValueError, TimeoutError):
            return _json({"error": "the token is expected as a form's field, in UTF-8"}, 400)
        cookie = await self._access.session(form.get("token", [""])[0])
        if not cookie:
            return self._asked_for_token(401, "That is not the token.")
        answer = web.Response(status=303, headers={"Location": "/status/"})
        answer.set_cookie(
            COOKIE, cookie, max_age=SESSION_S, httponly=True, samesite="Strict", secure=request.secure
        )
        return answer

    async def view(self, _: web.Request) -> web.Response:
        """All that the page shows."""
        self._ask_other()
        mine = self._role.told()
        roles = [mine | {"answers": True}, *(dict(other) for other in self._others)]
        view = self._lookout.view() | {"at": now(), "role": mine["role"], "roles": roles}
        view["avstar"] = next((role["avstar"] for role in roles if "avstar" in role), None)
        if view["avstar"] and view["avstar"]["breaker"] != "closed":
            view["caught_up_s"] = None  # nobody knows how long it stays so
        for role in roles:
            role.pop("counters", None)
        return _json(view | {"verdict": verdict(view)._asdict()})

    def _ask_other(self) -> None:
        """Ask the other role, beside this answer: a role that hangs is not waited for."""
        if self._peer and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._learn_other())

    async def _learn_other(self) -> None:
        told = await asyncio.to_thread(peer.ask, self._peer, self._access.token)
        name = "dispatch" if self._role.name == "validate" else "validate"
        absent = {"role": name, "state": "does not answer", "partitions": [], "held": []}
        self._others = [(told or absent) | {"answers": told is not None}]

    async def role(self, _: web.Request) -> web.Response:
        """What only this process knows: for the other role's page, and for whoever watches numbers."""
        return _json(self._role.told())

    async def letters(self, request: web.Request) -> web.Response:
        """A page of the dead letters that match, and what there is to choose from."""
        self._lookout.view()
        asked = request.query
        wanted = Wanted(**{name: asked.get(name, "") for name in Wanted._fields})
        try:
            start = min(max(0, int(asked.get("start", "0"))), sys.maxsize)
            found = await asyncio.to_thread(self._matching, wanted)
        except ValueError:
            return _json({"error": "start is a whole number"}, 400)
        except UsageError as error:
            return _json({"error": str(error)}, 400)
        rows = [self._row(letter) for letter in found[start : start + _ROWS]]
        causes = [cause._asdict() for cause, _, _ in self._lookout.letters.causes(1000)]
        told = {"rows": rows, "start": start, "total": len(found), "causes": causes, "states": STATES}
        view = self._lookout.view()
        return _json(
            told
            | {"open": len(self._lookout.letters), "forgotten": self._lookout.letters.forgotten}
            | {"reading": view["reading"], "error": view["error"]}
        )

    def _matching(self, wanted: Wanted) -> list[Letter]:
        return wanted.of(self._lookout.letters.all(), self._lookout.files.paths)

    def _row(self, letter: Letter) -> dict[str, Any]:
        paths = self._lookout.files.paths
        row = letter._asdict() | {"files": [paths.get(file, file) for file in letter.files]}
        del row["messages"]
        return row

    async def letter(self, request: web.Request) -> web.Response:
        """One letter with all that it says."""
        stored = self._lookout.letters.stored(request.query.get("key", ""))
        if stored is None:
            return _json({"error": "this letter is not open: it was redriven or discarded"}, 404)
        try:
            return _json(await asyncio.to_thread(exhibit, self._kafka, stored))
        except Unreachable as error:
            return _json({"error": str(error)}, 503)
        except Problem as error:
            return _json({"error": str(error)}, 404)

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus's."""
        self._role.told()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(self, _: web.Request) -> web.Response:
        """Whether the process runs."""
        fine, told = await self._readiness.alive()
        return _json(told, 200 if fine else 503)

    async def ready(self, _: web.Request) -> web.Response:
        """Whether it does its work."""
        fine, told = await self._readiness.ready()
        return _json(told, 200 if fine else 503)
