"""An action model of files that are written, rotated and destroyed while they are tailed, and its oracle."""

import contextlib
import gzip
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from schemas.errors import Problem, Unreachable
from schemas.profile import load
from schemas.rawkey import RawKey
from streams import log
from streams.settings import Settings, TailSettings
from streams.tail.publisher import Publisher
from streams.tail.source import Source
from streams.tail.sources import Loss, Sources
from streams.tail.tailer import Tailer
from topics.connection import KafkaSettings

logger = log.get("world")

_HEADINGS = (
    b"Spot ID,Type,Call Sign,Air Date,Campaign,Advertiser Name,ISCI,"
    b"Time,Len,Daypart,Status,Spot Rate,Bill Code,World %d\n"
)

#: How long the tailers wait for a rotated file, and a copy, to be whole.
GRACE_S = 0.03
COPY_WAIT_S = 1.0  # far more than passes between a copy and the truncation, even on a busy machine


def line(number: int, seed: int, text: bytes = b"Acme") -> bytes:
    """What begins with another byte than the one before, so that few beginnings of files are equal."""
    return b"%b-S,SPOT,WABC,11/24/2026,C-%d,%b,,12:00:00,30,EM,CLEARED,10.00,STD\n" % (
        (b"%06d" % number)[::-1],
        seed,
        text,
    )


class Life:
    """What was written as one file, whatever names and copies it went through."""

    def __init__(self, path: Path) -> None:
        self.paths = {str(path)}
        self.data = b""
        self.half = b""  # the rest of a line that was begun
        self.unlinked = False
        self.seen = 0  # how much of it a tailer had noticed
        self.destroyed = False  # whether some of it was, which may not have been read
        self.twice = False  # whether a copy lay beside it for so long that it is a file of its own
        self.unheard = 1 << 62  # from here on it was written after the copy and destroyed before it was read

    def lasted(self, begin: float) -> None:
        """A copy was made at ``begin``, its original destroyed now; the broker may have been away."""
        self.twice = self.twice or time.monotonic() - begin > COPY_WAIT_S / 2


