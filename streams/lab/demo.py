"""The whole pipeline on embedded services, as a user would run it: ``spotstream demo``.

The commands run as child processes on a temporary folder: a log is written while ``spotstream tail`` follows
it, or given files are tailed once; ``spotstream worker`` does the rest. The audit has the last word.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import orjson
import psutil

from schemas.errors import Problem, UsageError
from streams import settings
from streams.audit.account import Audit, audit, show
from streams.console import console
from streams.lab.commands import Commands
from streams.lab.display import Display, View, display
from streams.lab.gauge import Gauge
from streams.lab.generate import generate
from streams.lab.scales import Scales
from streams.lab.service import Service, free_port
from streams.lab.up import Lab, ignore_signals, interrupt_on_signals
from streams.lab.writer import Writer
from streams.settings import PREFIX
from streams.tail import checkpoint
from streams.tail.tailer import check
from topics.catalogue import BATCHES, DISPATCHING, RAW, VALIDATING

_POLL_S = 0.5
_READY_S = 60.0
#: Nothing moved for so long: something hangs, and waiting on would never end.
_STALL_S = 120.0
_INTERRUPTED = 130  # as a shell tells a Ctrl-C
#: The profile of generated logs.
_GENERATED = "avion"
_ROLES = ("validate", "dispatch")
#: How settings begin that would lead the children away from the lab's services, or us from their pages.
_LEADING_AWAY = ("KAFKA__", "REGISTRY__", "AVSTAR__", "WORKER__WEB_", "WORKER__PEER_URL")


class Options(NamedTuple):
    """What to run on: ``files`` with ``profile``, or else a log of ``records``, ``bad_rate`` of them bad."""

    files: Sequence[str] = ()
    profile: str = ""
    records: int = 100_000
    seed: int = 0
    bad_rate: float = 0.01
    as_json: bool = False


def run(options: Options) -> int:
    """Run the demo; gives the exit status, 1 when a record is missing or was booked twice.

    Raises :class:`Problem` when a service or a command fails, or when what was rejected is not what the
    generator made bad.
    """
    if options.files:
        options = _checked(options)
    interrupt_on_signals()
    try:
        with ExitStack() as ending:
            folder = ending.enter_context(TemporaryDirectory(prefix="spotstream-demo-"))
            ending.enter_context(chdir(folder))  # no spotstream.toml leads away from the lab's services
            _say("starting Kafka, the schema registry and the Avstar sandbox")
            lab = ending.enter_context(Lab(Path(folder)))
            ending.callback(lab.kill)
            commands = ending.enter_context(Commands(lab.data_dir))
            ending.callback(ignore_signals)
            return _Demo(options, lab, commands).run()
    except KeyboardInterrupt:
        _say("interrupted; everything has been ended")
        return _INTERRUPTED


def _checked(options: Options) -> Options:
    """The same with absolute paths; raises :class:`schemas.errors.UsageError` for what cannot be tailed."""
    profile = options.profile or settings.load().tail.profile
    check(options.files, profile, once=True)
    if Path(profile).exists():
        profile = str(Path(profile).absolute())
    return options._replace(files=[str(Path(file).absolute()) for file in options.files], profile=profile)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


class _Demo:
    """The flow on a lab that runs, from the first line to the audit."""

    def __init__(self, options: Options, lab: Lab, commands: Commands) -> None:
        self._options, self._commands, self._folder = options, commands, lab.data_dir
        port = free_port(len(_ROLES))
        # A demo of nothing but bad records shows them, it does not wait for somebody to mend them.
        flags = {f"{PREFIX}WORKER__WEB_PORT": str(port), f"{PREFIX}DLQ__FLOOD_SHARE": "1"}
        _take_environment(lab.environment | flags)
        self._settings = settings.load()
        self._pages = {role: f"http://127.0.0.1:{port + index}/status/" for index, role in enumerate(_ROLES)}
        self._gauge = Gauge(self._settings, self._pages)
        services = {"kafka": lab.broker.pid, "registry": lab.registry.pid, "sandbox": lab.sandbox.pid}
        self._services = [(name, psutil.Process(pid)) for name, pid in services.items()]
        self._scales = Scales()
        self._total: int | None = None if options.files else options.records
        self._published = False

    def run(self) -> int:
        """Run it; gives the exit status."""
        _say("starting the worker")
        self._commands.start("worker").wait_until(self._gauge.ready, _READY_S)
        with display("  ".join(f"{role} {address}" for role, address in self._pages.items())) as progress:
            self._writer, self._tail = self._start_tail()
            self._watch(progress)
        found = audit(self._settings)
        self._report(found)
        self._compare(found)
        return 0 if found.passed else 1

    def _start_tail(self) -> tuple[Writer | None, Service]:
        options = self._options
        if options.files:
            arguments = ("--profile", options.profile, "--once", "--", *options.files)
            return None, self._commands.start("tail", *arguments)
        lines = generate(options.records, options.seed, options.bad_rate)
        writer = Writer(self._folder / "avion.csv", lines, options.seed)
        writer.start()
        return writer, self._commands.start("tail", "--profile", _GENERATED, str(writer.path))

    def _watch(self, progress: Display) -> None:
        """Until every record is accounted for, or an error; shows how far things are."""
        moved, last = time.monotonic(), self._view()
        while not self._done():
            self._commands.check()
            self._scales.weigh((*self._services, *self._commands.processes()))
            view = self._view()
            progress.show(view)
            if view != last:
                moved, last = time.monotonic(), view
            if time.monotonic() - moved > _STALL_S:
                raise Problem(f"nothing has moved for {_STALL_S:g} s", where=f"{view.stages()}")
            time.sleep(_POLL_S)
        progress.show(self._view())

    def _view(self) -> View:
        written = self._writer.truth.records if self._writer else None
        reading = self._gauge.read()
        known = self._total if written is None else written
        if known is not None:
            reading = reading._replace(published=min(reading.published, known))
        return View(reading, written, self._total)

    def _done(self) -> bool:
        """The order matters: nothing can come after what has been found to be all of it."""
        self._published = self._published or self._all_published()
        return (
            self._published
            and self._gauge.caught_up(RAW, VALIDATING)
            and self._gauge.caught_up(BATCHES, DISPATCHING)
        )

    def _all_published(self) -> bool:
        if self._writer is None:
            if self._tail.status != 0:
                return False
            files = checkpoint.read(self._settings.kafka).files.values()
            self._total = sum(known.records for known in files)
            return True
        if self._writer.error:
            raise UsageError(
                f"cannot be written: {self._writer.error.strerror}", where=str(self._writer.path)
            )
        if not self._writer.finished or self._gauge.published() < self._options.records:
            return False
        size = self._writer.path.stat().st_size
        return any(known.position == size for known in checkpoint.read(self._settings.kafka).files.values())

    def _report(self, found: Audit) -> None:
        seconds = self._gauge.seconds()
        rate = round(found.statement.total.records / seconds) if seconds else 0
        if self._options.as_json:
            took = {"seconds": seconds, "records_per_second": rate}
            weight = {"rss_mb": self._scales.rss_mb, "cpu_s": self._scales.cpu_s}
            sys.stdout.write(orjson.dumps(found.summary() | took | weight).decode() + "\n")
            return
        show(found, console())
        print(f"{seconds:.1f} s from the first record published to the last one booked, {rate:,} records/s")

    def _compare(self, found: Audit) -> None:
        """Raise :class:`Problem` when the audit does not find what the generator says it wrote."""
        total = found.statement.total
        truth = self._writer.truth if self._writer else None
        if truth and (truth.records, truth.bad) != (total.records, total.rejected):
            raise Problem(
                f"{truth.records:,} records were written, {truth.bad:,} of them bad, but the audit has "
                f"{total.records:,} and {total.rejected:,} rejected",
                where="the generated log",
            )


def _take_environment(ours: Mapping[str, str]) -> None:
    """Set what leads this process and its children to the lab, and nothing beside it."""
    for name in list(os.environ):
        if name.upper().startswith(tuple(PREFIX + beginning for beginning in _LEADING_AWAY)):
            del os.environ[name]
    os.environ.update(ours)
