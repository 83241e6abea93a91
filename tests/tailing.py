"""A tailer in a process of its own, as the tests of tailing run it, and the lines that they write."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from schemas.descriptor import Descriptor
from schemas.errors import Unreachable
from schemas.profile import load
from schemas.rawkey import RawKey
from streams.settings import Settings, TailSettings
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.disposal import Disposal
from streams.tail.source import Source
from streams.tail.sources import Loss, Sources
from streams.tail.tailer import Tailer
from topics.catalogue import FILES, RAW
from topics.connection import KafkaSettings
from topics.reader import read_all

HEADER = (
    b"Type,Call Sign,Air Date,Spot ID,Campaign,Advertiser Name,ISCI,"
    b"Time,Len,Daypart,Status,Spot Rate,Bill Code\n"
)


def line(number: int, text: bytes = b"Acme") -> bytes:
    return b"SPOT,WABC,11/24/2026,S-%06d,C-1,%b,,12:00:00,30,EM,CLEARED,10.00,STD\n" % (number, text)


def lines(start: int, stop: int) -> list[bytes]:
    return [line(number) for number in range(start, stop)]


class Tail:
    """Runs ``spotstream tail`` and reads what it published."""

    def __init__(self, bootstrap: str, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap, timeout_s=10)
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | Path, **settings: str) -> subprocess.Popen[str]:
        given = {"KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers, "TAIL__NAME": self.name} | settings
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "tail", *map(str, arguments)],
            env=os.environ | {f"SPOTSTREAM_{name}": value for name, value in given.items()},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def once(self, *arguments: str | Path, **settings: str) -> tuple[int, str]:
        """Exit status and what it said."""
        process = self.start("--once", *arguments, **settings)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def settings(self, **tail: object) -> Settings:
        return Settings(kafka=self.kafka, tail=TailSettings(**{"name": self.name, **tail}))

    def published(self, *paths: Path) -> list[tuple[RawKey, bytes]]:
        """What is committed of the files, in order of file and number."""
        names = {str(path) for path in paths}
        raw = [(RawKey.unpack(m.key()), m.value()) for m in read_all(self.kafka, RAW.name)]
        files = {m.key(): Descriptor.load(m.value()) for m in read_all(self.kafka, FILES.name)}
        found = [record for record in raw if files[record[0].descriptor].path in names]
        return sorted(found, key=lambda record: (files[record[0].descriptor].path, record[0].number))

    def values(self, *paths: Path) -> list[bytes]:
        return [value for _, value in self.published(*paths)]

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Follower:
    """A tailer in this process, which looks when it is told to, and can be dropped as a crash does."""

    def __init__(self, tail: Tail, name: str = "", folder: Path | None = None) -> None:
        settings = tail.settings(name=name or tail.name, rotated_after_s=0.05, copy_wait_s=1.0, watch="poll")
        self.sources = Sources([str(folder or tail.folder)], load("avion"), settings.tail, once=False)
        self._tailer = Tailer(settings, self.sources, once=False, stop=threading.Event())
        self._tailer.start()

    def look(self, turns: int = 4) -> None:
        self._tailer.look()
        for _ in range(turns):
            self._tailer.poll_once()

    def settle(self) -> list[Loss]:
        """Until everything is decided; gives what was destroyed."""

        def settled() -> bool:
            self.look()
            return not self.sources.unsettled

        until(settled)
        self.look()
        return self.sources.losses

    def rest(self, seconds: float) -> None:
        """Look again and again for so long."""
        begin = time.monotonic()
        until(lambda: bool(self.look()) or time.monotonic() > begin + seconds)

    def drop(self) -> None:
        self._tailer._publisher.abandon()
        self._tailer.close()


class Memory:
    """Checkpoints without a broker; they come back as that would give them."""

    partitions = 8

    def __init__(self) -> None:
        self.files: dict[str, Checkpoint] = {}

    def read(self) -> State:
        return State(dict(self.files), {})

    def claim(self, sources: Sequence[Source], withdrawn: Sequence[str]) -> None:
        self.commit([source.checkpoint() for source in sources])
        for identity in withdrawn:
            del self.files[identity]

    def commit(self, checkpoints: Sequence[Checkpoint]) -> None:
        for known in checkpoints:
            self.files[known.identity] = Checkpoint.model_validate_json(known.model_dump_json())

    def take_over(self, owner: str, theirs: Callable[[State], Sequence[Checkpoint]]) -> None:
        """Whoever else there is in a test is not told."""
        assert owner
        self.commit(theirs(self.read()))


class Reader:
    """Reads what a folder's files hold, commits it to a :class:`Memory`, and looks when it is told to."""

    def __init__(
        self,
        memory: Memory,
        folder: Path,
        *,
        once: bool = False,
        delete: bool = False,
        done: Path | None = None,
        **tail: object,
    ) -> None:
        settings = TailSettings(**{"copy_wait_s": 0.0, "watch": "poll", **tail})
        disposal = Disposal(done, delete=delete)
        self.sources = Sources([str(folder)], load("avion"), settings, once=once, disposal=disposal)
        self.memory = memory
        self.records: list[bytes] = []

    def look(self) -> list[bytes]:
        """Scan, then read all there is; gives the records that are new."""
        before = len(self.records)
        self.sources.touch()
        self.sources.scan(self.memory)
        while block := self.sources.read():
            source, framed = block
            self.records += framed.records
            self._commit([source.checkpoint()])
        self._commit(self.sources.take_facts())
        return self.records[before:]

    def _commit(self, checkpoints: list[Checkpoint]) -> None:
        self.memory.commit(checkpoints)
        self.sources.settle(checkpoints)


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Poll; a broker that has just come back may not answer at once."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(Unreachable):
            if condition():
                return
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.2)


def whole(records: list[tuple[RawKey, bytes]], *, size: int) -> bool:
    """Whether the records of one file follow each other without a gap or an overlap, from 0 to ``size``."""
    ends = [(0, 0), *((key.number, key.offset + len(value)) for key, value in records)]
    starts = [*((key.number - 1, key.offset - key.skipped) for key, _ in records)]
    return starts == ends[:-1] and ends[-1][1] == size


def stop(process: subprocess.Popen[str], status: int = 0) -> str:
    """SIGTERM; it has to end in order, soon."""
    process.terminate()
    _, said = process.communicate(timeout=5)
    assert process.returncode == status, said
    return said