class World:
    """A folder, the model of what is in it, and the tailer that follows it. Reproducible from ``seed``."""

    def __init__(
        self,
        kafka: KafkaSettings,
        folder: Path,
        seed: int,
        restart: Callable[["World"], None],
        publisher: type[Publisher],
    ) -> None:
        self.kafka, self.folder, self.seed = kafka, folder, seed
        self.restart, self.publisher = restart, publisher
        self.chance = random.Random(seed)
        # Its own: inodes go from world to world, and with a few first bytes that are equal they prove a file.
        self.header = _HEADINGS % seed
        self.name = f"rotation-{folder.name}"
        self.lives: list[Life] = []
        self.at: dict[Path, Life] = {}  # what stands where
        self.losses: list[Loss] = []
        self.done: list[str] = []  # the actions so far
        self.tailer: Tailer | None = None
        self.sources: Sources | None = None
        self.read_as: dict[Source, Life | None] = {}  # whose content each source was begun with
        self.number = self.names = self.tailers = 0

    # -- the tailer

    def make(self, *, once: bool = False) -> Tailer:
        tail = TailSettings(
            name=f"{self.name}-{self.tailers}",
            block_bytes=4096,
            rotated_after_s=GRACE_S,
            copy_wait_s=COPY_WAIT_S,
            watch="poll",
        )
        settings = Settings(kafka=self.kafka, tail=tail)
        self.sources = Sources([str(self.folder)], load("avion"), settings.tail, once=once)
        tailer = Tailer(settings, self.sources, once=once, stop=threading.Event())
        tailer._publisher = self.publisher(settings)
        return tailer

    def start(self) -> None:
        while self.tailer is None:
            self.tailer = self.make()
            try:
                self.tailer.start()
            except Unreachable:  # as the broker is being restarted, the supervisor would start it again
                self.crash()
        self.note()

    def poll(self, turns: int = 1) -> None:
        if self.tailer:
            with self.rivalry():
                self.tailer.look()
                for _ in range(turns):
                    self.tailer.poll_once()
                    self.note()

    def settle(self) -> None:
        """Poll until everything is decided."""
        with self.rivalry():
            for _ in range(100 if self.tailer else 0):
                self.tailer.look()
                while self.tailer.poll_once():
                    self.note()
                if not self.sources.unsettled:
                    return
                time.sleep(GRACE_S / 2)

    def note(self) -> None:
        """How much the tailer has noticed of which file. What stands there later may be another life."""
        for source in self.sources.open.values():
            standing = (life for path, life in self.at.items() if source.file.is_at(str(path)))
            there = next(standing, None)
            life = self.read_as.setdefault(source, there)
            if life and there in (None, life):
                life.seen = max(life.seen, source.seen)

    @contextlib.contextmanager
    def rivalry(self) -> Iterator[None]:
        """Of two tailers with one folder one ends; which of them is up to them."""
        try:
            yield
        except Problem as problem:
            if not (self.tailers and "took over" in str(problem)):
                raise
            self.crash()

    def crash(self) -> None:
        """Forget the tailer as it is; with it goes what it alone could still read."""
        for life in self.lives:
            life.destroyed = life.destroyed or life.unlinked
        self.drop()

    def drop(self) -> None:
        """Without a word; what it has under way may be committed or not."""
        if self.tailer:
            self.losses += self.sources.losses
            self.tailer._publisher.abandon()
            self.tailer.close()
            self.tailer = None

    # -- what happens

    def choose(self) -> str:
        """The next action."""
        names = [name for name in dir(self) if name.startswith("do_")]
        weights = [getattr(self, name).__defaults__[0] for name in names]
        return self.chance.choices(names, weights)[0][3:]

    def step(self, name: str) -> None:
        self.done.append(name)
        getattr(self, f"do_{name}")()
        files = {path.name: path.stat().st_size for path in sorted(self.folder.iterdir())}
        logger.info(name, tailer=self.tailer is not None, **files)

    def log(self) -> Path:
        return self.folder / self.chance.choice(("a.log", "b.log"))

    def put(self, path: Path, data: bytes, mode: str = "ab") -> None:
        with path.open(mode) as file:
            file.write(data)

    def lines(self, most: int = 40) -> bytes:
        count = self.chance.randint(1, most)
        self.number += count
        texts = (b"Acme", b'"Acme, Inc."', b'"two\nlines"', b"x" * 300)
        return b"".join(
            line(self.number - index, self.seed, self.chance.choice(texts)) for index in range(count, 0, -1)
        )

    def living(self, path: Path) -> Life:
        """The file at ``path``, made where there is none."""
        if path not in self.at:
            life = self.at[path] = Life(path)
            self.lives.append(life)
            life.data = self.header
            self.put(path, self.header, "wb")
        return self.at[path]

    def do_append(self, weight: float = 10) -> None:
        path = self.log()
        life = self.living(path)
        data = life.half + self.lines(self.chance.choice((40, 40, 40, 400)))  # of many not all is kept
        life.half = b""
        life.data += data
        self.put(path, data)

    def do_append_a_part(self, weight: float = 5) -> None:
        path = self.log()
        life = self.living(path)
        data = life.half + self.lines(3)
        cut = self.chance.randint(len(life.half), len(data) - 1)
        life.half = data[cut:]
        life.data += data[:cut]
        self.put(path, data[:cut])

    def do_rotate(self, weight: float = 5) -> None:
        path = self.log()
        if path in self.at:
            self.moved(path, self.fresh_name(path))

    def moved(self, path: Path, to: Path) -> None:
        path.rename(to)
        self.at[to] = self.at.pop(path)
        self.at[to].paths.add(str(to))
        if self.chance.random() < 0.5:
            self.living(path)

    def fresh_name(self, path: Path) -> Path:
        self.names += 1
        return path.with_name(f"{path.name}.{self.names}")

    def do_copytruncate(self, weight: float = 5) -> None:
        path = self.log()
        if path not in self.at:
            return
        copy = self.fresh_name(path)
        begin = time.monotonic()
        self.written_slowly(copy, path.read_bytes())
        if self.chance.random() < 0.3:
            self.written_after(copy, path)
        life = self.at.pop(path)
        life.paths.add(str(copy))
        self.at[copy] = life
        self.lives.append(new := Life(path))
        self.at[path] = new
        os.truncate(path, 0)
        life.lasted(begin)
        if self.chance.random() < 0.5:
            self.poll()
        new.data = self.header
        self.put(path, self.header)

    def written_after(self, copy: Path, path: Path) -> None:
        """Between the copy and the truncation; only a tailer that looks at once can read that."""
        if self.chance.random() < 0.5:  # the tailer has seen the copy before there is more
            self.poll()
        life = self.at[path]
        begin = len(life.data)
        data = life.half + self.lines(self.chance.choice((3, 3, 80)))
        life.half = b""
        life.data += data
        self.put(path, data)
        if self.chance.random() < 0.8:
            self.poll(3)
            self.poll(3)
        if self.chance.random() < 0.2:
            self.crash()
        read = self.end_of(path)
        if read < len(life.data):
            life.destroyed = True
            life.unheard = max(begin, read)

    def end_of(self, path: Path) -> int:
        """How far the tailer has read the file that is there, and not what stood there before."""
        life = self.at[path]
        ends = [
            source.end
            for source in self.sources.open.values()
            if source.file.is_at(str(path)) and self.read_as.get(source, life) is life
        ]
        return max(ends, default=0) if self.tailer else 0

    def do_truncate(self, weight: float = 2) -> None:
        path = self.log()
        if path in self.at:
            self.at.pop(path).destroyed = True
            self.living(path)

    def do_replace(self, weight: float = 2) -> None:
        path = self.log()
        if path not in self.at:
            return
        self.unlinked(path)
        life = self.living(self.folder / ".new")
        self.at[path] = self.at.pop(self.folder / ".new")
        life.paths.add(str(path))
        life.data += (data := self.lines())
        self.put(self.folder / ".new", data)
        (self.folder / ".new").replace(path)

    def do_delete(self, weight: float = 2) -> None:
        if self.at:
            path = self.chance.choice(sorted(self.at))
            self.unlinked(path)
            path.unlink()

    def unlinked(self, path: Path) -> None:
        """What a tailer has open it can still read."""
        is_open = self.end_of(path) > 0
        life = self.at.pop(path)
        life.unlinked = True
        life.destroyed = life.destroyed or not is_open

    def do_gzip(self, weight: float = 3) -> None:
        rotated = [path for path in self.at if path.suffix[1:].isdigit()]
        if not rotated:
            return
        path = self.chance.choice(sorted(rotated))
        to = path.with_name(path.name + ".gz")
        begin = time.monotonic()
        self.written_slowly(to, gzip.compress(path.read_bytes()))
        if self.chance.random() < 0.5:
            self.poll()
        self.at[to] = self.at.pop(path)
        self.at[to].paths.add(str(to))
        path.unlink()
        self.at[to].lasted(begin)

    def written_slowly(self, copy: Path, data: bytes) -> None:
        """In place, in parts; the tailer may look between them, or end and be started."""
        cuts = sorted(self.chance.randint(0, len(data)) for _ in range(self.chance.randint(0, 2)))
        for begin, end in pairwise([0, *cuts, len(data)]):
            self.put(copy, data[begin:end])
            if self.chance.random() < 0.1:
                self.crash()
            if self.chance.random() < 0.2 and not self.tailer:
                self.start()
            if self.chance.random() < 0.5:
                self.poll()

    def do_poll(self, weight: float = 12) -> None:
        self.poll(self.chance.randint(1, 4))

    def do_settle(self, weight: float = 4) -> None:
        self.settle()

    def do_crash(self, weight: float = 3) -> None:
        """With a transaction under way, or committed and not yet known to be."""
        until_committed = self.chance.random() < 0.5
        self.poll()
        if self.tailer and self.tailer._publishing and until_committed:
            with contextlib.suppress(Problem):
                self.tailer._publishing.result()
        self.crash()

    def do_stop(self, weight: float = 2) -> None:
        self.settle()
        self.drop()

    def do_start(self, weight: float = 8) -> None:
        self.start()

    def do_second_tailer(self, weight: float = 1) -> None:
        """Of another name, for the same folder, while the first one runs; then that ends."""
        first, sources, self.tailer = self.tailer, self.sources, None
        self.tailers += 1
        self.start()
        self.poll(3)
        if first:
            with contextlib.suppress(Problem):
                first.look()
                while first.poll_once():
                    pass
            second, self.tailer, new, self.sources = self.tailer, first, self.sources, sources
            self.crash()
            self.tailer, self.sources = second, new

    def do_restart_broker(self, weight: float = 0.06) -> None:
        self.restart(self)

    def dead(self) -> list[str]:
        """The names of tailers that do not run any more."""
        return [f"{self.name}-{number}" for number in range(self.tailers + (self.tailer is None))]

    def finish(self) -> None:
        """Settle, then once more to the end of everything, as when the tailer is given a last run."""
        self.settle()
        self.crash()
        for number in range(self.tailers + 1):  # each tells what became of what it had
            self.tailers = number
            self.start()
            self.settle()
            self.crash()
        while self.tailer is None:
            self.tailer = self.make(once=True)
            with contextlib.suppress(Unreachable):
                self.tailer.run()
                break
            self.drop()
        self.losses += self.sources.losses


