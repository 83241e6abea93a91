"""Records from a network stream: ``python stream.py HOST PORT``.

The server is told after which number to go on, and sends an object a line: ``{"number": 7, "record": {…}}``.
Each number is a position: what has arrived is committed within moments, some hundred to thousands at a time.
When Kafka is slow or away nothing more is read, so that TCP holds the sender back.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from streams import log, settings
from streams.feed import AsyncFeed

HEADER = (
    *("Type", "Call Sign", "Air Date", "Spot ID", "Campaign", "Advertiser Name", "ISCI"),
    *("Time", "Len", "Daypart", "Status", "Spot Rate", "Bill Code"),
)


async def received(host: str, port: int, after: int) -> AsyncIterator[tuple[dict[str, Any], int]]:
    """Each record and its number, until the server closes the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"%d\n" % after)
    async for line in reader:
        message = json.loads(line)
        yield message["record"], message["number"]
    writer.close()


async def main(host: str, port: int) -> None:
    """Feed what arrives."""
    ours = settings.load()
    log.configure(ours.log)
    async with AsyncFeed(ours, "network", profile="avion", header=HEADER) as feed:
        async for record, number in received(host, port, feed.position or 0):
            await feed.publish([record], number)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
