"""Tail: follow files into the raw topic, each record exactly once."""

import gc
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from math import inf
from time import monotonic
from typing import TypeVar

from schemas.errors import Unreachable
from schemas.profile import Profile
from schemas.profile import load as load_profile
from streams import log, paths
from streams.checkpoint import State
from streams.publisher import Publisher
from streams.round import Round
from streams.settings import Settings
from streams.source import OpenFile
from streams.sources import Sources
from topics.transaction import AbandonedError

logger = log.get("tail")

T = TypeVar("T")

#: How often growing files are looked at, and how often for files that are new or gone.
_POLL_S = 0.02
_SCAN_S = 1.0

#: How long a stop waits for the transaction that is under way, and a warning for a broker that is silent.
_STOP_S = 3.0
_WARN_S = 5.0

#: Blocks in one transaction at the most, read while the one before is committed.
_BLOCKS = 4

_AGAIN = "run it again when the broker is back: it goes on where it stopped"


def run(
    settings: Settings,
    given: Sequence[str],
    profile: str = "",
    *,
    once: bool = False,
    stop: threading.Event | None = None,
) -> int:
    """Follow the files, folders and globs ``given``; ends at ``stop``, with ``once`` at the end of them.

    Without ``stop`` SIGTERM and SIGINT end it. Gives the exit status: 1 when a file in a folder could not be
    read, or when a run ``once`` was stopped before its end. Raises :class:`Problem`.
    """
    stop = stop or _stop_on_signals()
    mapping = check(given, profile or settings.tail.profile, once=once)
    # Records come by the ten thousand and hold no cycles; looking for some took a third of the time.
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    sources = Sources(given, mapping, settings.tail, once=once)
    return Tailer(settings, sources, once=once, stop=stop).run()


def check(given: Sequence[str], profile: str, *, once: bool) -> Profile:
    """Give the loaded profile; raise :class:`UsageError` for what cannot be tailed with it."""
    mapping = load_profile(profile)
    paths.check(given, once=once)
    for path in filter(paths.is_file_path, given):
        file = OpenFile(str(path))
        try:
            file.examine(mapping, final=once)
        finally:
            file.close()
    return mapping


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


class Tailer:
    """The loop: while one round is being published, the next one is read and framed."""

    def __init__(self, settings: Settings, sources: Sources, *, once: bool, stop: threading.Event) -> None:
        self._settings, self._sources, self._once, self._stop = settings, sources, once, stop
        self._publisher = Publisher(settings)
        self._next_scan = 0.0
        self._records = 0

    def run(self) -> int:
        """Until the end; gives the exit status."""
        begin = monotonic()
        try:
            self._wait(self._publisher.start)
            self._sources.scan(self)
            self._scanned()
            done = self._loop()
        except AbandonedError:
            done = False
        finally:
            self._sources.close()
        logger.info("ended", records=self._records, seconds=round(monotonic() - begin, 3), finished=done)
        return 1 if self._sources.refused or (self._once and not done) else 0

    def _loop(self) -> bool:
        """Gives whether the end was reached, which only a run ``once`` has."""
        publishing: Future[None] | None = None
        batch = Round()
        while not self._stop.is_set():
            due = monotonic() >= self._next_scan
            if due and not publishing:
                self._rescan()
                due = False
            # Nothing is read ahead of a scan, which needs every checkpoint published.
            following = Round() if due else self._gather()
            if publishing:
                self._finish(publishing, batch)
                publishing = None
            if following.checkpoints:
                batch = following
                publishing = _in_background(partial(self._publisher.publish, batch))
            elif self._once:
                return True
            elif not due:
                self._stop.wait(_POLL_S)
        if publishing:
            self._finish(publishing, batch)
        return False

    def _gather(self) -> Round:
        """Read on, a block of each file in turn."""
        batch = Round()
        for _ in range(_BLOCKS):
            if not (block := self._sources.read()):
                break
            batch.add(*block)
        return batch

    def _finish(self, publishing: "Future[None]", batch: Round) -> None:
        self._wait(publishing, self._settings.kafka.timeout_s if self._once else inf)
        self._records += batch.records
        logger.debug("published", records=batch.records, bytes=batch.size, files=len(batch.checkpoints))

    def _rescan(self) -> None:
        try:
            self._sources.scan(self)
        except Unreachable as error:
            logger.warning("new files have to wait", error=str(error))
        self._scanned()

    def _scanned(self) -> None:
        self._next_scan = inf if self._once else monotonic() + _SCAN_S

    def read(self) -> State:
        """What the checkpoints say now; see :class:`streams.sources.Ownership`."""
        return self._wait(self._publisher.read)

    def end(self, owner: str) -> None:
        """Take from the tailer ``owner`` what it has."""
        self._wait(lambda: self._publisher.end(owner))

    @property
    def partitions(self) -> int:
        """Of the raw topic."""
        return self._publisher.partitions

    def _wait(self, call: "Future[T] | Callable[[], T]", patience_s: float = inf) -> T:
        """Wait for a call to the broker and give or raise what it does; ``AbandonedError`` when stopped
        meanwhile, :class:`Unreachable` when ``patience_s`` have passed.
        """
        future = call if isinstance(call, Future) else _in_background(call)
        begin = monotonic()
        warn_s, stop_s = _WARN_S, inf
        while not future.done():
            wait([future], timeout=0.1)
            waited = monotonic() - begin
            if self._stop.is_set():
                stop_s = min(stop_s, waited + _STOP_S)
            if waited > min(stop_s, patience_s):
                self._publisher.abandon()
                wait([future], timeout=1.0)
                break
            if waited > warn_s:
                warn_s *= 2
                logger.warning("the broker does not answer; reading waits", seconds=round(waited))
        if future.done() and not isinstance(future.exception(), AbandonedError):
            return future.result()
        if self._stop.is_set():
            raise AbandonedError(self._settings.tail.name)
        where = self._settings.kafka.bootstrap_servers
        raise Unreachable(f"the broker has not answered for {patience_s:g} s", where=where, remedy=_AGAIN)


def _in_background(call: Callable[[], T]) -> "Future[T]":
    """Run a blocking call in a thread of its own, which does not keep the process from ending."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, name="tail-publish", daemon=True).start()
    return future
