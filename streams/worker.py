"""The worker: a role is one Faust app in one process; both roles run as two processes under a supervisor."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, closing
from math import nan
from typing import Any, Literal

from schemas.codec import Codec, schema
from schemas.errors import Unreachable, UsageError
from schemas.records import KINDS
from schemas.registry import Registry
from streams import heap, log, metrics, traces
from streams.dispatch.answer import Answer
from streams.dispatch.avstar import Avstar
from streams.dispatch.breaker import State
from streams.dispatch.delivery import Delivery
from streams.dispatch.held import Held
from streams.dispatch.lane import DispatchLane
from streams.dispatch.throttle import Throttle
from streams.settings import Settings, WorkerSettings
from streams.status import pages
from streams.status.access import Access
from streams.status.role import AvstarHealth, OwnRole
from streams.unread import Unread
from streams.validate.descriptors import Descriptors
from streams.validate.downstream import Downstream
from streams.validate.flood import Refusals, Rejections
from streams.validate.lane import Judges, ValidateLane
from topics import provision
from topics.admin import Admin
from topics.catalogue import BATCHES, DISPATCHING, RAW, VALIDATED, VALIDATING, Topic
from topics.ownership import Lane, Owned, Ownership
from topics.transport import App

Role = Literal["validate", "dispatch"]

_GROUPS: dict[Role, str] = {"validate": VALIDATING, "dispatch": DISPATCHING}

logger = log.get("worker")

#: Batches fetched at a time: each may have a few hundred kilobytes.
_BATCHES_PER_POLL = 20

#: How long a stop may take beside the drain before the process ends as it is.
_STOP_S = 5.0


def _ownership(settings: Settings, role: Role, lane: Callable[[Owned], Lane], **options: Any) -> Ownership:
    return Ownership(
        settings.kafka,
        _GROUPS[role],
        lane=lane,
        transaction_timeout_s=settings.worker.transaction_timeout_s,
        session_timeout_s=settings.worker.session_timeout_s,
        drain_s=settings.worker.drain_s,
        **options,
    )


def _app(
    ownership: Ownership,
    topic: Topic,
    settings: Settings,
    role: Role,
    *,
    max_poll_records: int,
    avstar: AvstarHealth | None = None,
) -> App:
    access = Access(settings.worker)
    unread = Unread(ownership, topic)
    app = App(
        ownership,
        topic.name,
        max_poll_records=max_poll_records,
        web_bind=settings.worker.web_host,
        web_host=settings.worker.web_host,
        web_in_thread=True,  # the loop is away for as long as a window is judged
        web_port=_web_port(settings.worker, role),
    )
    pages.serve(app, settings, OwnRole(app, role, unread, avstar), access)
    app.task(unread.run)
    return app


def _web_port(settings: WorkerSettings, role: Role) -> int:
    """The role's port, tried: Faust does not know 0, and a port that is taken would end it half started."""
    wanted = settings.web_port and settings.web_port + (role == "dispatch")
    family = socket.AF_INET6 if ":" in settings.web_host else socket.AF_INET
    try:
        with socket.create_server((settings.web_host, wanted), family=family) as listening:
            return int(listening.getsockname()[1])
    except OSError as error:
        raise UsageError(
            f"cannot listen there: {error.strerror}",
            where=f"{settings.web_host}:{wanted}",
            remedy="set worker.web_port, 0 for any that is free, or worker.web_host",
        ) from None


@asynccontextmanager
async def _validate(settings: Settings) -> AsyncIterator[App]:
    registry = Registry(settings.registry)
    codecs = {kind: Codec(kind, registry.register(VALIDATED[kind].name, schema(kind))) for kind in KINDS}

    # By partition. A lane ends with each rebalance; with new counts, each would let a flood on for a while.
    rejections: defaultdict[int, Rejections] = defaultdict(lambda: Rejections(settings.dlq))

    def lane(owned: Owned) -> ValidateLane:
        counts = rejections[owned.partition.partition]
        return ValidateLane(owned, settings.batch, judges, codecs, counts, downstream=downstream)

    with closing(Descriptors(settings.kafka)) as descriptors:
        ownership = _ownership(settings, "validate", lane, made=BATCHES.name)
        judges, downstream = Judges(descriptors, ownership.blocking), Downstream(settings.kafka)
        app = _app(ownership, RAW, settings, "validate", max_poll_records=settings.batch.records)
        app.task(downstream.run)
        yield app


@asynccontextmanager
async def _dispatch(settings: Settings) -> AsyncIterator[App]:
    dispatch = settings.dispatch
    client = Avstar(settings.avstar, requests_at_once=dispatch.requests_at_once, policy=dispatch.policy)
    metrics.TOKEN_AGE.set_function(lambda: nan if client.token_age_s is None else client.token_age_s)
    seen = AvstarHealth()

    def observe_breaker(state: State) -> None:
        metrics.BREAKER.labels(state).inc()
        metrics.BREAKER_CLOSED.set(state == "closed")
        seen.became(state)

    throttle = Throttle(
        dispatch,
        settings.breaker,
        observe=observe_breaker,
        waited=metrics.LIMITER_WAIT_SECONDS.observe,
    )
    metrics.REQUESTS_IN_FLIGHT.set_function(lambda: throttle.concurrency.in_flight)
    metrics.REQUESTS_LIMIT.set_function(lambda: throttle.concurrency.limit)
    delivery = Delivery(client, dispatch, throttle, observe=_observe)
    guarded, held = Refusals(delivery, settings.dlq, observe=_observe_flood), Held()

    def lane(owned: Owned) -> DispatchLane:
        return DispatchLane(owned, guarded, dispatch, settings.kafka, held=held)

    ownership = _ownership(settings, "dispatch", lane, share=throttle.share, hold=lambda: delivery.holds)
    async with aclosing(client):
        yield _app(ownership, BATCHES, settings, "dispatch", max_poll_records=_BATCHES_PER_POLL, avstar=seen)


