"""Three brokers in one cluster: the first is the controller, too; the others join it."""

import re
import subprocess
from pathlib import Path

from confluent_kafka import KafkaException

from streams.lab.kafka import Broker

_REPLICATED = """
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
"""


class Member(Broker):
    """The broker of this ``number``, from 1; all but the first join ``first``."""

    def __init__(
        self, data_dir: Path, number: int, first: "Member | None" = None, cache: Path | None = None
    ) -> None:
        super().__init__(data_dir, cache)
        self._number, self._first = number, first

    def _answers(self) -> bool:
        try:
            return self._number in self._admin.list_topics(timeout=0.5).brokers
        except KafkaException:
            return False

    def _property(self, file: str, name: str) -> str:
        found: str
        (found,) = re.findall(rf"^{re.escape(name)}=(.*)$", (self._dir / file).read_text(), re.MULTILINE)
        return found

    def _write_settings(self) -> None:
        super()._write_settings()
        text = (self._dir / "server.properties").read_text()
        for line in _REPLICATED.split():
            text = re.sub(rf"^{re.escape(line.partition('=')[0])}=.*$", line, text, flags=re.MULTILINE)
        if self._first:
            voters = self._first._property("server.properties", "controller.quorum.voters")
            text = re.sub(
                "^controller.quorum.voters=.*$",
                f"controller.quorum.voters={voters}",
                text,
                flags=re.MULTILINE,
            )
            text = re.sub("^node.id=.*$", f"node.id={self._number}", text, flags=re.MULTILINE)
            text = re.sub("^process.roles=.*$", "process.roles=broker", text, flags=re.MULTILINE)
            text = re.sub(r"^(listeners=[^,]*),.*$", r"\1", text, flags=re.MULTILINE)
        (self._dir / "server.properties").write_text(text)

    def _format(self, command: list[str]) -> None:
        if not self._first:
            super()._format(command)
            return
        cluster = self._first._property("topics/meta.properties", "cluster.id")
        arguments = ("--cluster-id", cluster, "--config", "server.properties")
        subprocess.run(
            [*command, "kafka.tools.StorageTool", "format", *arguments],
            cwd=self._dir, check=True, capture_output=True,
        )  # fmt: skip


def three(data_dir: Path, cache: Path | None = None) -> list[Member]:
    """A cluster of them, to be launched in this order; Kafka's own topics have a replica on each."""
    first = Member(data_dir / "1", 1, cache=cache)
    return [first, *(Member(data_dir / str(number), number, first, cache) for number in (2, 3))]
