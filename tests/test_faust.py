"""What faust-streaming does to records (docs/upstream), and that the same does nothing to ours. No broker.

Not here: what needs a broker is in test_ownership.py, that a lane which fails commits nothing
(`test_a_lane_that_raises_ends_the_process_and_commits_nothing`) above all; a failed send fails the
transaction in librdkafka. `take`, tables and the threaded producer, whose shutdown hangs, are not used. That
an event costs 100 µs is for `spotstream bench`.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.structs import TopicPartition
from copier import make_app
from faust.transport.conductor import ConductorCompiler
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from topics.ownership import Chunk
from topics.transport import App, ChunkSchema, Consumer

_PAGES = sorted(set((Path(__file__).parents[1] / "docs" / "upstream").glob("*.md")))
NOWHERE = "127.0.0.1:9"
PARTITION = TP("records", 0)


def block(page: Path, language: str) -> str:
    """The one of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize(
    "page", [page for page in _PAGES if page.stem != "README"], ids=lambda page: page.stem
)
def test_upstream_still_does_it(page: Path) -> None:
    """As the page says. If not: it was mended, and what we do about it may go."""
    command = [sys.executable, "-c", block(page, "python")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == block(page, "text"), done.stderr


def test_each_page_is_listed() -> None:
    (index,) = [page for page in _PAGES if page.stem == "README"]
    assert {f"{name}.md" for name in re.findall(r"\(([a-z_-]+)\.md\)", index.read_text("utf-8"))} == {
        page.name for page in _PAGES if page != index
    }


async def taken(values: list[Any], take: str) -> tuple[list[Any], list[Any]]:
    """A batch of all the values by Faust's ``take``, and what of it was acked when the next was asked for."""
    app = faust.App("stock", broker=f"kafka://{NOWHERE}")
    app.flow_control.resume()
    channel = app.channel()
    stream, acked = channel.stream(), []

    async def ack(event: Any) -> None:
        acked.append(event.value)

    stream.ack = ack
    batches = getattr(stream, take)(len(values), within=10)
    first = asyncio.ensure_future(anext(batches))
    await stream._passive_started.wait()
    for value in values:
        await channel.send(value=value)
    batch = await first
    following = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    following.cancel()
    return batch, acked


async def test_noack_take_acks_nothing() -> None:
    """A later ack of anything commits past the hole; so Faust's acks are not what decides here."""
    batch, acked = await taken([1, 2], "noack_take")
    assert [getattr(one, "value", one) for one in batch] == [1, 2]
    assert acked == []


async def test_take_mixes_partitions() -> None:
    """The same records, read again, would form other batches, and those other keys: windows are a lane's."""
    batch, _ = await taken([("partition 0", 1), ("partition 1", 1)], "take")
    assert len({partition for partition, _ in batch}) == 2


@pytest.fixture
async def app() -> AsyncIterator[App]:
    """Ours, not started."""
    app = make_app(NOWHERE, "ours", "records", "copies")
    app.flow_control.resume()
    app.topics._acking_topics.add("records")
    yield app
    app.ownership._positions.close()
    app.ownership._threads.shutdown(wait=False)


@pytest.fixture
def consumer(app: App, monkeypatch: pytest.MonkeyPatch) -> Consumer:
    """Its consumer, that would own the partition, and fails when something is committed."""
    consumer: Consumer = app.consumer

    async def commit(offsets: Any) -> bool:
        pytest.fail(f"committed {offsets}")

    monkeypatch.setattr(consumer, "_commit", commit)
    monkeypatch.setattr(consumer, "assignment", lambda: {PARTITION})
    return consumer


def message(offset: int, value: Any = b"") -> ConsumerMessage:
    return ConsumerMessage("records", 0, offset, 0.0, 0, (), None, value, None, 0, 0, PARTITION)


@pytest.mark.parametrize(("committed", "acked"), [(34, [35]), (None, [5000, 5001]), (None, [0])])
async def test_nothing_is_committed(consumer: Consumer, committed: int | None, acked: list[int]) -> None:
    """By whatever way Faust comes to it."""
    consumer._committed_offset[PARTITION] = committed
    consumer._acked[PARTITION] = acked
    assert not await consumer.commit()
    await consumer.commit_and_end_transactions()
    await consumer.wait_empty()
    await consumer.on_task_error(RuntimeError())


async def test_work_is_drained_before_a_revocation_forgets_it(consumer: Consumer) -> None:
    """What is done by then is in transactions of its own; what Faust acks later is committed by nobody."""
    seen = []
    lane = SimpleNamespace(finish=finish_into(seen, consumer))
    consumer.ownership._lanes[TopicPartition(*PARTITION)] = SimpleNamespace(abandon=lambda: None), lane

    async def while_the_streams_end(revoked: set[TP]) -> None:
        consumer.ack(message(120))
        await consumer.commit()

    consumer._committed_offset[PARTITION] = 100
    consumer._on_partitions_revoked = while_the_streams_end
    await consumer.on_partitions_revoked({PARTITION})
    assert seen == [100]


def finish_into(seen: list[Any], consumer: Consumer) -> Any:
    async def finish() -> None:
        seen.append(consumer._committed_offset[PARTITION])

    return finish


async def test_gaps_are_not_counted(consumer: Consumer) -> None:
    async def getmany(timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        for offset in (10, 13, 14):
            yield PARTITION, message(offset)
        consumer._stopped.set()

    delivered = []

    async def handle(message: ConsumerMessage) -> None:
        delivered.append(message.offset)

    consumer.getmany, consumer.callback = getmany, handle  # type: ignore[method-assign]
    await consumer._drain_messages(consumer)
    assert delivered == [10, 13, 14]
    assert not consumer._gap[PARTITION]


async def test_a_chunk_of_an_earlier_assignment_is_dropped(consumer: Consumer) -> None:
    fed: list[Any] = []
    partition, ownership = TopicPartition(*PARTITION), consumer.ownership
    owned = SimpleNamespace(next_sequence=0, lost=False)
    ownership._lanes[partition] = owned, SimpleNamespace(feed=fed.append)
    ownership.epoch = 2
    ownership.feed(Chunk(partition, 1, 0, ["late"]))
    ownership.feed(Chunk(partition, 2, 0, ["read again"]))
    assert fed == [["read again"]]


async def test_a_record_is_not_decoded_by_faust(app: App) -> None:
    """So none is acked that no handler has seen: the chunk arrives as it is."""
    topic = app.topic("records", schema=ChunkSchema(), acks=False, value_serializer="json")
    chunk = Chunk(TopicPartition(*PARTITION), 1, 0, [b"{"])
    arrived = message(7, chunk)
    await ConductorCompiler().build(app.topics, PARTITION, {topic})(arrived)
    assert topic.queue.get_nowait().value is chunk
    assert not arrived.acked


async def test_only_what_is_committed_is_read(app: App) -> None:
    made = app.consumer._thread._create_worker_consumer(app.transport)
    assert made._isolation_level == "read_committed"
    assert made._auto_offset_reset == "none"
    await made.stop()


async def test_the_drain_has_a_bound(consumer: Consumer) -> None:
    consumer._unacked_messages.add(hangs := message(7))
    await consumer.wait_empty()
    assert not hangs.acked
    abandoned = []
    owned = SimpleNamespace(abandon=lambda: abandoned.append(1))
    ownership = consumer.ownership
    ownership._drain_s = 0.05
    lane = SimpleNamespace(finish=asyncio.Event().wait)
    ownership._lanes[TopicPartition(*PARTITION)] = owned, lane
    await asyncio.wait_for(ownership.release([TopicPartition(*PARTITION)]), 5)
    assert abandoned == [1]


async def test_what_was_fetched_is_delivered_paused_or_not(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer._set_active_tps({PARTITION})
    record = SimpleNamespace(topic="records", partition=0, offset=1, timestamp=0, timestamp_type=0)
    chunk = Chunk(PARTITION, 1, 0, [record])

    async def poll(partitions: frozenset[TP], timeout: float) -> list[Chunk]:
        consumer.pause_partitions({PARTITION})
        return [chunk]

    monkeypatch.setattr(consumer._thread, "poll", poll)
    assert [message.value async for _, message in consumer.getmany(timeout=1)] == [chunk]
