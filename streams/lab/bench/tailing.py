"""``bench tail`` and ``tail-many``: files into a topic, beside what promises less."""

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from shutil import rmtree

from confluent_kafka.admin import AdminClient, NewTopic

from schemas.errors import Problem
from streams.lab.bench.children import limit_s
from streams.lab.bench.contest import Contender, Contest
from streams.lab.bench.publishers import Publish, no_kcat, publishers
from streams.lab.up import Lab
from streams.settings import Settings, load
from streams.tail import checkpoint
from streams.tail import tailer as tail
from topics.catalogue import RAW
from topics.reader import ends

_HEADER = (
    b"Type,Call Sign,Air Date,Spot ID,Campaign,Advertiser Name,"
    b"Time,Len,Daypart,Status,Spot Rate,Bill Code\r\n"
)
_LINE = (
    b"SPOT,WABC,10/26/2026,SP-%08d,CP-%06d,Northern Lights Motors,"
    b'%02d:15:30,30,PRIME,scheduled,"1,234.50",CASH\r\n'
)

#: Lines before a log's records; the others publish them, too.
_HEAD = 2

#: Lines in each of many files.
_SMALL = 1000


def contest(lab: Lab, folder: Path, records: int) -> Contest:
    """One file; files are written to ``folder``."""
    runs = count()
    settings = load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})

    def baseline(publish: Publish) -> float:
        topic = _topic(lab, f"bench-{next(runs)}")
        path = write(folder / f"{topic}.csv", records)  # rsyslog would go on with an older one
        rate = _rate(records, lambda: publish(path, topic, _HEAD + records))
        path.unlink()
        confirm(topic, _HEAD + records, _held(lab, topic))
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
        below, topic = written()[0].parent, _topic(lab, f"many-{next(runs)}")
        script = 'cat "$0"/*.csv | kcat -P -b "$1" -t "$2" -p 0 -X acks=all -X enable.idempotence=true -z lz4'
        command = ["sh", "-c", script, str(below), lab.broker.bootstrap, topic]
        longest_s = limit_s(files * _SMALL)
        rate = _rate(files * _SMALL, lambda: subprocess.run(command, check=True, timeout=longest_s))
        rmtree(below)
        confirm(topic, files * (_HEAD + _SMALL), _held(lab, topic))
        return rate

    return Contest(
        "tail-many",
        f"{files:,} files of {_SMALL:,} lines of {len(_LINE % (0, 0, 0))} bytes, acks=all, idempotent, lz4",
        [
            Contender(
                "spotstream tail (exactly once, provenance)",
                lambda: _tail(lab, written(), files * _SMALL),
            ),
            Contender("cat | kcat -P", kcat, no_kcat()),
        ],
    )


def _tail(lab: Lab, paths: list[Path], records: int) -> float:
    settings = load({"kafka": {"bootstrap_servers": lab.broker.bootstrap}})
    before = _held(lab, RAW.name)
    rate = _rate(records, lambda: tail_once(settings, paths))
    confirm("checkpoints", records, _told(settings, paths))
    if _held(lab, RAW.name) - before < records:  # there are markers of transactions, too
        raise Problem("has fewer records than the checkpoints say", where=RAW.name)
    for path in paths:
        path.unlink()
    return rate


def tail_once(settings: Settings, paths: Sequence[Path]) -> None:
    """Tail these files to their ends, in this process. Raises :class:`Problem`."""
    # Without an event the tailer would take this process's signals, for good.
    if tail.run(settings, [str(path) for path in paths], "avion", once=True, stop=threading.Event()):
        raise Problem("the tailer failed", where=str(paths[0]))


def _told(settings: Settings, paths: Sequence[Path]) -> int:
    """How many records of these files are published, as their checkpoints say."""
    ours = set(map(str, paths))
    return sum(one.records for one in checkpoint.read(settings.kafka).files.values() if one.path in ours)


def _held(lab: Lab, topic: str) -> int:
    """How many messages and markers a topic has."""
    return sum(ends(lab.kafka, topic).values())


def confirm(where: str, given: int, found: int) -> None:
    """Raise :class:`Problem` unless there are as many as were given: who loses some is faster."""
    if found != given:
        raise Problem(f"has {found:,} of {given:,} records", where=where)


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
