"""``bench dispatch``: batches from their topic to a sink, one core for each contender."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from io import BytesIO
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from aiohttp import ClientSession
from confluent_kafka import Producer

from schemas import batch
from schemas.batch import Batch, Source
from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.letter import Receipt
from schemas.profile import load as load_profile
from schemas.records import Valid
from streams import settings
from streams.lab.bench.baselines import rate
from streams.lab.bench.children import limit_s, running, until
from streams.lab.bench.contest import Contender, Contest, say
from streams.lab.bench.groups import rewind
from streams.lab.bench.sink import RECORDS, Sink
from streams.lab.gauge import Gauge
from streams.lab.generate import generate
from streams.lab.up import Lab
from streams.recovery import receipts
from streams.validate.judge import Judge
from topics.catalogue import BATCHES, DISPATCHING

#: Different bodies; the keys are all different.
_BODIES = 10

#: Batches that are sent one by one, after others that warm up, and as many POSTs alone.
_SINGLE, _WARM_UP = 1000, 100
#: Between a batch and a POST, in seconds: nothing is under way any more, and nothing keeps step with them.
_PAUSE_S = (0.02, 0.06)


class Dispatch:
    """The contest, and what dispatch adds to a POST; on ``lab``.

    Its batch topic is filled first, with ten times ``records``.
    """

    def __init__(self, lab: Lab, folder: Path, records: int) -> None:
        self._lab, self._folder = lab, folder
        self._settings = settings.load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})
        self._batches = max(50, 10 * records // RECORDS)
        self._filler = _Filler(self._settings)
        for _ in range(self._batches):
            self._filler.add()
        self._runs = count()

    def hold(self, runs: int) -> dict[str, Any]:
        """Hold the contest, then send single batches; gives what :func:`.contest.show` shows."""
        contenders = [
            Contender("spotstream worker --role dispatch (receipts, transactions)", self._dispatch),
            Contender("aiokafka getmany, 15 POSTs at once, commit", self._baseline),
        ]
        work = f"{self._batches:,} batches of {RECORDS:,} records to a sink on this machine, one core"
        result = Contest("dispatch", work, contenders).hold(runs)
        say("dispatch: single batches")
        return result | {"overhead": beyond(*self._single())}

    def _baseline(self) -> float:
        group = f"bench-posts-{next(self._runs)}"
        return rate("posts", self._lab.broker.bootstrap, group, self._batches * RECORDS)

    def _dispatch(self) -> float:
        """Send the whole topic; gives :func:`rate_of` the receipts."""
        rewind(self._settings.kafka, DISPATCHING, BATCHES)
        began, gauge = datetime.now().astimezone().timestamp(), Gauge(self._settings, {})
        with self._worker() as (_, wait):
            wait(lambda: gauge.caught_up(BATCHES, DISPATCHING))
        ended = [receipt for _, receipt in receipts.read(self._settings.kafka)]
        return rate_of([receipt for receipt in ended if _moment(receipt) >= began], self._batches)

    def _single(self) -> tuple[list[float], list[float]]:
        """Of single batches, and of POSTs of the same to the same sink by turns, the seconds that each took.

        Of a batch from before it is handed to the producer, of a POST from before it is sent; of both until
        the sink has read all of it.
        """
        with self._worker() as (sink, wait):
            first = self._filler.add()
            wait(lambda: first.key in sink.taken())  # everything runs
            batches, posts = asyncio.run(self._by_turns(sink.url))
            wait(lambda: batches.keys() | posts.keys() <= sink.taken().keys())
            taken = sink.taken()
        batch_s, post_s = ([taken[key] - at for key, at in began.items()] for began in (batches, posts))
        return batch_s[_WARM_UP:], post_s[_WARM_UP:]

    async def _by_turns(self, url: str) -> tuple[dict[str, float], dict[str, float]]:
        """Append batches, and POST the same from here; by key, when each began."""
        batches: dict[str, float] = {}
        posts: dict[str, float] = {}
        pauses = random.Random(8)
        async with ClientSession() as session:
            for _ in range(_WARM_UP + _SINGLE):
                await asyncio.sleep(pauses.uniform(*_PAUSE_S))
                appended = self._filler.add()
                batches[appended.key] = appended.began
                await asyncio.sleep(pauses.uniform(*_PAUSE_S))
                key, body = f"alone-{appended.key}", BytesIO(appended.body)
                posts[key] = time.time()
                async with session.post(url, data=body, headers={"Idempotency-Key": key}) as answer:
                    await answer.read()
        return batches, posts

    @contextmanager
    def _worker(self) -> Iterator[tuple[Sink, Callable[[Callable[[], bool]], None]]]:
        """A worker that sends to a sink, and what waits for a condition.

        That raises :class:`Problem` when the worker ends or takes too long.
        """
        log = self._folder / f"worker-{next(self._runs)}.log"
        command = [sys.executable, "-m", "streams.cli", "worker", "--role", "dispatch"]
        with Sink() as sink, log.open("wb") as output:
            given = {"AVSTAR__BASE_URL": sink.url, "WORKER__WEB_PORT": "0"}
            environment = self._lab.environment | {f"SPOTSTREAM_{name}": of for name, of in given.items()}
            environment["PATH"] = "/usr/bin:/bin"
            with running(command, core=-1, stderr=output, env=environment) as worker:
                yield sink, partial(self._until, worker, log)

    def _until(self, worker: "subprocess.Popen[Any]", log: Path, condition: Callable[[], bool]) -> None:
        failure = Problem("did not send all batches", where=f"spotstream worker, see {log}")
        until(condition, [worker], limit_s(self._batches * RECORDS), lambda: failure)


def rate_of(ended: Sequence[Receipt], batches: int) -> float:
    """Records per second between the first and the last booking of so many batches.

    Raises :class:`Problem` unless each has a receipt, and all of its records are accepted.
    """
    accepted = sum(receipt.accepted for receipt in ended)
    if (len(ended), accepted) != (batches, batches * RECORDS):
        raise Problem(
            f"{batches:,} batches have {len(ended):,} receipts, of {accepted:,} records",
            where="spotstream worker",
        )
    at = sorted(map(_moment, ended))
    return (len(at) - 1) * RECORDS / (at[-1] - at[0])


def _moment(receipt: Receipt) -> float:
    return datetime.fromisoformat(receipt.at).timestamp()


def beyond(batch_s: Sequence[float], post_s: Sequence[float]) -> dict[str, float]:
    """What batches took, what POSTs alone, and how much more it is, percentile by percentile, in ms."""
    batch, post = (np.percentile(np.array(seconds) * 1000, [50, 99]) for seconds in (batch_s, post_s))
    figures = {"batch": batch, "POST": post, "beyond": batch - post}
    return {
        f"{name} {percentile} ms": round(float(ms), 1)
        for name, cuts in figures.items()
        for percentile, ms in zip(("p50", "p99"), cuts, strict=True)
    }


class _Appended(NamedTuple):
    """A batch on its topic; ``began``: when it was handed to the producer, in seconds since 1970."""

    key: str
    body: bytes
    began: float


class _Filler:
    """Appends batches, partition after partition."""

    def __init__(self, loaded: settings.Settings) -> None:
        self._producer = Producer(
            loaded.kafka.confluent(message_max_bytes=BATCHES.max_message_bytes, linger_ms=0)
        )
        self._made, self._numbers = cycle(list(_batches())), count()

    def add(self) -> _Appended:
        """Append one more; it can be read when this returns."""
        number = next(self._numbers)
        first = number // BATCHES.partitions * RECORDS
        partition, last = number % BATCHES.partitions, first + RECORDS - 1
        source = Source(partition, first, last, RECORDS, f"0-{RECORDS - 1}")
        key = sha256(b"%d" % number).hexdigest()
        made = next(self._made)._replace(key=key, batch_id=key[:32])
        headers = made.headers(source, [], ["spot"], int(time.time() * 1000))
        began = time.time()
        self._producer.produce(BATCHES.name, made.body, key, partition=partition, headers=headers)
        self._producer.flush()
        return _Appended(key, made.body, began)


def _batches() -> Iterator[Batch]:
    profile = load_profile("avion")
    header, *lines = generate(int(_BODIES * RECORDS * 1.01), seed=3)
    cells = tuple(header.data.decode().rstrip("\r\n").split(","))
    judge = Judge(Descriptor(path="bench", identity="0" * 32, format=profile.format, encoding="utf-8",
                             header=cells, profile=profile))  # fmt: skip
    judged = judge.judge([line.data for line in lines if line.number])
    bodies = [(one.placement_hash, one.canonical) for one in judged if isinstance(one, Valid)]
    for begin in range(0, _BODIES * RECORDS, RECORDS):
        yield batch.build(bodies[begin : begin + RECORDS])
