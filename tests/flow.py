"""The whole flow as its users run it: ``spotstream`` commands as processes on a lab, and what comes of it."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from oracle import Verdict, frame, verdicts

from schemas.batch import source_of
from schemas.letter import DeadLetter, Receipt
from streams.lab.generate import Truth, generate, write
from streams.lab.up import Lab
from topics.admin import LATEST, Asker
from topics.catalogue import BATCHES, DLQ, RAW, RECEIPTS, VALIDATED
from topics.connection import KafkaSettings
from topics.reader import read_all

COMMAND = [sys.executable, "-m", "streams.cli"]
_MORTAL = Path(__file__).with_name("mortal.py")


def until(condition: Callable[[], Any], timeout_s: float = 60, every_s: float = 0.1) -> None:
    """Return when ``condition`` holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(every_s)


class Log(NamedTuple):
    """A generated log file, and what its generator knows of it."""

    path: Path
    truth: Truth

    faults: dict[int, set[str]]  #: of its bad records, by number: the columns at fault

    @property
    def verdicts(self) -> list[Verdict]:
        """The oracle's, recomputed from the file."""
        return list(verdicts(self.path.read_bytes()))

    @property
    def records(self) -> list[bytes]:
        """The records' bytes as the oracle cuts them, header left out."""
        return list(frame(self.path.read_bytes(), ","))[1:]

    @property
    def accepted(self) -> Counter[str]:
        """Placement hashes of the records that the oracle accepts."""
        return Counter(v.placement_hash for v in self.verdicts if v.placement_hash)