class Oracle:
    """Compares what is committed of a world's folder with what the model wrote there."""

    def __init__(self, world: World, published: dict[str, list[tuple[RawKey, bytes]]]) -> None:
        self.world, self.published = world, published

    def faults(self) -> list[str]:
        """What is not as it has to be; ``published`` has the records by their files' identities."""
        found: list[str] = []
        ends: dict[int, int] = {}
        fitting = {
            identity: [n for n, life in enumerate(self.world.lives) if _fits(life, records)]
            for identity, records in self.published.items()
        }
        # Those that fit in the fewest places first: the beginning of a line may fit in several.
        for identity, fits in sorted(fitting.items(), key=lambda item: len(item[1])):
            records = self.published[identity]
            found += [f"{identity}: {fault}" for fault in _contiguity(records)]
            free = [n for n in fits if n not in ends or self.world.lives[n].twice]
            if free:
                ends[free[0]] = max(_end(records), ends.get(free[0], 0))
            else:
                why = f"of file {fits}, which was published already" if fits else "of no file"
                found.append(f"{identity}: {len(records)} records are {why}: {records[0]}")
        for number, life in enumerate(self.world.lives):
            found += self._missing(number, life, ends.get(number, 0))
        return found

    def _missing(self, number: int, life: Life, end: int) -> list[str]:
        size, header = min(len(life.data), life.unheard), len(self.world.header)
        if end >= size or size <= header:
            return []
        where = f"file {number} {sorted(life.paths)}: {end} of {size} bytes"
        if not life.destroyed:
            return [where]
        # Of what was never seen, or only its header, nobody can tell.
        silent = not end and life.seen <= header
        told = any(
            loss.path in life.paths and loss.position in (end, end or header) for loss in self.world.losses
        )
        return [] if told or silent else [f"{where}, destroyed and not told: {self.world.losses}"]


def _fits(life: Life, records: list[tuple[RawKey, bytes]]) -> bool:
    return all(life.data[key.offset : key.offset + len(value)] == value for key, value in records)


def _end(records: list[tuple[RawKey, bytes]]) -> int:
    return max((key.offset + len(value) for key, value in records), default=0)


def _contiguity(records: list[tuple[RawKey, bytes]]) -> list[str]:
    expected = (0, 0)
    for key, value in records:
        if (key.number - 1, key.offset - key.skipped) != expected:
            return [f"record {key.number} at {key.offset} does not follow {expected}"]
        expected = (key.number, key.offset + len(value))
    return []
