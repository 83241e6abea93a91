"""An embedded Apache Kafka: one KRaft node, broker and controller in one, on loopback."""

import secrets
import subprocess
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import Problem
from streams.lab import jars, java
from streams.lab.service import Embedded, Service, free_port

LOCK_FILE = Path(__file__).with_name("kafka.lock")
_JAVA = 17
_MESSAGE_BYTES = 32 * 1_048_576

_SETTINGS_FILE = "server.properties"
#: The path is relative to the data folder, where the broker runs: the file's syntax knows neither UTF-8 in a
#: path nor a comma.
_SETTINGS = f"""\
log.dirs=topics
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
message.max.bytes={_MESSAGE_BYTES}
replica.fetch.max.bytes={_MESSAGE_BYTES}
socket.request.max.bytes={4 * _MESSAGE_BYTES}
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""

_OPTIONS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # on two cores as quick as G1, in a fifth less memory
    "-XX:TieredStopAtLevel=1",  # C1 alone: 20 s of processor time for a million records, with C2 34 s
    "-Dorg.slf4j.simpleLogger.logFile=System.out",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)


class Broker(Embedded):
    """A Kafka broker; topics, offsets and cluster id survive a restart.

    Started, it answers at ``bootstrap``, which stays the same if the port is still free.
    """

    start_s = 60.0

    def __init__(self, data_dir: Path, cache: Path | None = None) -> None:
        super().__init__(data_dir)
        self._cache = cache or jars.cache_dir()
        #: ``127.0.0.1:PORT``, once started.
        self.bootstrap = ""

    def _spawn(self, lock: int) -> Service:
        command = [str(java.find(_JAVA)), "-cp", jars.class_path(LOCK_FILE, self._cache)]
        self._write_settings()
        if not (self._dir / "topics" / "meta.properties").exists():
            self._format(command)
        self._admin = AdminClient(
            {"bootstrap.servers": self.bootstrap, "log_level": 0}
            | {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 50}
        )
        return Service("Kafka", [*command, *_OPTIONS, "kafka.Kafka", _SETTINGS_FILE], self._dir, lock)

    def _answers(self) -> bool:
        try:
            return bool(self._admin.list_topics(timeout=0.5).brokers)
        except KafkaException:
            return False

    def _write_settings(self) -> None:
        self.bootstrap = f"127.0.0.1:{self._steady_port()}"
        controller = f"127.0.0.1:{free_port()}"
        (self._dir / _SETTINGS_FILE).write_text(
            f"{_SETTINGS}"
            f"listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}\n"
            f"advertised.listeners=PLAINTEXT://{self.bootstrap}\n"
            f"controller.quorum.voters=1@{controller}\n",
            encoding="ascii",
        )

    def _format(self, command: list[str]) -> None:
        cluster_id = "s" + secrets.token_urlsafe(16)[1:]  # a dash in front would look like an option
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        arguments = ("--ignore-formatted", "--cluster-id", cluster_id, "--config", _SETTINGS_FILE)
        done = subprocess.run(
            [*command, *quick, "kafka.tools.StorageTool", "format", *arguments],
            cwd=self._dir,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Problem(f"could not format its storage: {done.stderr.strip()}", where="Kafka")
