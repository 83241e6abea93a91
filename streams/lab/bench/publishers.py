"""What else publishes a file's lines: kcat, rsyslog, Bento, and a bare confluent-kafka loop.

All with acks=all, idempotent where they can be, lz4, into partition 0. None of them has transactions.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.errors import Problem
from streams.lab.bench.children import limit_s, running, until
from streams.lab.bench.contest import Contender
from topics.connection import KafkaSettings

_BLOCK = 1_048_576
_KAFKA = {"acks": "all", "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 5}

#: ``publish(path, topic, lines)``: all of the file's lines are in the topic when it returns.
Publish = Callable[[Path, str, int], None]

_RSYSLOG = """\
global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imfile")
module(load="omkafka")
template(name="line" type="string" string="%msg%")
main_queue(queue.size="100000" queue.dequeueBatchSize="4096")
input(type="imfile" file="{path}" tag="avion" reopenOnTruncate="on")
action(type="omkafka" broker=["{bootstrap}"] topic="{topic}" template="line" partitions.useFixed="0"
  confParam=["acks=all", "enable.idempotence=true", "compression.codec=lz4", "linger.ms=5",
             "queue.buffering.max.messages=500000"])
"""

_BENTO = """\
http: {{enabled: false}}
logger: {{level: error}}
input:
  file: {{paths: ["{path}"], scanner: {{lines: {{}}}}}}
output:
  kafka_franz:
    seed_brokers: ["{bootstrap}"]
    topic: "{topic}"
    partitioner: manual
    partition: "0"
    compression: lz4
    batching: {{count: 10000, period: 100ms}}
"""


def no_kcat() -> str:
    """Why kcat cannot run here; empty when it can."""
    return "" if shutil.which("kcat") else "kcat is not installed"


def publishers(kafka: KafkaSettings, folder: Path, run: Callable[[Publish], float]) -> list[Contender]:
    """All of them as contenders; ``run`` has one publish a file to a topic and gives its records a second."""

    def contender(name: str, publish: Publish, missing: str = "") -> Contender:
        return Contender(name, lambda: run(publish), missing)

    def kcat(path: Path, topic: str, lines: int) -> None:
        options = [f"-X{name}={str(value).lower()}" for name, value in _KAFKA.items()]
        where = ["-b", kafka.bootstrap_servers, "-t", topic, "-p", "0"]
        command = ["kcat", "-P", *where, "-l", str(path), *options]
        subprocess.run(command, check=True, timeout=limit_s(lines))

    def follower(config: str, *command: str) -> Publish:
        def publish(path: Path, topic: str, lines: int) -> None:
            file = folder / f"{topic}.conf"
            where = {"path": path, "topic": topic, "bootstrap": kafka.bootstrap_servers, "folder": folder}
            file.write_text(config.format(**where))
            _follow([*command, str(file)], kafka, topic, lines)

        return publish

    rsyslogd, bento = shutil.which("rsyslogd", path="/usr/sbin:/usr/local/sbin:/sbin"), shutil.which("bento")
    pid_file = str(folder / "rsyslogd.pid")
    return [
        contender("kcat -P -l", kcat, no_kcat()),
        contender(
            "rsyslog imfile, omkafka",
            follower(_RSYSLOG, rsyslogd or "", "-n", "-i", pid_file, "-f"),
            "" if rsyslogd and any(Path("/usr/lib").glob("**/rsyslog/omkafka.so")) else
            "rsyslog with omkafka is not installed",
        ),
        contender("Bento file, kafka_franz", follower(_BENTO, bento or "", "-c"),
                  "" if bento else "bento is not installed"),
        contender("confluent-kafka produce_batch", lambda path, topic, _: _bare(kafka, path, topic)),
    ]  # fmt: skip


def _bare(kafka: KafkaSettings, path: Path, topic: str) -> None:
    producer = Producer(kafka.confluent(queue_buffering_max_messages=500_000) | _KAFKA)
    for block in _blocks(path):
        messages: list[dict[str, Any]] = [{"value": line} for line in block.splitlines()]
        while messages:
            producer.produce_batch(topic, messages, 0)
            messages = [message for message in messages if "_error" in message]
            if messages:
                producer.poll(0.01)
                messages = [{"value": message["value"]} for message in messages]
    producer.flush()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block + file.readline()


def _follow(command: Sequence[str], kafka: KafkaSettings, topic: str, lines: int) -> None:
    """Run what follows a file until the topic has all of it."""
    with (
        closing(Consumer(kafka.reading())) as consumer,
        running(command, grace_s=0, stdout=subprocess.DEVNULL) as child,
    ):
        until(
            lambda: consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)[1] >= lines,
            [child],
            limit_s(lines),
            lambda: Problem("did not publish the whole file", where=command[0]),
            0.01,
        )
