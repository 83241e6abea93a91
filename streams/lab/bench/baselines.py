"""The baselines of ``bench validate``: the loops that people write by hand, and stock Faust.

``python -m streams.lab.bench.baselines NAME BOOTSTRAP GROUP RECORDS`` judges that many raw records with the
product's own judge, POSTs each batch to a sink in a process of its own, commits, and prints records/s.
"""

import asyncio
import gc
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from aiohttp import web
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer

from schemas import batch
from schemas.records import Valid
from streams.lab.service import free_port
from streams.validate.descriptors import Descriptors
from streams.validate.judge import Judge
from topics.catalogue import RAW
from topics.connection import KafkaSettings

_BATCH = 5000


class Work:
    """Judge, batch and POST; measures from the end of the first batch."""

    def __init__(self, bootstrap: str, records: int, sink: str) -> None:
        self._descriptors = Descriptors(KafkaSettings(bootstrap_servers=bootstrap))
        self._judges: dict[bytes, Judge] = {}
        self._sink, self._records = sink, records
        self.done = self._first = 0
        self._began = 0.0

    async def __aenter__(self) -> "Work":
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def do(self, raws: Sequence[tuple[bytes, bytes]]) -> None:
        """One batch of (key, value)."""
        by_file: dict[bytes, list[bytes]] = defaultdict(list)
        for key, value in raws:
            by_file[key[:16]].append(value)
        accepted = []
        for identity, values in by_file.items():
            if identity not in self._judges:
                found = self._descriptors.get(identity)
                assert found is not None  # noqa: S101 - the tailer wrote it
                self._judges[identity] = Judge(found)
            accepted += [v for v in self._judges[identity].judge(values) if isinstance(v, Valid)]
        built = batch.build([(valid.placement_hash, valid.canonical) for valid in accepted])
        async with self._session.post(self._sink, data=built.body) as answer:
            await answer.read()
        self.done += len(raws)
        if not self._began:
            self._began, self._first = time.perf_counter(), len(raws)

    @property
    def finished(self) -> bool:
        """Whether every record has been done."""
        return self.done >= self._records

    def rate(self) -> float:
        """Records per second since the first batch."""
        return (self.done - self._first) / (time.perf_counter() - self._began)


async def _aiokafka(bootstrap: str, group: str, work: Work) -> None:
    consumer = AIOKafkaConsumer(
        RAW.name, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed", max_poll_records=_BATCH,
    )  # fmt: skip
    await consumer.start()
    while not work.finished:
        fetched = await consumer.getmany(timeout_ms=1000, max_records=_BATCH)
        for records in fetched.values():
            await work.do([(record.key, record.value) for record in records])
        await consumer.commit()
    await consumer.stop()


async def _confluent(bootstrap: str, group: str, work: Work) -> None:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
         "auto.offset.reset": "earliest", "isolation.level": "read_committed", "fetch.queue.backoff.ms": 5}
    )  # fmt: skip
    consumer.subscribe([RAW.name])
    while not work.finished:
        messages = consumer.consume(_BATCH, 1.0)
        if messages:
            await work.do([(message.key(), message.value()) for message in messages])
            consumer.commit(asynchronous=False)
    consumer.close()


async def _faust(bootstrap: str, group: str, work: Work) -> None:
    import faust  # noqa: PLC0415 - half a second that the other baselines need not pay

    app = faust.App(
        group, broker=f"kafka://{bootstrap}", web_enabled=False,
        topic_allow_declare=False, topic_disable_leader=True,
        consumer_auto_offset_reset="earliest", stream_buffer_maxsize=65_536, broker_max_poll_records=_BATCH,
    )  # fmt: skip
    done = asyncio.Event()

    @app.agent(app.topic(RAW.name, key_type=bytes, value_type=bytes, value_serializer="raw"))
    async def agent(stream: Any) -> None:
        async for events in stream.take_events(_BATCH, within=1.0):
            await work.do([(event.key, event.value) for event in events])
            if work.finished:
                done.set()

    await app.start()
    await done.wait()
    sys.stdout.write(f"{work.rate()}\n")
    sys.stdout.flush()
    await app.stop()


_CONTENDERS: dict[str, Callable[[str, str, Work], Any]] = {
    "aiokafka": _aiokafka,
    "confluent": _confluent,
    "faust": _faust,
}


def _serve(port: int) -> None:
    async def sink(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="{}")

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/", sink)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


async def _main(name: str, bootstrap: str, group: str, records: str) -> None:
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    server.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    async with Work(bootstrap, int(records), f"http://127.0.0.1:{port}/") as work:
        await _CONTENDERS[name](bootstrap, group, work)
        if name != "faust":
            sys.stdout.write(f"{work.rate()}\n")
    server.terminate()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
