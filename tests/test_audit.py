"""The audit and the dead-letter commands on a real broker: what was tailed, batched and rejected is told."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog
from confluent_kafka import Message, Producer
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from schemas.batch import source_of
from schemas.codec import Codec
from schemas.descriptor import Descriptor
from schemas.errors import Problem, Unreachable
from schemas.letter import DeadLetter, Receipt, now
from schemas.records import KINDS
from streams.audit.account import audit
from streams.audit.books import Tally
from streams.cli import app
from streams.lab.generate import Truth, generate, write
from streams.lab.kafka import Broker
from streams.settings import Settings, load
from streams.tail import tailer as tail
from streams.validate.judge import Judge
from streams.validate.outcome import conclude
from topics.catalogue import BATCHES, DLQ, FILES, RAW, RECEIPTS
from topics.provision import apply
from topics.reader import read_all, read_compacted

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of its own: the topics' names are the catalogue's."""
    with Broker(tmp_path_factory.mktemp("audit")) as running:
        yield running


@pytest.fixture(scope="module")
def settings(kafka: Broker) -> Settings:
    found = load({"kafka": {"bootstrap_servers": kafka.bootstrap}})
    apply(found.kafka)
    return found


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, Truth]:
    path = tmp_path / "log.csv"
    with path.open("wb") as stream:
        # The tailer knows the copy of a file that is gone by its content: each test's is its own.
        stream.write(f"# {path}\n".encode())
        return path, write(stream, generate(1200, seed=3, bad_rate=0.1))


def command(settings: Settings, *arguments: str) -> Result:
    variables = {"SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers}
    try:
        return CliRunner(env=variables).invoke(app, arguments, standalone_mode=False)
    finally:
        structlog.reset_defaults()  # it would log into the runner's stderr, which is closed by now


def published(settings: Settings, path: Path) -> list[Message]:
    """Tail a file to its end; the raw records that it became."""
    tail.run(settings, [str(path)], once=True, stop=threading.Event())
    files = read_compacted(settings.kafka, FILES.name)
    ours = {key for key, value in files.items() if Descriptor.load(value).path == str(path)}
    return [m for m in read_all(settings.kafka, RAW.name) if (m.key() or b"")[:16] in ours]


class Record(NamedTuple):
    """A raw record as the workers see it."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


def validate(settings: Settings, path: Path, *, deliver: bool = True) -> None:
    """What the workers do with a file's records: windows, batches, dead letters, receipts."""
    raws = published(settings, path)
    partition = raws[0].partition() or 0
    records = [Record(raw.offset() or 0, 0, raw.key() or b"", raw.value() or b"") for raw in raws]
    values = read_compacted(settings.kafka, FILES.name)
    descriptors = {record.key[:16]: Descriptor.load(values[record.key[:16]]) for record in records}
    (judge,) = map(Judge, descriptors.values())
    codecs = {kind: Codec(kind, 1) for kind in KINDS}
    producer = Producer(settings.kafka.confluent(message_max_bytes=16_000_000))
    for start in range(0, len(records), 500):
        window = records[start : start + 500]
        verdicts = judge.judge([record.value for record in window])
        outcome = conclude(window, verdicts, partition, codecs, descriptors)
        outcome.produce(producer, partition)
        if deliver and (built := outcome.batch):
            source = source_of(dict(outcome.headers))
            receipt = Receipt(
                status="delivered", batch_id=built.batch_id, source=source, records=built.records, at=now()
            )
            producer.produce(RECEIPTS.name, receipt.dump(), built.key, partition)
    producer.flush(15)


def test_every_record_of_a_file_is_accounted_for(settings: Settings, log: tuple[Path, Truth]) -> None:
    path, truth = log
    validate(settings, path)
    found = audit(settings, str(path))
    assert found.statement.total == Tally(
        "all",
        records=1200,
        published=1200,
        validated=1080,
        rejected=truth.bad,
        batches=3,
        delivered=1080,
    )
    assert found.passed
    assert found.statement.findings == []


def test_the_command_prints_one_object_and_fails_when_records_are_missing(
    settings: Settings, log: tuple[Path, Truth]
) -> None:
    path, _ = log
    validate(settings, path, deliver=False)
    result = command(settings, "audit", "--json", "--file", str(path))
    told = json.loads(result.stdout)
    names = "records published validated rejected batches delivered dead_lettered missing duplicates"
    assert [told[name] for name in names.split()] == [1200, 1200, 1080, 120, 3, 0, 0, 1080, 0]
    assert told["seconds"] > 0
    assert sum(finding["records"] for finding in told["findings"]) == 1080
    assert result.exit_code == 1
    table = command(settings, "audit", "--file", str(path))
    assert "in a batch without receipt" in table.stdout
    assert "the audit FAILED" in table.stdout
    assert table.exit_code == 1


def test_complete_lines_that_nobody_published_are_missing(
    settings: Settings, log: tuple[Path, Truth]
) -> None:
    path, _ = log
    validate(settings, path)
    with path.open("ab") as stream:
        lines = [line.data for line in generate(9, seed=8) if line.number]
        stream.write(b"".join(lines[:8]) + b"# a comment\n" + lines[8][:20])
    total = audit(settings, str(path)).statement.total
    assert (total.records, total.published, total.missing) == (1208, 1200, 8)
    path.write_bytes(b"another file by now\n")
    assert audit(settings, str(path)).passed


def test_a_re_export_that_differs_in_the_middle_is_another_file(
    settings: Settings, log: tuple[Path, Truth]
) -> None:
    """What it holds more is to be accounted for under its own identity, once somebody tails it."""
    path, _ = log
    validate(settings, path)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + b"#" + data[middle + 1 :] + data[-middle:])
    assert audit(settings, str(path)).passed


