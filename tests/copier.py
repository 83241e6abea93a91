"""A process that copies one topic to another through the chunk transport: the ownership protocol, bare.

``python tests/copier.py BOOTSTRAP GROUP SOURCE TARGET [CHUNK]``; each source record becomes one target
record with the same key, value and partition. Prints a line when an assignment is complete.
"""

import asyncio
import signal
import sys
from functools import partial

from topics.connection import KafkaSettings
from topics.ownership import Owned, Ownership
from topics.transaction import OwnershipLostError, send_all
from topics.transport import App


class CopyLane:
    """Copies what it is fed, one transaction per wake-up."""

    def __init__(self, owned: Owned, target: str) -> None:
        self.owned, self.target = owned, target
        self.pending = []
        self.wake = asyncio.Event()
        self.finishing = False
        self.task = asyncio.create_task(self.run())

    def feed(self, records):
        self.pending += records
        self.wake.set()

    async def run(self):
        try:
            while not self.finishing:
                await self.wake.wait()
                self.wake.clear()
                if self.pending and not self.finishing:
                    window, self.pending = self.pending, []
                    produce = partial(self.produce, [{"key": r.key, "value": r.value} for r in window])
                    await self.owned.commit(produce, window[-1].offset + 1)
        except OwnershipLostError:
            print("lost", flush=True)

    def produce(self, messages, producer):
        send_all(producer, self.target, messages, self.owned.partition.partition)

    async def finish(self):
        self.finishing = True
        self.wake.set()
        await self.task


def make_app(bootstrap, group, source, target, chunk=500, lane=CopyLane, ownership=None, **options):
    owner = Ownership(
        KafkaSettings(bootstrap_servers=bootstrap),
        group,
        lane=lambda owned: lane(owned, target),
        transaction_timeout_s=15,
        session_timeout_s=6,
        drain_s=2,
        **(ownership or {}),
    )
    return App(owner, source, max_poll_records=chunk, web_enabled=False, **options)


async def main(bootstrap, group, source, target, chunk="500"):
    app = make_app(bootstrap, group, source, target, int(chunk))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await app.start()
    print("started", flush=True)
    crashed = asyncio.create_task(app._crashed.wait())
    await asyncio.wait([asyncio.create_task(stop.wait()), crashed], return_when=asyncio.FIRST_COMPLETED)
    await app.stop()
    return 1 if app.crashed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
