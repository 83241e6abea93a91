"""``bench dispatch``: batches from their topic to a sink, one core for each contender."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from io import BytesIO
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientSession
from confluent_kafka import Producer

from schemas import batch
from schemas.batch import Batch, Source
from schemas.descriptor import Descriptor
from schemas.errors import Problem
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

#: Batches that are sent one by one, after others that warm up, and the mean time between two.
_SINGLE, _WARM_UP, _EVERY_S = 400, 100, 0.03


class Dispatch:
    """The contest, and what dispatch adds to a sink's own time; on ``lab``.

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
        with Sink() as sink:
            alone_ms = float(np.median(asyncio.run(_alone(sink.url)))) * 1000
        cuts = np.percentile(np.array(self._single()) * 1000 - alone_ms, [50, 99])
        figures = {"POST alone ms": alone_ms, "p50 ms": cuts[0], "p99 ms": cuts[1]}
        return result | {"overhead": {name: round(float(ms), 1) for name, ms in figures.items()}}

    def _baseline(self) -> float:
        group = f"bench-posts-{next(self._runs)}"
        return rate("posts", self._lab.broker.bootstrap, group, self._batches * RECORDS)

    def _dispatch(self) -> float:
        """Send the whole topic; records per second between the first and the last booking."""
        rewind(self._settings.kafka, DISPATCHING, BATCHES)
        began, gauge = datetime.now().astimezone().timestamp(), Gauge(self._settings, {})
        with self._worker() as (_, wait):
            wait(lambda: gauge.caught_up(BATCHES, DISPATCHING))
        ended = receipts.read(self._settings.kafka)
        at = sorted(datetime.fromisoformat(receipt.at).timestamp() for _, receipt in ended)
        at = [moment for moment in at if moment >= began]
        return (len(at) - 1) * RECORDS / (at[-1] - at[0])

    def _single(self) -> list[float]:
        """Of single batches, the seconds from when one can be read to when the sink has read all of it."""
        appended: dict[str, float] = {}
        with self._worker() as (sink, wait):
            first = self._filler.add()
            wait(lambda: first in sink.taken())  # everything runs
            for _ in range(_WARM_UP + _SINGLE):
                time.sleep(random.expovariate(1 / _EVERY_S))
                appended[self._filler.add()] = time.time()
            wait(lambda: appended.keys() <= sink.taken().keys())
            taken = sink.taken()
        return [taken[key] - at for key, at in appended.items()][_WARM_UP:]

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


async def _alone(url: str) -> list[float]:
    """The seconds that it takes to POST the same to a sink from a loop that does nothing else."""
    seconds, bodies = [], [made.body for made in _batches()]
    async with ClientSession() as session:
        for number in range(_WARM_UP + _SINGLE):
            await asyncio.sleep(random.expovariate(1 / _EVERY_S))
            began = time.perf_counter()
            async with session.post(url, data=BytesIO(bodies[number % _BODIES])) as answer:
                await answer.read()
            seconds.append(time.perf_counter() - began)
    return seconds[_WARM_UP:]


class _Filler:
    """Appends batches, partition after partition."""

    def __init__(self, loaded: settings.Settings) -> None:
        self._producer = Producer(
            loaded.kafka.confluent(message_max_bytes=BATCHES.max_message_bytes, linger_ms=0)
        )
        self._made, self._numbers = cycle(list(_batches())), count()

    def add(self) -> str:
        """Append one more; gives its key once it can be read."""
        number = next(self._numbers)
        first = number // BATCHES.partitions * RECORDS
        partition, last = number % BATCHES.partitions, first + RECORDS - 1
        source = Source(partition, first, last, RECORDS, f"0-{RECORDS - 1}")
        key = sha256(b"%d" % number).hexdigest()
        made = next(self._made)._replace(key=key, batch_id=key[:32])
        headers = made.headers(source, [], ["spot"], int(time.time() * 1000))
        self._producer.produce(BATCHES.name, made.body, key, partition=partition, headers=headers)
        self._producer.flush()
        return key


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
