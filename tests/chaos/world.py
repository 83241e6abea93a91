"""The world that faults strike: three brokers, the registry and Avstar behind links, tailers and workers."""

import json
import os
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from confluent_kafka.admin import AdminClient

from chaos.actors import Actor, Log, published
from chaos.clocks import Clock, build
from chaos.disks import Disk
from chaos.links import Links
from chaos.listeners import Guard
from chaos.schedule import BY_CLOCKS, ON_DISKS
from chaos.watch import Watch
from streams.lab import sandbox
from streams.lab.account import Credentials
from streams.lab.cluster import Member
from streams.lab.registry import Registry
from streams.lab.service import Service, free_port
from streams.lab.up import SandboxProcess
from topics import provision
from topics.connection import KafkaSettings

BROKERS = ("broker 1", "broker 2", "broker 3")
PEERS = tuple(f"{name}, from the others" for name in BROKERS)
TOKENS = ("Avstar's tokens", "Kafka's tokens")  # the latter where brokers demand them
LINKS = (*BROKERS, *PEERS, "registry", "Avstar", *TOKENS)
#: Seconds that a token of Avstar's lives; a broker's live for a minute.
_TOKEN_S = 30
#: Folder and tailer, format, profile, logs, and how a log's records are spread.
FEEDS = (
    ("north", "csv", "avion", 2, {"TAIL__PARTITIONING": "block", "TAIL__BLOCK_BYTES": 4096}),
    ("south", "csv", "avion", 1, {}),
    ("west", "fixed", "avion-fixed", 1, {}),
)
#: Where the tailer of this feed moves what it has published.
DONE = ("done", "south", "csv")  # folder, feed, format


class LinkedBroker(Member):
    """A broker that clients reach by a link, and the other brokers by another; the observer directly."""

    start_s = 120.0  # on a busy machine

    def __init__(
        self, data_dir: Path, number: int, links: Links, first: "LinkedBroker | None", guard: Guard | None
    ) -> None:
        super().__init__(data_dir, number, first)
        self.number, self.folder, self._guard = number, data_dir.name, guard
        self.direct, self._controller = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        clients, peers, port = BROKERS[number - 1], PEERS[number - 1], free_port()
        links.lead(peers, port)
        self._added = f",DIRECT://{self.direct},PEERS://127.0.0.1:{port}"
        self._advertised = (
            f"PLAINTEXT://127.0.0.1:{links.port(clients)},DIRECT://{self.direct},"
            f"PEERS://127.0.0.1:{links.port(peers)}"
        )

    def _write_settings(self) -> None:
        super()._write_settings()
        file = self._dir / "server.properties"
        text = file.read_text()
        if self._first is None:  # at the same place after a restart
            text = re.sub(r"CONTROLLER://[0-9.:]+", f"CONTROLLER://{self._controller}", text)
            text = re.sub(r"voters=1@.*", f"voters=1@{self._controller}", text)
        text = re.sub(r"(?m)^(listeners=.*)$", rf"\1{self._added}", text)
        text = re.sub(r"(?m)^advertised.listeners=.*$", f"advertised.listeners={self._advertised}", text)
        linked = "SASL_SSL" if self._guard else "PLAINTEXT"
        file.write_text(
            text.replace("PLAINTEXT://", "LINKED://") + "\nlistener.security.protocol.map="
            f"CONTROLLER:PLAINTEXT,LINKED:{linked},DIRECT:PLAINTEXT,PEERS:PLAINTEXT\n"
            "inter.broker.listener.name=PEERS\nmin.insync.replicas=2\n"
            + (self._guard.settings if self._guard else "")
        )

    def _spawn(self, lock: int) -> Service:
        service = super()._spawn(lock)
        self._admin = AdminClient({"bootstrap.servers": self.direct, "log_level": 0})
        return service


