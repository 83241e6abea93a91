"""What is reachable, what is wrong, and what to do about it: one line for each thing that was looked at.

Nothing is changed and no record is sent. Every check runs in a thread of its own and is given up in time.
"""

import asyncio
import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

import aiohttp
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from schemas.codec import schema
from schemas.errors import Problem, Unreachable
from schemas.records import KINDS
from schemas.redact import hide
from schemas.registry import Registry
from streams import configuration
from streams.console import printable
from streams.dispatch import authorization
from streams.dispatch.authorization import TokenError
from streams.dispatch.pool import Pool, address
from streams.settings import Settings
from streams.tail import paths as tailed
from streams.tail.watch import Watch
from topics import provision
from topics.catalogue import VALIDATED
from topics.drift import Action

_SKEW_S = 5.0  #: the Date of an answer has whole seconds, and the answer took some time
_FREE = 0.05
_OPEN_FILES = 1024

#: Of a check's time, what a single request of it may take: what it fails by is told, not that time is up.
_SHARE = 0.4


class Verdict(NamedTuple):
    """What was found: ``what``, and the ``remedy`` where it is not as it should be."""

    check: str
    status: Literal["ok", "warn", "fail"]
    what: str
    remedy: str = ""
    unreachable: bool = False

    @classmethod
    def of(cls, check: str, problem: Problem) -> "Verdict":
        """A problem's."""
        what = f"{problem.where}: {problem.what}" if problem.where else problem.what
        return cls(check, "fail", what, problem.remedy, isinstance(problem, Unreachable))


Check = Callable[[Settings], Iterator[Verdict]]


def run(settings: Settings, given: Sequence[str], *, timeout_s: float, as_json: bool) -> int:
    """Look at everything, print it, and give the exit status: 3 when something cannot be reached, 1 when
    something is wrong, 0 else, warnings included. ``given``: files, folders and globs that are to be tailed.
    """
    verdicts = examine(settings, given, timeout_s)
    if as_json:
        found = [verdict._asdict() for verdict in verdicts]
        print(json.dumps({"status": _status(verdicts), "checks": found}))
    else:
        for verdict in verdicts:
            remedy = f"; {verdict.remedy}" if verdict.remedy else ""
            # Services' own words are among it, which must not be taken for another verdict.
            print(printable(f"{verdict.status:4}  {verdict.check}: {verdict.what}{remedy}"))
    return _status(verdicts)


def _status(verdicts: list[Verdict]) -> int:
    failed = [verdict for verdict in verdicts if verdict.status == "fail"]
    if any(verdict.unreachable for verdict in failed):
        return Unreachable.exit_status
    return Problem.exit_status if failed else 0


