"""Tail: follow files into the raw topic, each record exactly once."""

import contextlib
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
from streams import heap, log, metrics
from streams.settings import Settings
from streams.tail import paths
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.disposal import Disposal
from streams.tail.meter import Meter
from streams.tail.publisher import Publisher
from streams.tail.round import Round
from streams.tail.source import OpenFile, Source
from streams.tail.sources import Sources
from streams.tail.watch import Watch
from topics.transaction import AbandonedError

logger = log.get("tail")

T = TypeVar("T")

#: How often files that are new or gone are looked for: without notices of changes, while something is
#: unsettled, and at the most.
_SCAN_S, _UNSETTLED_S, _SCAN_AGAIN_S = 1.0, 0.5, 0.1

#: How often an idle tailer sees whether it still has its name.
_CHECK_S = 5.0

#: How long a stop waits for the transaction that is under way, and a warning for a broker that is silent.
_STOP_S = 3.0
_WARN_S = 5.0

#: What one transaction holds at the most, give or take a block; it is read while the last is committed.
_BLOCKS = 10
_RECORDS = 250_000
_FILES = 1000

_AGAIN = "run it again when the broker is back: it goes on where it stopped"


def run(
    settings: Settings,
    given: Sequence[str],
    profile: str = "",
    *,
    once: bool = False,
    stop: threading.Event | None = None,
    disposal: Disposal | None = None,
) -> int:
    """Follow the files, folders and globs ``given``; ends at ``stop``, with ``once`` at the end of them.

    Without ``stop`` SIGTERM and SIGINT end it. Gives the exit status: 1 when a file in a folder could not be
    read, when something was destroyed before it could be read, or when a run ``once`` was stopped before its
    end. Raises :class:`Problem`.
    """
    stop = stop or _stop_on_signals()
    disposal = disposal or Disposal()
    disposal.check(given)
    mapping = check(given, profile or settings.tail.profile, once=once)
    if settings.tail.metrics_port and not once:
        metrics.serve(settings.tail.metrics_host, settings.tail.metrics_port)
    # What records of XML are found with holds no cycles; looking for some took a third of the time.
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    heap.keep()
    sources = Sources(given, mapping, settings.tail, once=once, disposal=disposal)
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
    """The loop: while one round is being published, the next one is read and framed.

    :meth:`run` does it all; or :meth:`start`, :meth:`poll_once` again and again, then :meth:`close`.
    """

    def __init__(self, settings: Settings, sources: Sources, *, once: bool, stop: threading.Event) -> None:
        self._settings, self._sources, self._once, self._stop = settings, sources, once, stop
        self._publisher = Publisher(settings)
        self._watch = Watch(settings.tail.watch)
        self._meter = Meter(shows=bool(settings.tail.metrics_port) and not once)
        self._publishing: Future[None] | None = None
        self._batch = Round()
        self._next_scan = self._next_check = 0.0
        self._records = 0

    def run(self) -> int:
        """Until the end; gives the exit status."""
        begin = monotonic()
        done = False
        try:
            self.start()
            while not (done or self._stop.is_set()):
                if not self.poll_once():
                    done = self._once
                    self._idle()
            self._settle()
        except AbandonedError:
            done = False
        finally:
            self.close()
        lost = len(self._sources.losses)
        logger.info(
            "ended", records=self._records, seconds=round(monotonic() - begin, 3), finished=done, losses=lost
        )
        return 1 if self._sources.refused or lost or (self._once and not done) else 0

    def start(self) -> None:
        """Take the name and begin with the files that are there."""
        self._wait(self._publisher.start)
        self._sources.scan(self)
        self._scanned()

    def close(self) -> None:
        """Let go of everything; what is under way is left to its end or the next tailer."""
        self._watch.close()
        self._sources.close()

    def poll_once(self) -> bool:
        """Look around when that is due, read a round on, begin to publish it; whether there was anything."""
        self._meter.look(self._sources)
        due = self._scan_is_due()
        if due and not self._publishing:
            self._rescan()
            due = False
        # Nothing is read ahead of a scan, which needs every checkpoint published.
        following = Round() if due else self._gather()
        busy = bool(following or self._publishing or due)
        self._settle()
        if following:
            self._batch = following
            self._publishing = _in_background(partial(self._publisher.publish, following))
        return busy or self._sources.scan_due

    def look(self) -> None:
        """Look at everything again, as if there had been a notice."""
        self._sources.touch()
        self._sources.scan_due = True
        self._next_scan = 0.0

    def _gather(self) -> Round:
        """Read on, a block of each file in turn, for as long as the last round is being published."""
        batch = Round()
        for fact in self._sources.take_facts():
            batch.checkpoints[fact.identity] = fact
        size = _BLOCKS * self._settings.tail.block_bytes
        while batch.size < size and batch.records < _RECORDS and len(batch.checkpoints) < _FILES:
            if not (block := self._sources.read()):
                break
            batch.add(*block)
            if not self._publishing or self._publishing.done():
                break
        return batch

    def _settle(self) -> None:
        """Wait for the round that is being published."""
        if not self._publishing:
            return
        batch = self._batch
        self._wait(self._publishing, self._settings.kafka.timeout_s if self._once else inf)
        self._publishing = None
        self._records += batch.records
        self._meter.publish(batch)
        self._sources.settle(batch.checkpoints.values())
        self._next_check = monotonic() + _CHECK_S
        logger.debug("published", records=batch.records, bytes=batch.size, files=len(batch.checkpoints))

    def _scan_is_due(self) -> bool:
        if self._once:
            return self._sources.scan_due
        wait_s = _UNSETTLED_S if self._sources.unsettled else _SCAN_S
        soon = self._sources.scan_due or self._sources.unsettled or self._watch.polls
        return monotonic() >= self._next_scan + (_SCAN_AGAIN_S if self._sources.scan_due else wait_s) and soon

    def _rescan(self) -> None:
        try:
            self._sources.scan(self)
        except Unreachable as error:
            if self._once:
                raise
            self._sources.scan_due = True
            logger.warning("new files have to wait", error=str(error))
        self._scanned()

    def _scanned(self) -> None:
        self._next_scan = monotonic()
        self._meter.look(self._sources, now=True)
        if not self._once:
            folders, below = self._sources.folders()
            self._watch.over(folders, recursive=below)

    def _idle(self) -> None:
        """Wait until something happens to a file; meanwhile see that the name is still ours."""
        if self._once:
            return
        if monotonic() >= self._next_check:
            self._check()
        seen = self._watch.wait(_UNSETTLED_S if self._sources.unsettled else _SCAN_S)
        self._sources.touch(None if seen.all else seen.paths)
        if seen.appeared:
            self._sources.scan_due = True

    def _check(self) -> None:
        with contextlib.suppress(Unreachable):
            self._wait(self._publisher.check)
        self._next_check = monotonic() + _CHECK_S

    def read(self) -> State:
        """What the checkpoints say now; see :class:`.sources.Ownership`."""
        return self._wait(self._publisher.check)

    def claim(self, sources: Sequence[Source], withdrawn: Sequence[str]) -> None:
        """Commit the first checkpoints of these, and take others back."""
        batch = Round()
        batch.checkpoints = {source.identity: source.checkpoint() for source in sources}
        batch.withdrawn = list(withdrawn)
        self._wait(partial(self._publisher.publish, batch))

    def take_over(self, owner: str, theirs: Callable[[State], Sequence[Checkpoint]]) -> None:
        """Take from the tailer ``owner`` what it has; see :meth:`Publisher.take_over`."""
        self._wait(partial(self._publisher.take_over, owner, theirs))

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
            self._meter.look(self._sources)  # files grow while the broker is away
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