def _observe(answer: Answer) -> None:
    metrics.ATTEMPTS.labels(type(answer).__name__.lower()).inc()
    metrics.ATTEMPT_SECONDS.observe(answer.latency_ms / 1000)


def _observe_flood(holds: bool) -> None:
    metrics.FLOOD_GUARD.labels(BATCHES.name, -1).set(holds)


_ROLES: dict[Role, Callable[[Settings], Any]] = {"validate": _validate, "dispatch": _dispatch}


def run_role(settings: Settings, role: Role, leash: int | None = None) -> int:
    """Run one role in this process until SIGTERM or SIGINT; returns the exit status.

    ``leash``: a file descriptor that reads as closed when the supervisor is gone, which ends the role, too.

    Raises :class:`schemas.errors.Problem` for what is wrong at the start; from then on an error is status 1.
    """
    heap.keep()
    traces.configure(settings.traces, role)
    weak = provision.require(settings.kafka).weak
    Admin(settings.kafka).check_membership(_GROUPS[role])
    if leash is None:  # the supervisor has said it
        _warn(weak)
    return asyncio.run(_serve(settings, role, leash))


async def _serve(settings: Settings, role: Role, leash: int | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with _ROLES[role](settings) as app:
        # Not before: until now there is nothing to end in order, and calls that block.
        if leash is not None:
            loop.add_reader(leash, _let_go, leash, stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        starting = asyncio.ensure_future(app.start())
        await _first(starting, stop.wait())
        if starting.done():
            starting.result()
            _tame_garbage_collection()
            logger.info("started", role=role)
            await _first(stop.wait(), app.wait_until_stopped())
        failed = app.crash_reason if app.crashed else None
        if failed:
            logger.error("ended by an error", role=role, error=str(failed) or repr(failed))
        _end_within(settings.worker.drain_s + _STOP_S, int(bool(failed)))
        await app.stop()
    logger.info("stopped", role=role)
    return int(bool(failed))


def _tame_garbage_collection() -> None:
    """What was imported and built so far stays; collecting it over and over costs a tenth of the speed."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _end_within(seconds: float, status: int) -> None:
    """Have this process end by then, whatever hangs: some calls to the broker may never return.

    What it leaves open, the next owner's fence aborts.
    """
    end = threading.Timer(seconds, os._exit, (status,))
    end.daemon = True
    end.start()


def run(settings: Settings, *, debug: bool) -> int:
    """Run both roles, a process each, until SIGTERM or SIGINT; returns the exit status.

    A role that ends by an error is started again after a moment; one that ends again and again, or that says
    that settings are wrong or, the first time, that a service is not there, ends the whole worker with its
    status. A service that goes away later is waited for. ``debug``: the roles' errors have tracebacks.

    Raises :class:`schemas.errors.Problem` for what is wrong with the broker at the start.
    """
    _warn(provision.require(settings.kafka).weak)  # each role asks again; but here it is said once
    return asyncio.run(Supervisor(settings, debug=debug).run())


def _warn(weak: Iterable[str]) -> None:
    for line in weak:
        logger.warning("less safe than the settings say", why=line)


class Supervisor:
    """Keeps one process per role running. The processes end when this one does, however it ends."""

    _MOST_FAILURES, _WITHIN_S = 5, 60.0
    _PAUSE_S = 1.0

    def __init__(self, settings: Settings, *, debug: bool) -> None:
        self._debug = ("--debug",) if debug else ()
        self._stopping = asyncio.Event()
        self._patience_s = settings.worker.drain_s + _STOP_S + 1

    async def run(self) -> int:
        """Until a signal comes, or a role cannot be kept running."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        roles = [asyncio.create_task(self._keep(role)) for role in _ROLES]
        await asyncio.wait(roles, return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        return max(await asyncio.gather(*roles))

    async def _keep(self, role: Role) -> int:
        loop = asyncio.get_running_loop()
        failures: deque[float] = deque(maxlen=self._MOST_FAILURES)
        ran = False
        while True:
            status = await self._run_once(role)
            if self._stopping.is_set():
                return max(status, 0)  # below 0: by the signal that it was sent
            if status == UsageError.exit_status:
                return status
            if status != Unreachable.exit_status:
                ran = True
                failures.append(loop.time())
                if len(failures) == failures.maxlen and failures[-1] - failures[0] < self._WITHIN_S:
                    return abs(status)
            elif not ran:
                return status
            logger.error("ended, starting it again", role=role, status=status)
            await _first(self._stopping.wait(), asyncio.sleep(self._PAUSE_S))

    async def _run_once(self, role: Role) -> int:
        """The exit status; negative: the signal that ended it."""
        # The child's end of the pipe reads as closed when this process is gone, by SIGKILL too.
        leash, held = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "streams.cli", "worker", "--role", role, "--leash", str(leash),
                *self._debug, pass_fds=(leash,), start_new_session=True,
            )  # fmt: skip
            await _first(child.wait(), self._stopping.wait())
            if child.returncode is None:
                child.terminate()
                try:
                    await asyncio.wait_for(child.wait(), self._patience_s)
                except TimeoutError:
                    child.kill()
            return await child.wait()
        finally:
            os.close(leash)
            os.close(held)


def _let_go(leash: int, stop: asyncio.Event) -> None:
    asyncio.get_running_loop().remove_reader(leash)
    stop.set()


async def _first(*waits: Awaitable[Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
