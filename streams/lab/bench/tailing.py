"""``bench tail``: a file into a topic, beside kcat and a bare confluent-kafka loop that promise nothing."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streams.lab.bench.contest import Contender, Contest
from streams.lab.up import Lab
from streams.settings import load
from streams.tail import tailer as tail

_HEADER = (
    b"Type,Call Sign,Air Date,Spot ID,Campaign,Advertiser Name,"
    b"Time,Len,Daypart,Status,Spot Rate,Bill Code\r\n"
)
_LINE = (
    b"SPOT,WABC,10/26/2026,SP-%08d,CP-%06d,Northern Lights Motors,"
    b'%02d:15:30,30,PRIME,scheduled,"1,234.50",CASH\r\n'
)
_BLOCK = 1_048_576
_KAFKA = {"acks": "all", "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 5}


def contest(lab: Lab, folder: Path, records: int) -> Contest:
    """The contest on ``lab``; files are written to ``folder``."""
    settings = load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})
    runs = count()

    def ours() -> float:
        path = _written(folder / f"tail-{next(runs)}.csv", records)
        began = time.perf_counter()
        status = tail.run(settings, [str(path)], "avion", once=True)
        seconds = time.perf_counter() - began
        path.unlink()
        if status:
            raise RuntimeError(f"tail ended with {status}")
        return records / seconds

    def bare() -> float:
        path, topic = _written(folder / "bare.csv", records), _topic(lab, f"bare-{next(runs)}")
        began = time.perf_counter()
        config = {"bootstrap.servers": lab.broker.bootstrap, "queue.buffering.max.messages": 500_000}
        producer = Producer(config | _KAFKA)
        for block in _blocks(path):
            messages: list[dict[str, Any]] = [{"value": line} for line in block.splitlines()]
            while messages:
                producer.produce_batch(topic, messages, 0)
                messages = [message for message in messages if "_error" in message]
                if messages:
                    producer.poll(0.01)
                    messages = [{"value": message["value"]} for message in messages]
        producer.flush()
        return records / (time.perf_counter() - began)

    def kcat() -> float:
        path, topic = _written(folder / "kcat.csv", records), _topic(lab, f"kcat-{next(runs)}")
        options = [f"-X{name}={str(value).lower()}" for name, value in _KAFKA.items()]
        began = time.perf_counter()
        subprocess.run(
            ["kcat", "-P", "-b", lab.broker.bootstrap, "-t", topic, "-p", "0", "-l", str(path), *options],
            check=True, timeout=300,
        )  # fmt: skip
        return records / (time.perf_counter() - began)

    return Contest(
        "tail",
        f"{records:,} lines of 100 bytes into one partition, acks=all, idempotent, lz4",
        [
            Contender("spotstream tail (exactly once, provenance)", ours),
            Contender("kcat -P -l", kcat, "" if shutil.which("kcat") else "kcat is not installed"),
            Contender("confluent-kafka produce_batch", bare),
        ],
    )


def _written(path: Path, records: int) -> Path:
    """A log of its own for every run: the tailer would know an older one by its content."""
    with path.open("wb") as file:
        file.write(b"# %s\n" % path.name.encode() + _HEADER)
        lines = (_LINE % (number, number // 100, 6 + number % 18) for number in range(records))
        while block := b"".join(islice(lines, 10_000)):
            file.write(block)
    return path


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block + file.readline()


def _topic(lab: Lab, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": lab.broker.bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    return name
