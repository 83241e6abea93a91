"""An embedded schema registry: Apicurio Registry, which speaks Confluent's API too, on loopback."""

from pathlib import Path

from streams.lab import jars, java
from streams.lab.service import Embedded, Service, answers, free_port

LOCK_FILE = Path(__file__).with_name("registry.lock")
_JAVA = 21

#: C1 alone: it answers a few requests and then idles. WRITE_DELAY=0: an id that was given out is on disk.
_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dquarkus.http.host=127.0.0.1",
    "-Dquarkus.management.host=127.0.0.1",
    "-Dquarkus.http.access-log.enabled=false",
    "-Dapicurio.datasource.url=jdbc:h2:file:./registry;WRITE_DELAY=0",
    "-Dapicurio.datasource.jdbc.initial-size=1",
    "-Dapicurio.datasource.jdbc.min-size=1",
    "-Dapicurio.datasource.jdbc.max-size=8",
)


class Registry(Embedded):
    """A schema registry; its schemas and their ids survive a restart.

    Started, it answers at ``url``, the base address of the Confluent-compatible API, which stays the same if
    the port is still free.
    """

    start_s = 90.0

    def __init__(self, data_dir: Path, cache: Path | None = None) -> None:
        super().__init__(data_dir)
        self._cache = cache or jars.cache_dir()
        self.url = ""

    def _spawn(self, lock: int) -> Service:
        home = jars.unpacked(LOCK_FILE, self._cache)
        port = self._steady_port()
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        ports = (f"-Dquarkus.http.port={port}", f"-Dquarkus.management.port={free_port()}")
        command = [str(java.find(_JAVA)), *_OPTIONS, *ports, "-jar", str(home / "quarkus-run.jar")]
        return Service("the schema registry", command, self._dir, lock)

    def _answers(self) -> bool:
        return answers(f"{self.url}/subjects")
