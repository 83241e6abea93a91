"""Answers that no server should give, byte by byte: each is one more try, or dead letters."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from sending import Line, batch, line

from schemas.batch import Source
from schemas.letter import DeadLetter, Receipt
from streams.dispatch import halving
from streams.dispatch.message import Message
from streams.dispatch.settlement import Settlement, settle

SOURCE = Source(0, 100, 101, 2, "0-1")
BOOKED = b'{"accepted":2,"duplicates":0}'

Play = Callable[[asyncio.StreamWriter], Any]


def http(status: object, body: bytes, *headers: bytes, length: object = None) -> bytes:
    """An answer; ``length``: what it says of itself."""
    told = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} X".encode(), b"Content-Length: %b" % str(told).encode(), *headers]
    return b"\r\n".join([*lines, b"", body])


def refused(*named: Any) -> bytes:
    return http(422, json.dumps({"message": "no", "rejected": named}).encode())


def partly(*named: Any, accepted: object = 1) -> bytes:
    return http(207, json.dumps({"accepted": accepted, "duplicates": 0, "rejected": named}).encode())


NO = {"index": 0, "code": "c", "message": "m"}
HALF = http(
    207, b'{"accepted":1,"duplicates":0,"rejected":[{"index":0,"code":"\\ud800","message":"late \\ud83d"}]}'
)
ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "noise": random.Random(1).randbytes(3000),
    "NULs": bytes(5000),
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "status 99999": http(99999, BOOKED),
    "status -1": http(-1, BOOKED),
    "status 000": http("000", BOOKED),
    "status 299": http(299, BOOKED),
    "status 100 for ever": b"HTTP/1.1 100 Continue\r\n\r\n" * 2000,
    "status 101": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + BOOKED,
    "status 204": b"HTTP/1.1 204 X\r\n\r\n",
    "status 205 with a body": http(205, BOOKED),
    "status 302 to itself": http(302, b"", b"Location: /v2/ingest"),
    "status 304": http(304, BOOKED),
    "a body too short": http(200, BOOKED, length=len(BOOKED) + 9),
    "a body too long": http(200, BOOKED + b"HTTP/1.1 200 OK\r\n\r\n"),
    "length -1": http(200, BOOKED, length=-1),
    "length 10^30": http(200, BOOKED, length=10**30),
    "two lengths": http(200, BOOKED, b"Content-Length: 3"),
    "length and chunks": http(200, b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    "chunks of size zz": b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "a chunk of 10^15": b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n38D7EA4C68000\r\nhello",
    "not gzip": http(200, BOOKED, b"Content-Encoding: gzip"),
    "brotli": http(200, BOOKED, b"Content-Encoding: br"),
    "encoded by nobody": http(200, BOOKED, b"Content-Encoding: rot13"),
    "a header without a colon": http(200, BOOKED, b"nonsense"),
    "a header that is no text": http(422, b"{}", b"X-Odd: \xff\xfe\x80"),
    "a header name that is no text": http(422, b"{}", b"X-\xff: odd"),
    "a NUL in a header": http(422, b"{}", b"X-Odd: a\0b"),
    "a header of 100 kB": http(422, b"{}", b"X-Long: " + b"x" * 100_000),
    "10,000 headers": http(422, b"{}", *[b"X-%d: y" % n for n in range(10_000)]),
    "Retry-After: nonsense": http(503, b"{}", b"Retry-After: \xff9999999999999999999999"),
    "RateLimit: nonsense": http(422, b"{}", b'RateLimit: "\xff";r=-1;t=1e400', b"RateLimit-Policy: ((("),
    "no UTF-8": http(422, b'{"message":"\xff\xfe"}'),
    "half a surrogate": http(422, b'{"message":"\\ud800","rejected":[]}'),
    "half a surrogate, 207": HALF,
    "a NUL in a message": http(422, b'{"message":"a\\u0000b"}'),
    "JSON nested too deep": http(422, b"[" * 100_000),
    "JSON nested too deep, 200": http(200, b'{"accepted":' * 100_000),
    "a number without end": http(200, b'{"accepted":' + b"9" * 100_000 + b',"duplicates":0}'),
    "a name twice": http(200, b'{"accepted":1,"accepted":2,"duplicates":0}'),
    "NaN": http(200, b'{"accepted":NaN,"duplicates":0}'),
    "null": http(200, b"null"),
    "a list": http(200, b"[]"),
    "2.0": http(200, b'{"accepted":2.0,"duplicates":0}'),
    "too many": http(200, b'{"accepted":3,"duplicates":-1}'),
    "207, index -1": partly(NO | {"index": -1}),
    "207, index 2": partly(NO | {"index": 2}),
    "207, index 2^64": partly(NO | {"index": 2**64}),
    "207, index text": partly(NO | {"index": "0"}),
    "207, an index twice": partly(NO, NO, accepted=0),
    "207, no list": partly(accepted=1)[:-3] + b"{} ",
    "207, code a list": partly(NO | {"code": []}),
    "207, a long code": partly(NO | {"code": "x" * 3_000_000, "message": "y" * 3_000_000}),
    "207, a long message": partly(NO | {"message": "é" * 3_000_000}),
    "422, index -1": refused(NO | {"index": -1}),
    "422, index 9": refused(NO | {"index": 9}),
    "422, no index": refused({}),
    "422, null": refused(None),
    "422, 10,000 times": refused(*[NO | {"index": n} for n in range(10_000)]),
    "422, message an object": http(422, b'{"message":{"a":[1]}}'),
    "422, message nested": http(422, b'{"message":%b1%b}' % (b"[" * 1020, b"]" * 1020)),
    "422, a long message": http(422, b'{"message":"%b"}' % (b"x" * 3_000_000)),
    "422, odd": http(422, '{"message":"\u2028\ufeff\U0001f4a9"}'.encode()),
}  # fmt: skip


@asynccontextmanager
async def saying(play: Play) -> AsyncIterator[str]:
    """A server that reads a request and plays; gives its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            await play(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def just(answer: bytes) -> Play:
    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return play


async def settled(sut: Line) -> Settlement | None:
    """How a batch ends; None when it still waits for a better answer. What is written can be read."""
    one = batch(1, 2)
    try:
        how = await asyncio.wait_for(halving.deliver(sut.delivery, one), 4)
    except TimeoutError:
        return None
    found = settle(Message(one, SOURCE, {"batch-id": one.batch_id}), how, {})
    assert found.receipt
    assert Receipt.load(found.receipt.dump()) == found.receipt
    for _, letter in found.letters:
        assert DeadLetter.load(letter.dump()) == letter
        assert letter.connect_headers("avion.raw")
        assert len(letter.dump()) < 100_000
    assert len(found.receipt.dump()) < 10_000
    return found


async def answered(answer: bytes) -> Settlement | None:
    async with saying(just(answer)) as url, line(url=url, timeout_s=2, give_up_after_attempts=2) as sut:
        return await settled(sut)


@pytest.mark.parametrize("name", ANSWERS)
async def test_it_is_a_try_or_a_letter(name: str) -> None:
    found = await answered(ANSWERS[name])
    # Only what accounts for every record ends a batch as delivered.
    if found and found.receipt and found.receipt.status == "delivered":
        receipt = found.receipt
        assert receipt.accepted + receipt.duplicates + len(receipt.rejected) == 2


async def test_booked_with_a_message_cut_inside_an_emoji_is_delivered() -> None:
    found = await answered(HALF)
    assert found
    assert found.receipt
    assert found.receipt.status == "delivered"
    assert found.receipt.rejected == [{"index": 0, "code": "?", "message": "late ?"}]


@pytest.mark.parametrize(
    ("named", "code", "message"),
    [
        ({"index": 0, "code": 1042, "message": "m"}, "1042", "m"),
        ({"index": 0, "code": 4.5, "message": 7}, "4.5", "7"),
        ({"index": 0, "code": "c", "message": None}, "c", ""),
        ({"index": 0, "code": None}, "", ""),
        ({"index": 0}, "", ""),
        ({"index": 0, "code": [], "message": {"en": "m"}, "more": 1}, "", ""),
    ],
)
async def test_whatever_a_rejection_s_code_and_message_are_it_was_booked(
    named: Any, code: str, message: str
) -> None:
    found = await answered(partly(named))
    assert found
    assert found.receipt
    assert (found.receipt.status, found.receipt.attempts) == ("delivered", 1)
    assert found.receipt.rejected == [{"index": 0, "code": code, "message": message}]
    assert [letter.reasons for _, letter in found.letters] == [
        [{"field": "", "value": code, "rule": message}]
    ]


async def test_booked_with_null_for_no_rejections_is_delivered() -> None:
    found = await answered(http(200, b'{"accepted":2,"duplicates":0,"rejected":null}'))
    assert found
    assert found.receipt
    assert (found.receipt.status, found.receipt.attempts) == ("delivered", 1)


async def test_whatever_is_flipped_cut_or_put_in() -> None:
    choose = random.Random(3)
    genuine = [
        http(200, BOOKED), partly(NO), refused(NO), http(503, b'{"message":"m"}', b"Retry-After: 0"),
        http(422, b'{"message":"m"}'),
    ]  # fmt: skip
    made: list[bytes] = []

    async def play(writer: asyncio.StreamWriter) -> None:
        answer = bytearray(choose.choice(genuine))
        for _ in range(choose.choice([1, 1, 2, 5])):
            at = choose.randrange(len(answer) or 1)
            answer[at : at + choose.choice([0, 1, 1, 5])] = choose.choice(
                [b"", b"\xff", b"\0", b"\r\n", b'"', b"9", b"\\ud800"]
            )
        made.append(bytes(answer))
        writer.write(made[-1])

    async with saying(play) as url:
        for _ in range(60):
            async with line(url=url, timeout_s=0.5, give_up_after_attempts=1) as sut:
                await settled(sut)
    assert len(made) > 60


async def gives_up_after(play: Play, timeout_s: float, attempts: int) -> float:
    """The seconds until a batch that is answered so is given up."""
    begin = time.monotonic()
    async with (
        saying(play) as url,
        line(url=url, timeout_s=timeout_s, give_up_after_attempts=attempts) as sut,
    ):
        found = await settled(sut)
    assert found
    assert found.letters[0][1].reason == "gave_up"
    return time.monotonic() - begin


async def test_headers_without_end_cost_neither_memory_nor_time() -> None:
    sent = 0

    async def play(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"".join(b"X-%d-%d: %b\r\n" % (sent, n, b"y" * 200) for n in range(1000)))
            sent += 1
            await writer.drain()

    before = psutil.Process().memory_info().rss
    assert await gives_up_after(play, timeout_s=3, attempts=1) < 8
    assert psutil.Process().memory_info().rss - before < 100e6, sent


async def test_a_drip_ends_with_the_request_s_time() -> None:
    async def play(writer: asyncio.StreamWriter) -> None:
        for byte in http(200, BOOKED):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.1)

    assert await gives_up_after(play, timeout_s=1, attempts=2) < 4
