"""docker/compose.yml without Docker: its commands, with its environment, on ports and folders of here."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flow import until
from test_docker import COMPOSE, DOCKERFILE

from streams.lab.generate import generate, write
from streams.lab.kafka import Broker
from streams.lab.registry import Registry
from streams.lab.service import free_port

pytestmark = pytest.mark.broker

_HEALTH = json.loads(re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)[1])
_GRACE_S = 15


def filled(text: str) -> str:
    """As compose reads it where nothing is set: ``${NAME:-default}`` is the default."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


class Here:
    """What the containers' names and paths are on this machine."""

    def __init__(self, folder: Path) -> None:
        self.kafka, self.registry, self.sandbox = free_port(), free_port(), free_port()
        web, tail = free_port(adjacent=2), free_port()
        (folder / "web_token").write_text("a-token-of-this-test\n")
        (folder / "files").mkdir()
        (folder / "ledger").mkdir()
        self._places = {
            "kafka:9092": f"127.0.0.1:{self.kafka}",
            "registry:8080": f"127.0.0.1:{self.registry}",
            "sandbox:8080": f"127.0.0.1:{self.sandbox}",
            "127.0.0.1:8080": f"127.0.0.1:{self.sandbox}",
            "8080": str(self.sandbox),
            "127.0.0.1:6066": f"127.0.0.1:{web}",
            "127.0.0.1:6067": f"127.0.0.1:{web + 1}",
            "127.0.0.1:6068": f"127.0.0.1:{tail}",
            "6068": str(tail),
            "0.0.0.0": "127.0.0.1",
            "/var/lib/spotstream": str(folder / "ledger"),
            "/run/secrets": str(folder),
            "/data": str(folder / "files"),
        }
        self.web, self.files = web, folder / "files"

    def place(self, text: str) -> str:
        names = "|".join(map(re.escape, sorted(self._places, key=len, reverse=True)))
        return re.sub(rf"(?<![\w.])(?:{names})", lambda found: self._places[found[0]], filled(text))

    def environment(self, service: str) -> dict[str, str]:
        """Of the container, beside what any process has."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("SPOTSTREAM_")}
        given = COMPOSE["services"][service]["environment"]
        ours = {name: self.place(str(value)) for name, value in given.items()}
        # The image's ports are fixed, ours are not.
        return own | ours | {"SPOTSTREAM_WORKER__WEB_PORT": str(self.web)}


class ComposeBroker(Broker):
    """The broker as compose sets it up: the image makes ``some.name`` of each ``KAFKA_SOME_NAME``."""

    def __init__(self, folder: Path, here: Here) -> None:
        super().__init__(folder)
        self._here = here

    def _write_settings(self) -> None:
        self.bootstrap = self._here.place("kafka:9092")
        environment = COMPOSE["services"]["kafka"]["environment"]
        assert len(urlsafe_b64decode(environment["CLUSTER_ID"] + "==")) == 16
        controller = f"127.0.0.1:{free_port()}"
        lines = [
            f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={self._here.place(str(value))}"
            for name, value in environment.items()
            if name.startswith("KAFKA_")
        ]
        text = "\n".join(lines)
        for there, here in (
            ("PLAINTEXT://:9092", f"PLAINTEXT://{self.bootstrap}"),
            ("CONTROLLER://:9093", f"CONTROLLER://{controller}"),
            ("1@kafka:9093", f"1@{controller}"),
            ("/var/lib/kafka/data", "topics"),
        ):
            assert there in text
            text = text.replace(there, here)
        (self._dir / "server.properties").write_text(text)


class ComposeRegistry(Registry):
    """The registry with compose's environment."""

    def __init__(self, folder: Path, here: Here) -> None:
        super().__init__(folder)
        self._here = here

    def _steady_port(self) -> int:
        return self._here.registry

    def launch(self) -> None:
        given = self._here.environment("registry")
        ours = {name: value for name, value in given.items() if name.startswith("APICURIO_")}
        assert ours
        os.environ.update(ours)
        try:
            super().launch()
        finally:
            for name in ours:
                del os.environ[name]


class Containers:
    """Our services as processes."""

    def __init__(self, here: Here, folder: Path) -> None:
        self._here, self._folder = here, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, service: str) -> list[str]:
        said = COMPOSE["services"][service]["command"]
        return [sys.executable, "-m", "streams.cli", *map(self._here.place, said)]

    def start(self, service: str) -> None:
        with (self._folder / f"{service}.log").open("wb") as log:
            self.running[service] = subprocess.Popen(
                self.command(service),
                env=self._here.environment(service),
                cwd=self._folder,
                stderr=log,
                stdout=log,
            )

    def said(self, service: str) -> str:
        return (self._folder / f"{service}.log").read_text()

    def healthy(self, service: str) -> bool:
        """By the image's own check."""
        assert self.running[service].poll() is None, self.said(service)
        command = [sys.executable, *_HEALTH[1:]]
        done = subprocess.run(
            command, env=self._here.environment(service), timeout=20, check=False, capture_output=True
        )
        return done.returncode == 0

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(10)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


@pytest.fixture
def containers(here: Here, tmp_path: Path) -> Iterator[Containers]:
    with ExitStack() as stack:
        broker = stack.enter_context(ComposeBroker(tmp_path / "kafka", here))
        registry = stack.enter_context(ComposeRegistry(tmp_path / "registry", here))
        assert broker.bootstrap == here.place("kafka:9092")
        assert registry.url == here.place("http://registry:8080/apis/ccompat/v7")
        made = Containers(here, tmp_path)
        stack.callback(made.close)
        yield made


def ledger(here: Here) -> dict[str, Any]:
    with urllib.request.urlopen(here.place("http://sandbox:8080/sandbox/ledger"), timeout=10) as answer:
        return dict(json.loads(answer.read()))


@pytest.mark.timeout(300)
def test_a_file_flows_through_what_compose_starts(containers: Containers, here: Here) -> None:
    containers.start("sandbox")
    containers.start("topics")
    assert containers.running["topics"].wait(60) == 0, containers.said("topics")
    del containers.running["topics"]
    for service in ("tail", "validate", "dispatch"):
        containers.start(service)
    for service in containers.running:
        until(lambda: containers.healthy(service), 90)  # noqa: B023 - called now
    with (here.files / "log.csv").open("wb") as stream:
        truth = write(stream, list(generate(300, 77, 0.05)))
    until(lambda: ledger(here)["unique_records"] == truth.records - truth.bad, 90)
    assert ledger(here)["duplicates_booked"] == 0
    begin = time.monotonic()
    for process in containers.running.values():
        process.send_signal(signal.SIGTERM)
    ended = {name: process.wait(_GRACE_S) for name, process in containers.running.items()}
    assert time.monotonic() - begin < _GRACE_S
    assert ended == dict.fromkeys(ended, 0)


def test_the_grace_is_that_of_compose() -> None:
    assert {COMPOSE["services"][name]["stop_grace_period"] for name in ("tail", "validate", "dispatch")} == {
        f"{_GRACE_S}s"
    }