class Flow:
    """Runs commands against ``lab``; ends what still runs when it is left."""

    _numbers = itertools.count()

    def __init__(self, lab: Lab, folder: Path) -> None:
        # A test that is run again on the same lab needs records that are not booked yet.
        self._number = next(self._numbers)
        self.lab, self.folder = lab, folder
        self.kafka = KafkaSettings(bootstrap_servers=lab.broker.bootstrap)
        self._started: list[subprocess.Popen[bytes]] = []
        self._booked_before = self._all_booked().total()

    def __enter__(self) -> "Flow":
        return self

    def __exit__(self, *_: object) -> None:
        """In order where that works, so that the next flow need not wait for sessions to run out."""
        self.faults()
        processes = [psutil.Process(one.pid) for one in self._started if one.poll() is None]
        for process in processes:
            process.terminate()
        left = psutil.wait_procs(processes, 15)[1]
        for one in [child for process in left for child in [process, *_children(process.pid)]]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        for started in self._started:
            started.wait(10)

    def environment(self, **settings: object) -> dict[str, str]:
        """Ours, with the lab's addresses and ``settings`` (``BATCH__SECONDS=0.2``)."""
        given = {"WORKER__WEB_PORT": 0} | settings
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SPOTSTREAM_")}
        return (
            ours | self.lab.environment | {f"SPOTSTREAM_{name}": str(value) for name, value in given.items()}
        )

    def log(self, records: int, seed: int, bad_rate: float = 0.03) -> Log:
        """Generate a log file; those of one flow differ from those of another under the same seed."""
        path = self.folder / f"log-{seed}.csv"
        with path.open("wb") as stream:
            truth = write(stream, lines := list(generate(records, seed + 10_000 * self._number, bad_rate)))
        return Log(path, truth, {line.number: set(line.fields) for line in lines if line.fault})

    def start(
        self,
        *arguments: object,
        extra: dict[str, str] | None = None,
        dying: tuple[str, int] | None = None,
        **settings: object,
    ) -> "Process":
        """Start a command; ``dying``: the step that it kills itself at, and in which transaction."""
        command = [sys.executable, _MORTAL, *dying] if dying else COMMAND
        process = Process(self, command, arguments, self.environment(**settings) | (extra or {}))
        self._started.append(process.popen)
        return process

    def run(self, *arguments: object, timeout_s: float = 60, **settings: object) -> tuple[int, str]:
        """Run a command to its end: exit status and what it said on stderr."""
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=self.environment(**settings),
            cwd=self.folder,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    def tail(self, log: Log, **settings: object) -> None:
        """Publish a whole log."""
        status, said = self.run("tail", log.path, "--once", **settings)
        assert status == 0, said

    def settle(self, timeout_s: float = 60) -> None:
        """Return when validate has read all raw records and dispatch all batches."""
        deadline = time.monotonic() + timeout_s
        for group, topic in (("spotstream-validate", RAW.name), ("spotstream-dispatch", BATCHES.name)):
            until(lambda: not self.behind(group, topic), deadline - time.monotonic())  # noqa: B023 - called now

    def behind(self, group: str, topic: str) -> bool:
        """Whether the group has committed records of ``topic`` yet to read; markers are no records."""
        consumer = Consumer(
            self.kafka.confluent(
                group_id=group,
                enable_auto_commit=False,  # while the group has no members, a commit of ours would be taken
                enable_partition_eof=True,
                isolation_level="read_committed",
            )
        )
        try:
            ends = self._ends(topic)
            committed = consumer.committed([TopicPartition(topic, partition) for partition in ends], 15)
            begins = [TopicPartition(topic, at.partition, max(at.offset, 0)) for at in committed]
            if any(ends[at.partition] - at.offset > 50 for at in begins):
                return True
            consumer.assign(left := [at for at in begins if at.offset < ends[at.partition]])
            for _ in left:
                message = consumer.poll(15)
                assert message is not None, "the broker is silent"
                if message.error() is None:
                    return True
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                if message.offset() < ends[message.partition()]:
                    return True  # a transaction is open
            return False
        except KafkaException:
            return True  # on a busy machine a broker is no coordinator at times
        finally:
            consumer.close()

    def _ends(self, topic: str) -> dict[int, int]:
        asker = Asker(self.kafka)
        return asker.offsets(topic, dict.fromkeys(asker.topic(topic).partitions, LATEST), 15)

    def audit(self, log: Log | None = None, timeout_s: float = 90) -> tuple[int, dict[str, Any]]:
        """Exit status and the JSON object, of one log or of everything."""
        done = subprocess.run(
            [*COMMAND, "audit", "--json", *(["--file", str(log.path)] if log else [])],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def letters(self, log: Log | None = None) -> list[tuple[str, DeadLetter, dict[str, bytes]]]:
        """Key, letter and headers of the dead letters, of one log or of everything; each once per message."""
        found = []
        for message in read_all(self.kafka, DLQ.name):
            letter = DeadLetter.model_validate_json(message.value() or b"")
            if log is None or (letter.place and letter.place.path == str(log.path)):
                found.append(((message.key() or b"").decode(), letter, dict(message.headers() or ())))
        return found

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """What ``dlq list`` says."""
        done = subprocess.run(
            [*COMMAND, "dlq", "list", "--json", *arguments],
            env=self.environment(),
            capture_output=True,
            check=True,
            timeout=60,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def batches(self) -> list[tuple[str, dict[str, bytes]]]:
        """Key and headers of every batch."""
        return [
            ((m.key() or b"").decode(), dict(m.headers() or ())) for m in read_all(self.kafka, BATCHES.name)
        ]

    def windows(self) -> list[int]:
        """How many raw records each batch's window had."""
        return [source_of(headers).records for _, headers in self.batches()]

    def booked(self) -> Counter[str]:
        """Placement hashes that were booked since this flow began, each as often as it was."""
        return Counter(list(self._ledger())[self._booked_before :])

    def validated(self) -> Counter[str]:
        """Placement hashes on the validated topics, of records that decode by the registry's schemas."""
        decode = AvroDeserializer(SchemaRegistryClient({"url": self.lab.registry.url}))
        found: Counter[str] = Counter()
        for topic in VALIDATED.values():
            for message in read_all(self.kafka, topic.name):
                assert message.key()
                found[decode(message.value(), None)["placement_hash"]] += 1
        return found

    def receipts(self) -> list[tuple[str, Receipt]]:
        """Key and receipt of every batch that has ended."""
        return [
            ((m.key() or b"").decode(), Receipt.model_validate_json(m.value() or b""))
            for m in read_all(self.kafka, RECEIPTS.name)
        ]

    def _all_booked(self) -> Counter[str]:
        return Counter(self._ledger())

    def _ledger(self) -> list[str]:
        with urllib.request.urlopen(f"{self.lab.sandbox.url}/sandbox/ledger/records") as answer:
            return [orjson.loads(line)["idempotency_key"] for line in answer]

    def totals(self) -> dict[str, int]:
        """The ledger's totals."""
        with urllib.request.urlopen(f"{self.lab.sandbox.url}/sandbox/ledger") as answer:
            return dict(orjson.loads(answer.read()))

    def faults(self, *faults: dict[str, Any], seed: int = 0) -> None:
        """Play these from now on; none: behave."""
        request = urllib.request.Request(
            f"{self.lab.sandbox.url}/sandbox/faults",
            data=json.dumps({"seed": seed, "faults": faults}).encode(),
            method="PUT",
        )
        urllib.request.urlopen(request).close()

    def hits(self) -> int:
        """How often the faults have struck."""
        with urllib.request.urlopen(f"{self.lab.sandbox.url}/sandbox/faults") as answer:
            return sum(fault["hits"] for fault in orjson.loads(answer.read())["faults"])

    def check(self, log: Log, **expected: int) -> dict[str, Any]:
        """The audit of one log adds up, nothing is missing or there twice, the ledger is as the oracle says.

        ``expected``: other numbers of the audit than those of a log that was booked but for what the
        generator spoilt.
        """
        status, audit = self.audit(log)
        numbers = {
            "records": log.truth.records,
            "published": log.truth.records,
            "delivered": log.truth.records - log.truth.bad,
            "rejected": log.truth.bad,
            "dead_lettered": 0,
            "missing": 0,
            "duplicates": 0,
        } | expected
        assert {name: audit[name] for name in numbers} == numbers
        assert status == 0
        return audit


class Process:
    """A command that runs; what it says goes to a file."""

    def __init__(
        self, flow: Flow, command: list[Any], arguments: tuple[object, ...], environment: dict[str, str]
    ) -> None:
        self._output = flow.folder / f"{arguments[0]}-{len(flow._started)}.log"
        with self._output.open("wb") as output:
            self.popen = subprocess.Popen(
                [*map(str, command), *map(str, arguments)],
                env=environment,
                cwd=flow.folder,
                stdout=output,
                stderr=output,
            )

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self._output.read_text(errors="replace")

    def role(self, name: str) -> psutil.Process | None:
        """The process of a role below a supervisor, if it runs."""
        for child in _children(self.popen.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if name in child.cmdline():
                    return child
        return None

    def wait_for(self, text: str, times: int = 1, timeout_s: float = 60) -> None:
        """Return when it has said ``text``."""
        until(lambda: self.said.count(text) >= times or self.popen.poll() is not None, timeout_s)
        assert self.said.count(text) >= times, self.said

    def end(self, number: int, timeout_s: float = 30) -> int:
        """Send a signal; the exit status."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout_s)


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []
