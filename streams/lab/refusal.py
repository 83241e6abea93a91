"""How the sandbox answers, and how it says no."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from schemas.letter import RecordRejection


class Refusal(Exception):
    """An answer other than success: HTTP status, a short stable ``code``, a message, headers.

    ``rejected`` are the records at fault, where the answer names them.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        rejected: Sequence[RecordRejection] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}
        self.rejected = rejected

    def response(self) -> web.Response:
        """``{"code", "message", "error"}``, RFC 6749 asks for the last of these; perhaps ``rejected``."""
        body: dict[str, Any] = {"code": self.code, "message": self.message, "error": self.code}
        if self.rejected:
            body["rejected"] = self.rejected
        return json_response(self.status, body, self.headers)


def json_response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """``body`` as JSON."""
    return web.Response(
        status=status, body=orjson.dumps(body), content_type="application/json", headers=headers
    )


@web.middleware
async def refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every error has the same form, aiohttp's own (404, 405) too."""
    try:
        return await handler(request)
    except ConnectionResetError:
        return web.Response()  # the client hung up; nobody gets this
    except Refusal as refusal:
        return refusal.response()
    except web.HTTPException as error:
        headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        return Refusal(error.status, error.reason.lower().replace(" ", "_"), error.reason, headers).response()
