"""``bench tail`` and ``tail-many``: files into a topic, beside what promises less."""

import subprocess
import time
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from schemas.errors import Problem
from streams.lab.bench.contest import Contender, Contest
from streams.lab.bench.publishers import Publish, publishers
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

#: Lines in each of many files.
_SMALL = 1000


def contest(lab: Lab, folder: Path, records: int) -> Contest:
    """One file; files are written to ``folder``."""
    runs = count()
    settings = load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})

    def baseline(publish: Publish) -> float:
        topic = _topic(lab, f"bench-{next(runs)}")
        path = write(folder / f"{topic}.csv", records)  # rsyslog would go on with an older one
        rate = _rate(records, lambda: publish(path, topic, records))
        path.unlink()
        return rate

    return Contest(
        "tail",
        f"{records:,} lines of {len(_LINE % (0, 0, 0))} bytes into one partition, acks=all, idempotent, lz4",
        [
            Contender(
                "spotstream tail (exactly once, provenance)",
                lambda: _tail(lab, [write(folder / f"tail-{next(runs)}.csv", records)], records),
            ),
            *publishers(settings.kafka, folder, baseline),
        ],
    )


def many(lab: Lab, folder: Path, records: int) -> Contest:
    """The same lines in files of a thousand."""
    files = max(1, records // _SMALL)
    runs = count()

    def written() -> list[Path]:
        below = folder / f"many-{next(runs)}"
        below.mkdir()
        return [write(below / f"{number}.csv", _SMALL, number) for number in range(files)]

    def kcat() -> float:
        paths, topic = written(), _topic(lab, f"many-{next(runs)}")
        script = 'cat "$0"/*.csv | kcat -P -b "$1" -t "$2" -p 0 -X acks=all -X enable.idempotence=true -z lz4'
        command = ["sh", "-c", script, str(paths[0].parent), lab.broker.bootstrap, topic]
        return _rate(files * _SMALL, lambda: subprocess.run(command, check=True, timeout=300))

    return Contest(
        "tail-many",
        f"{files:,} files of {_SMALL:,} lines of {len(_LINE % (0, 0, 0))} bytes, acks=all, idempotent, lz4",
        [
            Contender(
                "spotstream tail (exactly once, provenance)",
                lambda: _tail(lab, written(), files * _SMALL),
            ),
            Contender("cat | kcat -P", kcat),
        ],
    )


def _tail(lab: Lab, paths: list[Path], records: int) -> float:
    settings = load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})

    def run() -> None:
        if tail.run(settings, [str(path) for path in paths], "avion", once=True):
            raise Problem("the tailer failed", where=str(paths[0]))

    rate = _rate(records, run)
    for path in paths:
        path.unlink()
    return rate


def _rate(records: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return records / (time.perf_counter() - began)


def write(path: Path, records: int, first: int = 0) -> Path:
    """A log of its own for every run: the tailer would know an older one by its content."""
    with path.open("wb") as file:
        file.write(b"# %s %s\n" % (path.parent.name.encode(), path.name.encode()) + _HEADER)
        numbers = range(first * records, (first + 1) * records)
        lines = (_LINE % (number, number // 100, 6 + number % 18) for number in numbers)
        while block := b"".join(islice(lines, 10_000)):
            file.write(block)
    return path


def _topic(lab: Lab, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": lab.broker.bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    return name
