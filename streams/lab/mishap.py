"""What a scripted fault does to a request, down to the TCP connection."""

import asyncio
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any

import orjson
from aiohttp import web

from schemas.letter import RecordRejection
from streams.lab.faults import Fault
from streams.lab.refusal import Refusal

_PIECES = 16  # of a slow answer
_RST = struct.pack("ii", 1, 0)  # SO_LINGER, for no time


async def befall(
    request: web.Request,
    struck: Sequence[Fault],
    answer: Mapping[str, Any],
    named: Sequence[RecordRejection] = (),
) -> web.StreamResponse | None:
    """Play the faults that struck; the answer (perhaps on a dead connection), None if the request goes on.

    ``answer`` is what a healthy sandbox would say now, ``named`` are the records that a refusal names.
    """
    for fault in struck:
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
        elif fault.ends_the_request:
            return await _spoilt(request, fault, orjson.dumps(answer), named)
    return None


async def _spoilt(
    request: web.Request, fault: Fault, answer: bytes, named: Sequence[RecordRejection]
) -> web.StreamResponse:
    match fault.kind:
        case "status":
            return Refusal(fault.status, fault.code, fault.message, _retry_after(fault), named).response()
        case "not_json":
            return web.Response(text="<html><body>Gateway</body></html>", content_type="text/html")
        case "truncated":
            return await _trickle(request, answer, len(answer) // 2, 0.0)
        case "slow":
            return await _trickle(request, answer, len(answer), fault.seconds)
        case "hang":
            await _until_gone(request, fault.seconds)
    return _reset(request)


def _retry_after(fault: Fault) -> dict[str, str]:
    if fault.retry_after is None:
        return {}
    if fault.retry_after_form == "seconds":
        return {"Retry-After": str(fault.retry_after)}
    return {"Retry-After": formatdate(time.time() + fault.retry_after, usegmt=True)}


def _reset(request: web.Request) -> web.Response:
    transport = request.transport
    if transport is not None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        transport.abort()
    return web.Response()  # goes nowhere; aiohttp wants one


async def _until_gone(request: web.Request, seconds: float) -> None:
    """Wait ``seconds``, or until the client has hung up."""
    deadline = time.monotonic() + seconds
    # aiohttp sets no event when a client hangs up.
    while request.transport is not None and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def _trickle(request: web.Request, body: bytes, sent: int, seconds: float) -> web.StreamResponse:
    """Answer 200 with ``sent`` bytes in pieces over ``seconds``; end the connection if more were due."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    step = max(1, sent // _PIECES)
    for at in range(0, sent, step):
        await response.write(body[at : min(sent, at + step)])
        await asyncio.sleep(seconds * step / sent)
    if sent < len(body) and request.transport is not None:
        request.transport.close()
    return response