class World:
    """All that runs; a context manager. Whatever happens, nothing of it outlives this process."""

    def __init__(
        self, folder: Path, seed: int, per_s: float, kinds: Collection[str], *, secured: bool = False
    ) -> None:
        """``kinds``: of faults that may strike; ``secured``: brokers demand TLS and SASL on their links."""
        self.folder, self.seed, self._per_s = folder, seed, per_s
        self._on_disks = not ON_DISKS.isdisjoint(kinds)
        self._library = None if BY_CLOCKS.isdisjoint(kinds) else build(folder)
        self._secured, self._guard = secured, None
        self.disks: dict[str, Disk] = {}  #: by folder
        self.broker_lock = threading.Lock()  # one broker at a time
        self.throughout: list[dict[str, Any]] = []  #: what Avstar plays from first to last
        self._played: dict[int, dict[str, Any]] = {}  # faults of Avstar, by who plays them
        self._avstar_lock = threading.Lock()
        self._running = ExitStack()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            self.links = starting.enter_context(Links(*self.linked))
            starting.enter_context(patch.dict(os.environ))
            self._make_folders(starting)
            if self._secured:
                self._guard = Guard(self.folder, self.links.port(TOKENS[1]))
                self.links.lead(TOKENS[1], self._guard.port)
                starting.callback(self._guard.close)
            self._start_services(starting)
            self._set_environment()
            kafka = KafkaSettings(
                bootstrap_servers=self.direct, replication_factor=3, min_insync_replicas=2, timeout_s=60
            )
            self.watch = Watch(self.direct)
            self.watch.await_brokers(3)
            provision.apply(kafka)
            if self._guard:
                self._guard.introduce(self.direct)
            self._start_actors(starting)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _make_folders(self, starting: ExitStack) -> None:
        sizes = {"actors": 256, "done": 64, "broker1": 1024, "broker2": 1024, "broker3": 1024}  # MiB
        for name, mib in sizes.items():
            (self.folder / name).mkdir()
            if self._on_disks:
                self.disks[name] = Disk(self.folder / name, mib)
                starting.callback(self.disks[name].close)

    def _start_services(self, starting: ExitStack) -> None:
        self.registry = Registry(self.folder / "registry")
        self.avstar = SandboxProcess(self.folder / "avstar", "--token-ttl", str(_TOKEN_S))
        first = None
        self.brokers: list[LinkedBroker] = []
        for number in range(1, len(BROKERS) + 1):
            folder = self.folder / f"broker{number}"
            broker = LinkedBroker(folder, number, self.links, first, self._guard)
            first = first or broker
            self.brokers.append(broker)
        for service in (self.registry, self.avstar, *self.brokers):
            starting.callback(service.kill)
            service.launch()
        for service in (self.registry, self.avstar, *self.brokers):
            service.wait()
        for name, broker in zip(BROKERS, self.brokers, strict=True):
            self.links.lead(name, int(broker.bootstrap.rpartition(":")[2]))
        self.links.lead("registry", int(self.registry.url.split("/")[2].rpartition(":")[2]))
        for name in ("Avstar", TOKENS[0]):
            self.links.lead(name, int(self.avstar.url.rpartition(":")[2]))

    @property
    def linked(self) -> tuple[str, ...]:
        """The links' names."""
        return LINKS if self._secured else LINKS[:-1]

    @property
    def direct(self) -> str:
        """The brokers' addresses without links."""
        return ",".join(broker.direct for broker in self.brokers)

    def _set_environment(self) -> None:
        for name in [name for name in os.environ if name.startswith("SPOTSTREAM_")]:
            del os.environ[name]
        here = "http://127.0.0.1"
        os.environ |= dict(line.split("=", 1) for line in sandbox.settings_lines(self.avstar.url)) | {
            "SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS": ",".join(
                f"127.0.0.1:{self.links.port(name)}" for name in BROKERS
            ),
            "SPOTSTREAM_KAFKA__REPLICATION_FACTOR": "3",
            "SPOTSTREAM_KAFKA__MIN_INSYNC_REPLICAS": "2",
            "SPOTSTREAM_REGISTRY__URL": f"{here}:{self.links.port('registry')}/apis/ccompat/v7",
            "SPOTSTREAM_AVSTAR__BASE_URL": f"{here}:{self.links.port('Avstar')}",
            "SPOTSTREAM_AVSTAR__OAUTH_TOKEN_URL": f"{here}:{self.links.port(TOKENS[0])}/oauth/token",
            "SPOTSTREAM_AVSTAR__OAUTH_CLIENT_ID": Credentials().client_id,
            "SPOTSTREAM_AVSTAR__OAUTH_CLIENT_SECRET": Credentials().client_secret,
            "SPOTSTREAM_WORKER__WEB_PORT": "0",
        }
        os.environ |= self._guard.environment if self._guard else {}

    def _start_actors(self, starting: ExitStack) -> None:
        self.tailers: list[Actor] = []
        self.logs: list[Log] = []
        for name, form, profile, count, settings in FEEDS:
            feed = self.folder / name
            feed.mkdir()
            moved = ["--done-dir", str(self.folder / DONE[0])] if name == DONE[1] else []
            arguments = ("tail", str(feed), "--profile", profile, *moved)
            tailer = self._actor(name, *arguments, TAIL__NAME=name, **settings)
            self.tailers.append(tailer)
            for _ in range(count):
                number = len(self.logs)
                # the last argument: a default binds this tailer, the loop's changes
                self.logs.append(
                    Log(
                        feed / f"log{number}.{form}",
                        form,
                        self.seed * 1000 + number,
                        self._per_s,
                        lambda path, tailer=tailer: published(tailer, path),
                    )
                )
        self.workers = [self.worker(f"worker{number}") for number in (1, 2)]
        for actor in self.actors:
            starting.callback(actor.kill)
            actor.start()
        keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        keeper.start()
        starting.callback(keeper.join, 10)
        starting.callback(self._over.set)

    def worker(self, name: str) -> Actor:
        """One more, yet to be started."""
        return self._actor(name, "worker", **(self._guard.of_workers if self._guard else {}))

    def _actor(self, name: str, *arguments: str, **settings: object) -> Actor:
        clock = Clock(self._library, self.folder / f"clock-{name}") if self._library else None
        return Actor(name, self.folder / "actors", *arguments, clock=clock, **settings)

    @property
    def feeds(self) -> list[tuple[Path, str]]:
        """The folders with all that was written, and its format."""
        folders = [(name, form) for name, form, *_ in FEEDS]
        return [(self.folder / name, form) for name, form in [*folders, (DONE[0], DONE[2])]]

    @property
    def actors(self) -> list[Actor]:
        return [*self.tailers, *self.workers]

    def _keep(self) -> None:
        while not self._over.wait(0.3):
            for actor in self.actors:
                actor.keep()

    def play(self, who: int, fault: dict[str, Any] | None) -> None:
        """Have Avstar play a fault, or no more."""
        with self._avstar_lock:
            if fault:
                self._played[who] = fault
            else:
                self._played.pop(who, None)
            self._put_faults()

    def restart_avstar(self, away: threading.Event, seconds: float) -> None:
        """SIGKILL; nobody gets through before it knows again which records to refuse."""
        with self._avstar_lock:
            self.links.cut("Avstar", cut=True)
            self.avstar.kill()
            away.wait(seconds)
            self.avstar.start()
            self._put_faults()
            self.links.cut("Avstar", cut=False)

    def _put_faults(self) -> None:
        # What is played comes first: of those that end a request the first one strikes.
        script = {"seed": self.seed, "faults": [*self._played.values(), *self.throughout]}
        request = urllib.request.Request(
            f"{self.avstar.url}/sandbox/faults", data=json.dumps(script).encode(), method="PUT"
        )
        urllib.request.urlopen(request, timeout=30).close()

    def booked(self) -> Counter[str]:
        """Placement hashes that Avstar has booked, each as often as it did."""
        with urllib.request.urlopen(f"{self.avstar.url}/sandbox/ledger/records", timeout=60) as answer:
            return Counter(json.loads(line)["idempotency_key"] for line in answer)

    def tracebacks(self) -> dict[str, list[str]]:
        """The tracebacks in each actor's log, as far as they fit into a page."""
        found = {}
        for actor in self.actors:
            with suppress(OSError):
                _, *rest = actor.said.split("Traceback")
                found[actor.name] = [text[:4000] for text in rest]
        return {name: texts for name, texts in found.items() if texts}