def test_a_file_that_was_never_tailed_is_a_problem(settings: Settings) -> None:
    with pytest.raises(Problem, match="no such file was tailed"):
        audit(settings, "/nowhere.csv")


@pytest.fixture
def ledger() -> Iterator[str]:
    class Ledger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/sandbox/ledger" else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"records": 9, "duplicates_booked": 7}')

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Ledger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/sandbox/ledger"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_avstar_booked_twice_counts_as_duplicate(settings: Settings, ledger: str) -> None:
    with_ledger = load({"kafka": settings.kafka.model_dump(), "avstar": {"ledger_url": ledger}})
    assert audit(with_ledger).statement.total.duplicates == audit(settings).statement.total.duplicates + 7
    broken = load({"kafka": settings.kafka.model_dump(), "avstar": {"ledger_url": ledger + "/nothing"}})
    with pytest.raises(Unreachable, match="the ledger cannot be read: 404"):
        audit(broken)


def test_the_letters_are_listed_filtered_and_shown(settings: Settings, log: tuple[Path, Truth]) -> None:
    path, truth = log
    validate(settings, path)
    result = command(settings, "dlq", "list", "--json", "--file", str(path), "--reason", "invalid")
    letters = [json.loads(line) for line in result.stdout.splitlines()]
    assert [letter["number"] for letter in letters] == [
        line.number for line in generate(1200, seed=3, bad_rate=0.1) if line.fault
    ]
    assert len(letters) == truth.bad
    spots = command(settings, "dlq", "list", "--json", "--file", str(path), "--kind", "spot").stdout
    assert {json.loads(line)["record_type"] for line in spots.splitlines()} == {"spot"}
    assert command(settings, "dlq", "list", "--json", "--reason", "nothing").stdout == ""
    assert f"{path}:{letters[0]['number']}" in command(settings, "dlq", "list", "--file", str(path)).stdout

    wrong = next(letter for letter in letters if letter["what"].startswith("duration_s: "))
    shown = command(settings, "dlq", "show", wrong["key"][:20]).stdout
    original = next(line for line in generate(1200, seed=3, bad_rate=0.1) if line.number == wrong["number"])
    assert wrong["key"] in shown
    assert str(path) in shown
    assert original.data.decode().splitlines()[0] in shown
    (marked,) = (line for line in shown.splitlines() if "✗" in line)
    assert "duration_s" in marked
    assert "must be whole seconds" in marked
    as_json = command(settings, "dlq", "show", wrong["key"], "--json").stdout
    assert DeadLetter.model_validate_json(as_json).original == original.data


def test_a_letter_that_is_not_there_or_not_meant_clearly_is_a_problem(
    settings: Settings, log: tuple[Path, Truth]
) -> None:
    validate(settings, log[0])
    with pytest.raises(Problem, match="no such dead letter"):
        raise command(settings, "dlq", "show", "feedfeedfeed").exception or AssertionError
    listed = command(settings, "dlq", "list", "--json").stdout.splitlines()
    ((first, times),) = Counter(json.loads(line)["key"][0] for line in listed).most_common(1)
    assert times > 1
    with pytest.raises(Problem, match="dead letters begin so"):
        raise command(settings, "dlq", "show", first).exception or AssertionError
    with pytest.raises(Problem, match="the KEY is empty"):
        raise command(settings, "dlq", "show", "").exception or AssertionError


def test_what_strangers_wrote_is_passed_over(settings: Settings, log: tuple[Path, Truth]) -> None:
    path, _ = log
    validate(settings, path)
    producer = Producer(settings.kafka.confluent())
    for topic in (FILES, RAW, BATCHES, RECEIPTS, DLQ):
        producer.produce(topic.name, b"[1]", b"strange", partition=0)
    producer.flush(15)
    with capture_logs() as warnings:
        assert audit(settings, str(path)).passed
    places = {str(warning["at"]).split()[0] for warning in warnings if "at" in warning}
    assert places == {FILES.name, BATCHES.name, RECEIPTS.name, DLQ.name}
    whole = audit(settings)
    assert [
        (tally.path, tally.missing) for tally in whole.statement.files if not tally.path.startswith("/")
    ] == [("(no file)", 1)]
    listed = command(settings, "dlq", "list", "--json", "--reason", "unreadable").stdout.splitlines()
    assert [json.loads(line)["key"] for line in listed] == ["strange"]
    with pytest.raises(Problem, match="strange: not a dead letter of spotstream's"):
        raise command(settings, "dlq", "show", "strange").exception or AssertionError
    assert command(settings, "dlq", "show", "strange", "--json").stdout == "[1]\n"
