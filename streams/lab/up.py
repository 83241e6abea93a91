"""Kafka, the schema registry and the Avstar sandbox together, on one data folder: ``spotstream up``."""

import json
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from streams.lab import sandbox
from streams.lab.cluster import three
from streams.lab.kafka import Broker
from streams.lab.registry import Registry
from streams.lab.service import Embedded, Service, answers
from topics import provision
from topics.connection import KafkaSettings


class SandboxProcess(Embedded):
    """The Avstar sandbox as a child process, with ``options`` of its command; its ledger survives a restart.
    Started, it is at ``url``."""

    start_s = 30.0

    def __init__(self, data_dir: Path, *options: str) -> None:
        super().__init__(data_dir)
        self._options, self.url = options, ""

    def _spawn(self, lock: int) -> Service:
        port = self._steady_port()
        self.url = f"http://127.0.0.1:{port}"
        return Service(
            "the Avstar sandbox", sandbox.command(port, self._dir, *self._options), self._dir, lock
        )

    def _answers(self) -> bool:
        return answers(f"{self.url}/sandbox/ledger")


class Lab:
    """The three services on ``data_dir``, with the declared topics created; a context manager.

    ``broker``, ``registry`` and ``sandbox`` have their addresses once it is entered, and the file ``env`` in
    ``data_dir`` has them as settings. Entering raises what the services' ``start`` raise; none runs then.
    """

    def __init__(
        self,
        data_dir: Path,
        cache: Path | None = None,
        *,
        replicated: bool = False,
        partitions: int | None = None,
    ) -> None:
        """``replicated``: on three brokers, each with a replica of everything, two of which are needed.
        ``partitions``: of ``avion.raw`` and ``avstar.batches``; None: the settings' default.
        """
        self.data_dir = data_dir.absolute()
        folder = self.data_dir / "kafka"
        self.brokers: Sequence[Broker] = three(folder, cache) if replicated else [Broker(folder, cache)]
        safety = {"replication_factor": 3, "min_insync_replicas": 2} if replicated else {}
        self._given = safety | ({"partitions": partitions} if partitions else {})
        self.registry = Registry(self.data_dir / "registry", cache)
        self.sandbox = SandboxProcess(self.data_dir / "avstar")
        self._running = ExitStack()

    @property
    def env_file(self) -> Path:
        """The settings that reach these services, a line ``SPOTSTREAM_SECTION__NAME=value`` each."""
        return self.data_dir / "env"

    @property
    def broker(self) -> Broker:
        """The first of them."""
        return self.brokers[0]

    @property
    def kafka(self) -> KafkaSettings:
        """How its brokers are reached, once they run."""
        servers = ",".join(broker.bootstrap for broker in self.brokers)
        return KafkaSettings(bootstrap_servers=servers, **self._given)

    @property
    def environment(self) -> dict[str, str]:
        """The same, for child processes."""
        lines = (
            f"SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS={self.kafka.bootstrap_servers}",
            *(f"SPOTSTREAM_KAFKA__{name.upper()}={value}" for name, value in self._given.items()),
            f"SPOTSTREAM_REGISTRY__URL={self.registry.url}",
            *sandbox.settings_lines(self.sandbox.url),
        )
        return dict(line.split("=", 1) for line in lines)

    def __enter__(self) -> Self:
        services = (self.registry, self.sandbox, *self.brokers)  # the broker's own preparations take longest
        with ExitStack() as starting:
            for service in services:
                starting.callback(service.stop)
                service.launch()
            for service in services:
                service.wait()
            provision.apply(self.kafka)
            self._write_env()
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    def kill(self) -> None:
        """End all of them at once, as a crash would: for data that nobody will need."""
        for service in (*self.brokers, self.registry, self.sandbox):
            service.kill()

    def _write_env(self) -> None:
        self.env_file.touch(mode=0o600)  # it has the sandbox's key in it
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in self.environment.items()))


def run(data_dir: Path, *, as_json: bool) -> None:
    """Run a :class:`Lab` in the foreground until SIGTERM or SIGINT; one line on stdout when it is ready."""
    interrupt_on_signals()
    try:
        with Lab(data_dir) as lab:
            print(_addresses(lab, as_json=as_json), flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        pass


def interrupt_on_signals() -> None:
    """Let the first SIGTERM or SIGINT raise ``KeyboardInterrupt``; later ones do nothing any more."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)


def ignore_signals() -> None:
    """From now on SIGTERM and SIGINT do not break into what is being done: it is the end already."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - the signature is signal's
    """Leave what is being done, once: a second Ctrl-C does not break into the services' end."""
    ignore_signals()
    raise KeyboardInterrupt


def _addresses(lab: Lab, *, as_json: bool) -> str:
    addresses = {
        "kafka": lab.broker.bootstrap,
        "registry": lab.registry.url,
        "avstar": lab.sandbox.url,
        "env": str(lab.env_file),
    }
    if as_json:
        return json.dumps(addresses)
    return "  ".join(f"{name} {address}" for name, address in addresses.items())