def examine(settings: Settings, given: Sequence[str], timeout_s: float) -> list[Verdict]:
    """All verdicts, in a fixed order; takes ``timeout_s`` and a moment at the most."""
    hasty = _hasty(settings, timeout_s * _SHARE)
    checks: dict[str, Check] = {
        "settings": _settings,
        "kafka": _kafka,
        "topics": _topics,
        "registry": _registry,
        "avstar": lambda settings: iter(asyncio.run(_avstar(settings))),
        "files": lambda settings: _files(settings, given),
    }
    found: dict[str, list[Verdict]] = {name: [] for name in checks}
    threads = {
        name: threading.Thread(target=_collect, args=(name, check, hasty, found[name]), daemon=True)
        for name, check in checks.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = monotonic() + timeout_s
    for name, thread in threads.items():
        thread.join(max(0.0, deadline - monotonic()))
        if thread.is_alive():
            why = f"not answered within {timeout_s:g} s"
            found[name].append(Verdict(name, "fail", why, "see whether --timeout helps", unreachable=True))
    secrets = _secrets(settings)
    return [
        verdict._replace(what=hide(verdict.what, secrets), remedy=hide(verdict.remedy, secrets))
        for name in checks
        for verdict in list(found[name])
    ]


def _collect(name: str, check: Check, settings: Settings, found: list[Verdict]) -> None:
    try:
        for verdict in check(settings):
            found.append(verdict)  # noqa: PERF402 - what is there already counts when the next one takes too long
    except Problem as problem:
        found.append(Verdict.of(name, problem))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks say what they found
        found.append(Verdict(name, "fail", f"{type(error).__name__}: {error}"))


def _hasty(settings: Settings, timeout_s: float) -> Settings:
    """The settings with no wait for a service longer than that."""
    kafka, registry, avstar = settings.kafka, settings.registry, settings.avstar
    return settings.model_copy(
        update={
            "kafka": kafka.model_copy(update={"timeout_s": min(timeout_s, kafka.timeout_s)}),
            "registry": registry.model_copy(update={"timeout_s": min(timeout_s, registry.timeout_s)}),
            "avstar": avstar.model_copy(
                update={
                    "request_timeout_s": min(timeout_s, avstar.request_timeout_s),
                    "oauth_timeout_s": min(timeout_s, avstar.oauth_timeout_s),
                }
            ),
        }
    )


def _secrets(settings: Settings) -> list[str]:
    return [
        value.get_secret_value()
        for _, values in settings
        for _, value in values
        if isinstance(value, SecretStr)
    ]


def _settings(settings: Settings) -> Iterator[Verdict]:
    problems = configuration.problems(settings)
    yield from (Verdict.of("settings", problem) for problem in problems)
    if not problems:
        yield Verdict("settings", "ok", "they and the files that they name can be used")


def _kafka(settings: Settings) -> Iterator[Verdict]:
    kafka, said = settings.kafka, list[str]()
    admin = AdminClient(kafka.confluent() | {"error_cb": lambda error: said.append(error.str())})
    try:
        # Brokers answer this since Kafka 2.8; the flow's transactions need 2.5.
        cluster = admin.describe_cluster(request_timeout=kafka.timeout_s).result(kafka.timeout_s + 1)
    except KafkaException as error:
        if error.args[0].code() == KafkaError._UNSUPPORTED_FEATURE:
            yield Verdict("kafka", "fail", f"{kafka.bootstrap_servers} is older than Kafka 2.8", "upgrade it")
            return
        admin.poll(0)
        why = f"{kafka.bootstrap_servers}: {said[-1] if said else error.args[0].str()}"
        remedy = "start it, or check kafka.bootstrap_servers and the credentials"
        yield Verdict("kafka", "fail", why, remedy, unreachable=True)
        return
    brokers = len(cluster.nodes)
    yield Verdict(
        "kafka",
        "ok",
        f"{kafka.bootstrap_servers} answers: {brokers} broker{'s'[: brokers > 1]}, Kafka 2.8 or newer, "
        f"cluster {cluster.cluster_id}",
    )
    if kafka.replication_factor > 1 and kafka.min_insync_replicas == kafka.replication_factor:
        why = (
            "kafka.min_insync_replicas is kafka.replication_factor: one broker that is away stops everything"
        )
        yield Verdict("kafka", "warn", why, "set it one lower")


def _topics(settings: Settings) -> Iterator[Verdict]:
    changes = provision.plan(settings.kafka)
    remedy = "see `spotstream topics plan`"
    for change in changes:
        if change.action is Action.CREATE:
            what = f"{change.topic} is missing"
            yield Verdict("topics", "fail", what, "create it with `spotstream topics apply`")
        elif "replica" not in change.setting:  # which is told below, in other words
            yield Verdict("topics", "warn", str(change), remedy)
    if any(change.action is Action.CREATE for change in changes):
        return
    weak = provision.require(settings.kafka).weak
    yield from (Verdict("topics", "warn", line, remedy) for line in weak)
    if not changes and not weak:
        yield Verdict("topics", "ok", "all are there and as declared")


def _registry(settings: Settings) -> Iterator[Verdict]:
    registry = Registry(settings.registry)
    new = [VALIDATED[kind].name for kind in KINDS if not registry.has(VALIDATED[kind].name, schema(kind))]
    if new:
        what = f"it answers, but has no schema for {', '.join(new)}"
        yield Verdict("registry", "warn", what, "the worker registers them at its start")
    else:
        yield Verdict("registry", "ok", f"it has our {len(KINDS)} schemas, and no other that is incompatible")


async def _avstar(settings: Settings) -> list[Verdict]:
    avstar = settings.avstar
    url = address(avstar.base_url, "avstar.base_url", plain=avstar.plain_http)
    found = []
    pool = Pool(avstar, connections=1, total_s=avstar.request_timeout_s)
    async with aclosing(pool):
        try:
            reply = await pool.head(url)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = hide(f"{url}: {pool.explain(error)}", pool.secrets())
            found.append(
                Verdict("avstar", "fail", why, "check avstar.base_url and the network", unreachable=True)
            )
        else:
            found.append(Verdict("avstar", "ok", f"{url} answers, with HTTP status {reply.status}"))
            found += _clock(reply.headers.get("Date", ""))
    authorizer = authorization.from_settings(avstar)
    async with aclosing(authorizer):
        try:
            held = await authorizer.prove()
        except TokenError as error:
            remedy = "check avstar.oauth_client_id, its secret and avstar.oauth_token_url"
            found.append(Verdict("avstar", "fail", error.why, remedy, unreachable=not error.answered))
        else:
            remedy = "" if held else "set avstar.oauth_client_id or avstar.api_key_file"
            found.append(
                Verdict("avstar", "ok" if held else "warn", f"credentials: {held or 'none'}", remedy)
            )
    return found


def _clock(date: str) -> Iterator[Verdict]:
    """What Avstar's clock says of ours; nothing when it says nothing."""
    try:
        skew_s = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return
    if abs(skew_s) > _SKEW_S:
        what = f"our clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} Avstar's"
        yield Verdict("clock", "warn", what, "see that this machine's time is synchronized")


def _files(settings: Settings, given: Sequence[str]) -> Iterator[Verdict]:
    tailed.check(given, once=True)
    folders, below = tailed.folders(given or ["."])
    yield _notices(settings, sorted(folders), below=below)
    for path in tailed.found(given):
        try:
            Path(path).open("rb").close()
        except OSError as error:
            yield Verdict("files", "fail", f"{path}: {error.strerror}", "let the tailer's user read it")
    for folder in sorted(folders):
        usage = shutil.disk_usage(folder)
        if usage.free < _FREE * usage.total:
            what = f"the disk of {folder} is {1 - usage.free / usage.total:.0%} full"
            yield Verdict("files", "warn", what, "files that cannot be written end in the middle")
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < _OPEN_FILES:
        yield Verdict(
            "files", "warn", f"a process may open {allowed} files", f"ulimit -n {_OPEN_FILES}, or more"
        )


def _notices(settings: Settings, folders: list[str], *, below: bool) -> Verdict:
    """Whether the kernel tells of changes there, tried."""
    if settings.tail.watch == "poll":
        return Verdict("files", "ok", "changes are looked for again and again, as tail.watch says")
    with closing(Watch()) as watch:
        watch.over(folders, recursive=below)
        if not watch.polls:
            return Verdict("files", "ok", f"the kernel tells of changes in {', '.join(folders)}")
    limits = ", ".join(
        f"fs.inotify.{path.name} is {path.read_text().strip()}"
        for path in sorted(Path("/proc/sys/fs/inotify").glob("max_user_*"))
    )
    what = f"the kernel does not tell of changes in {', '.join(folders)}: they are looked for again and again"
    return Verdict("files", "warn", what, f"a network's file system, or limits are reached: {limits}")
