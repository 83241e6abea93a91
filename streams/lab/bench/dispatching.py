"""``bench dispatch``: batches from their topic to a sink, one core for each contender."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from itertools import count, cycle, islice
from pathlib import Path

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
from streams.lab.bench.contest import Contender, Contest
from streams.lab.bench.groups import forget
from streams.lab.bench.sink import RECORDS, Sink, pin
from streams.lab.generate import generate
from streams.lab.up import Lab
from streams.validate.judge import Judge
from topics.catalogue import BATCHES, DISPATCHING, RECEIPTS
from topics.reader import read_all

_LONGEST_S = 300.0

#: Different bodies; the keys are all different.
_BODIES = 10


def contest(lab: Lab, folder: Path, records: int) -> Contest:
    """The contest on ``lab``, whose batch topic is filled first, with ten times ``records``."""
    loaded = settings.load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})
    batches = max(50, 10 * records // RECORDS)
    _fill(loaded, batches)
    runs = count()

    def ours() -> float:
        return _dispatch(lab, loaded, batches, folder / f"worker-{next(runs)}.log")

    def baseline() -> float:
        return rate("posts", lab.broker.bootstrap, f"bench-posts-{next(runs)}", batches * RECORDS)

    return Contest(
        "dispatch",
        f"{batches:,} batches of {RECORDS:,} records to a sink on this machine, one core",
        [
            Contender("spotstream worker --role dispatch (receipts, transactions)", ours),
            Contender("aiokafka getmany, 15 POSTs at once, commit", baseline),
        ],
    )


def _fill(loaded: settings.Settings, batches: int) -> None:
    producer = Producer(loaded.kafka.confluent(message_max_bytes=BATCHES.max_message_bytes))
    partitions = BATCHES.partitions
    for number, made in enumerate(islice(cycle(_batches()), batches)):
        first = number // partitions * RECORDS
        source = Source(number % partitions, first, first + RECORDS - 1, RECORDS, f"0-{RECORDS - 1}")
        key = sha256(b"%d" % number).hexdigest()
        headers = made._replace(key=key, batch_id=key[:32]).headers(
            source, [], ["spot"], int(time.time() * 1000)
        )
        producer.produce(BATCHES.name, made.body, key, partition=source.partition, headers=headers)
        producer.flush()


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


def _dispatch(lab: Lab, loaded: settings.Settings, batches: int, log: Path) -> float:
    """Send the whole topic; records per second between the first and the last booking."""
    forget(loaded.kafka, DISPATCHING)
    before = sum(1 for _ in read_all(loaded.kafka, RECEIPTS.name))
    with Sink() as sink:
        given = {"AVSTAR__BASE_URL": sink.url, "WORKER__WEB_PORT": "0"}
        environment = lab.environment | {f"SPOTSTREAM_{name}": value for name, value in given.items()}
        command = [sys.executable, "-m", "streams.cli", "worker", "--role", "dispatch"]
        with (
            log.open("wb") as output,
            subprocess.Popen(command, stderr=output, env=environment | {"PATH": "/usr/bin:/bin"}) as worker,
        ):
            pin(worker.pid, -1)
            deadline = time.monotonic() + _LONGEST_S
            while len(receipts := list(read_all(loaded.kafka, RECEIPTS.name))) < before + batches:
                if worker.poll() is not None or time.monotonic() > deadline:
                    worker.kill()
                    raise Problem("did not send all batches", where=f"spotstream worker, see {log}")
                time.sleep(0.5)
            worker.terminate()
    ended = [Receipt.model_validate_json(message.value() or b"") for message in receipts]
    at = sorted(datetime.fromisoformat(receipt.at).timestamp() for receipt in ended)[before:]
    return (len(at) - 1) * RECORDS / (at[-1] - at[0])
