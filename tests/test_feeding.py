"""The examples of docs/feeding.md, run as their readers would run them."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from legacy import cleaned, example, export, peak_mb
from tailing import line, until
from test_feed import HEADINGS, Source

from streams.lab.kafka import Broker

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("name", ["legacy_csv.py", "legacy_arrow.py"])
def test_a_large_export_in_little_memory(kafka: Broker, tmp_path: Path, name: str) -> None:
    """Rows held back would be some hundred MB more."""
    few, many = export(tmp_path / f"few-{name}", 60_000), export(tmp_path / f"many-{name}", 300_000)
    small, large = (peak_mb(example(kafka.bootstrap, name, path)) for path in (few, many))
    assert Source(kafka.bootstrap, f"legacy-{many.stem}").values() == list(map(cleaned, range(300_000)))
    assert large < small + 30


async def test_a_network_stream_goes_on_after_the_last_number(kafka: Broker) -> None:
    """Its program is killed while records arrive; asked again, the server sends what is missing."""
    source, total = Source(kafka.bootstrap, "network"), 5000
    asked: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(int(await reader.readline()))
        with contextlib.suppress(ConnectionError):
            for number in range(asked[-1] + 1, total + 1):
                cells = line(number).decode().strip().split(",")
                record = dict(zip(HEADINGS, cells, strict=True))
                writer.write(json.dumps({"number": number, "record": record}).encode() + b"\n")
                await writer.drain()
                if not number % 100:
                    await asyncio.sleep(0.01)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        process = example(kafka.bootstrap, "stream.py", "127.0.0.1", port)
        await asyncio.to_thread(until, lambda: source.committed() > 0)
        process.kill()
        process.wait()
        await asyncio.to_thread(peak_mb, example(kafka.bootstrap, "stream.py", "127.0.0.1", port))
    assert asked[0] == 0
    assert 0 < asked[1] < total
    assert source.values() == [line(number)[:-1] + b"\r\n" for number in range(1, total + 1)]
