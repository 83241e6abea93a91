"""Those who act while faults strike: ``spotstream`` commands that are kept running, and logs that grow."""

import gzip
import os
import random
import shutil
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from chaos.clocks import Clock
from streams.lab.generate import Format, generate
from streams.lab.service import Service, free_port

_RESTART_S = 1.0  # as systemd does it
_PIECE = 200_000  # bytes that are compressed before a rest: a tailer sees the file being made


class Actor:
    """A command that is started again whenever it ends, and that ends with this process."""

    def __init__(
        self, name: str, folder: Path, *arguments: str, clock: Clock | None = None, **settings: object
    ) -> None:
        self.name, self._arguments, self._settings, self.clock = name, arguments, settings, clock
        self._folder = folder / f"actor-{name}"
        self._folder.mkdir()
        self.service: Service | None = None
        self.metrics_port = 0
        self.exits: list[int] = []  #: statuses of all that ended unasked
        self.lock = threading.Lock()  # of faults with one another and with the keeper
        self._start_at = 0.0

    def start(self) -> Service:
        """Start it, whatever else runs under its name."""
        self.metrics_port = free_port()
        settings = dict(self._settings)
        if self._arguments[0] == "tail":
            settings["TAIL__METRICS_PORT"] = self.metrics_port
        given = [f"SPOTSTREAM_{name}={value}" for name, value in settings.items()]
        if self.clock:
            given += [f"{name}={value}" for name, value in self.clock.environment.items()]
        command = ["env", *given, sys.executable, "-m", "streams.cli", *self._arguments]
        self.service = Service(self.name, command, self._folder)
        return self.service

    def keep(self) -> None:
        """Start it again a moment after it has ended."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            if self.service and self.service.running:
                self._start_at = 0.0
            elif not self._start_at:
                if self.service:
                    self.exits.append(self.service.status or 0)
                self._start_at = time.monotonic() + _RESTART_S
            elif time.monotonic() > self._start_at:
                self.start()
        finally:
            self.lock.release()

    @property
    def processes(self) -> list[psutil.Process]:
        """The command's and all below it, as far as they run."""
        with suppress(psutil.NoSuchProcess):
            if self.service and self.service.running:
                process = psutil.Process(self.service.pid)
                return [process, *process.children(recursive=True)]
        return []

    def role(self, role: str) -> psutil.Process | None:
        """A worker's process of this role, if it runs."""
        for process in self.processes[1:]:
            with suppress(psutil.NoSuchProcess):
                if role in process.cmdline():
                    return process
        return None

    def kill(self) -> None:
        """SIGKILL for the command and all below it."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def end(self) -> None:
        """SIGTERM, and wait; fails when it takes longer than a supervisor would wait."""
        service = self.service
        if service and service.running:
            os.kill(service.pid, 15)
            service.wait_until(lambda: service.status is not None, 30)

    @property
    def said(self) -> str:
        """All that it has logged."""
        return (self._folder / "log").read_text(errors="replace")


class Log(threading.Thread):
    """A log that grows, now and then by half a line, and that is rotated meanwhile."""

    def __init__(
        self, path: Path, form: Format, seed: int, per_s: float, behind: Callable[[Path], float]
    ) -> None:
        super().__init__(name=path.name, daemon=True)
        self.path, self.form, self.seed = path, form, seed
        self.records, self.rotations, self.copies = 0, 0, 0
        self.error: BaseException | None = None
        self._lines = generate(10_000_000, seed, 0.01, form)
        self._head = next(self._lines).data if form != "fixed" else b""
        self._chance, self._per_s, self._behind = random.Random(seed), per_s, behind
        self._over = threading.Event()

    def run(self) -> None:
        """Until :meth:`finish`."""
        try:
            self._write()
        except BaseException as error:
            self.error = error

    def _write(self) -> None:
        stream = self._open()
        rotate_at = time.monotonic() + self._chance.uniform(5, 20)
        while not self._over.is_set():
            pause = self._chance.uniform(0.02, 0.4)
            lines = [next(self._lines) for _ in range(max(1, round(pause * self._per_s)))]
            self.records += sum(line.number > 0 for line in lines)
            data = b"".join(line.data for line in lines)
            cut = self._chance.randrange(len(data))
            stream.write(data[:cut])
            time.sleep(pause / 2)
            stream.write(data[cut:])
            time.sleep(pause / 2)
            if time.monotonic() > rotate_at:
                if self._chance.random() > 0.25 or not self._copy(stream):
                    self._rename()
                    stream.close()
                    stream = self._open()
                rotate_at = time.monotonic() + self._chance.uniform(8, 25)
        self._rename()

    def _open(self):
        stream = self.path.open("ab", buffering=0)
        stream.write(self._head)
        return stream

    def _rename(self) -> None:
        """Rotate by rename; the one rotated before is compressed."""
        last = self.path.with_name(f"{self.path.name}.1")
        with suppress(FileNotFoundError):  # it is where its tailer moves what is done
            compressed = self.path.with_name(f"{self.path.name}.{self.rotations}.gz")
            with last.open("rb") as plain, gzip.open(compressed, "wb") as packed:
                while piece := plain.read(_PIECE):
                    packed.write(piece)
                    packed.flush()
                    time.sleep(self._chance.uniform(0, 0.3))
            last.unlink()
        self.path.rename(last)
        self.rotations += 1

    def _copy(self, stream) -> bool:
        """Rotate by copytruncate, if all of it is published, so that nothing can be lost by it."""
        deadline = time.monotonic() + 5
        while self._behind(self.path) != self.path.stat().st_size:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        shutil.copy(self.path, self.path.with_name(f"{self.path.name}.copy{self.copies}"))
        time.sleep(0.05)
        stream.truncate(0)
        self.copies += 1
        stream.write(self._head)
        return True

    def finish(self) -> None:
        """Stop after a whole line and rotate a last time."""
        self._over.set()
        self.join(30)
        assert not self.is_alive(), f"{self.path} is still written"


def published(actor: Actor, path: Path) -> float:
    """How many bytes of a file a tailer says that it has published; -1 when it does not say."""
    with suppress(OSError):
        url = f"http://127.0.0.1:{actor.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=2) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("spotstream_tail_position_bytes{") and f'"{path}"' in line:
                    return float(line.rpartition(" ")[2])
    return -1
