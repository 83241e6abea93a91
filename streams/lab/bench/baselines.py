"""The baselines of ``bench validate``: the loops that people write by hand, and stock Faust.

``python -m streams.lab.bench.baselines NAME BOOTSTRAP GROUP RECORDS URL`` judges that many raw records as one
writes it by hand (:mod:`.handwritten`) or with the product's own judge, POSTs each batch to the sink at URL,
commits, and prints records/s.
"""

import asyncio
import gc
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import aiohttp
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer

from schemas import batch
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.records import Valid
from streams.lab.bench import handwritten
from streams.lab.bench.children import limit_s, running
from streams.lab.bench.sink import RECORDS, Sink
from streams.validate import judge
from streams.validate.descriptors import Descriptors
from topics.catalogue import BATCHES, RAW
from topics.connection import KafkaSettings


def rate(name: str, bootstrap: str, group: str, records: int) -> float:
    """Run the baseline ``name`` in a process of its own, on the last core; gives records per second.

    Raises :class:`Problem` when it fails or takes too long.
    """
    with Sink() as sink:
        command = [sys.executable, "-m", __name__, name, bootstrap, group, str(records), sink.url]
        with running(command, core=-1, stdout=subprocess.PIPE, text=True) as child:
            try:
                out, _ = child.communicate(timeout=limit_s(records))
            except subprocess.TimeoutExpired:
                raise Problem(
                    f"has not ended after {limit_s(records):g} s", where=f"baseline {name}"
                ) from None
    if child.returncode:
        raise Problem(f"ended with status {child.returncode}", where=f"baseline {name}")
    return float(out)


class _Judge(Protocol):
    def accepted(self, values: Sequence[bytes]) -> list[handwritten.Accepted]: ...


class _OurJudge(judge.Judge):
    def accepted(self, values: Sequence[bytes]) -> list[handwritten.Accepted]:
        verdicts = self.judge(values)
        return [(one.placement_hash, one.canonical) for one in verdicts if isinstance(one, Valid)]


class Work:
    """Judge, batch and POST; measures from the end of the first batch."""

    topic, at_once = RAW.name, RECORDS
    judge_of: Callable[[Descriptor], _Judge] = handwritten.Judge

    def __init__(self, bootstrap: str, records: int, sink: str) -> None:
        self._descriptors = Descriptors(KafkaSettings(bootstrap_servers=bootstrap))
        self._judges: dict[bytes, _Judge] = {}
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
        accepted: list[handwritten.Accepted] = []
        for identity, values in by_file.items():
            if identity not in self._judges:
                found = self._descriptors.get(identity)
                assert found is not None  # noqa: S101 - the tailer wrote it
                self._judges[identity] = type(self).judge_of(found)
            accepted += self._judges[identity].accepted(values)
        await self._post(batch.build(accepted).body)
        self._count(len(raws))

    async def _post(self, body: bytes) -> None:
        async with self._session.post(self._sink, data=body) as answer:
            await answer.read()

    def _count(self, records: int) -> None:
        self.done += records
        if not self._began:
            self._began, self._first = time.perf_counter(), records

    @property
    def finished(self) -> bool:
        """Whether every record has been done."""
        return self.done >= self._records

    def rate(self) -> float:
        """Records per second since the first batch."""
        return (self.done - self._first) / (time.perf_counter() - self._began)


class WithOurJudge(Work):
    """The same with the product's own judge."""

    judge_of = _OurJudge


class Posts(Work):
    """Only POST what are batches already, so many at once."""

    topic, at_once = BATCHES.name, 15

    async def do(self, raws: Sequence[tuple[bytes, bytes]]) -> None:
        """These batches."""
        await asyncio.gather(*(self._post(value) for _, value in raws))
        self._count(len(raws) * RECORDS)


async def _aiokafka(bootstrap: str, group: str, work: Work) -> None:
    consumer = AIOKafkaConsumer(
        work.topic, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed", max_poll_records=work.at_once,
        max_partition_fetch_bytes=BATCHES.max_message_bytes,
    )  # fmt: skip
    await consumer.start()
    while not work.finished:
        fetched = await consumer.getmany(timeout_ms=1000, max_records=work.at_once)
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
        messages = consumer.consume(RECORDS, 1.0)
        if messages:
            await work.do([(message.key(), message.value()) for message in messages])
            consumer.commit(asynchronous=False)
    consumer.close()


async def _faust(bootstrap: str, group: str, work: Work) -> None:
    import faust  # noqa: PLC0415 - half a second that the other baselines need not pay

    folder = TemporaryDirectory(prefix="spotstream-bench-")  # for tables, of which there are none
    app = faust.App(
        group, broker=f"kafka://{bootstrap}", web_enabled=False, datadir=folder.name,
        topic_allow_declare=False, topic_disable_leader=True, consumer_auto_offset_reset="earliest",
    )  # fmt: skip
    done = asyncio.Event()

    @app.agent(app.topic(RAW.name, key_type=bytes, value_type=bytes, value_serializer="raw"))
    async def agent(stream: Any) -> None:
        async for events in stream.take_events(RECORDS, within=1.0):
            await work.do([(event.key, event.value) for event in events])
            if work.finished:
                done.set()

    await app.start()
    await done.wait()
    sys.stdout.write(f"{work.rate()}\n")
    sys.stdout.flush()
    await app.stop()
    folder.cleanup()


_CONTENDERS: dict[str, tuple[type[Work], Callable[[str, str, Work], Any]]] = {
    "aiokafka": (Work, _aiokafka),
    "ours": (WithOurJudge, _aiokafka),
    "confluent": (Work, _confluent),
    "faust": (Work, _faust),
    "posts": (Posts, _aiokafka),
}


async def _main(name: str, bootstrap: str, group: str, records: str, sink: str) -> None:
    work_of, loop = _CONTENDERS[name]
    if name != "faust":  # which comes without, and without larger buffers: they make it 1.3 times as fast
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
    async with work_of(bootstrap, int(records), sink) as work:
        await loop(bootstrap, group, work)
        if name != "faust":
            sys.stdout.write(f"{work.rate()}\n")


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
