"""What a window becomes, and what is done about records that end the process."""

import asyncio
import os
from collections import Counter
from typing import NamedTuple

import exports
import orjson
import pytest
from confluent_kafka import Producer
from flow import until
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip

from schemas import codec, rawkey
from schemas.batch import source_of
from schemas.codec import Codec
from schemas.errors import Problem, Unreachable
from schemas.hashes import idempotency_key, placement_hash
from schemas.records import KINDS, Invalid, Valid
from streams.validate import trial
from streams.validate.lane import Judges
from streams.validate.outcome import conclude
from streams.validate.panel import Seat, verdicts
from streams.validate.trial import Trial
from topics.catalogue import BATCHES, FILES
from topics.reader import read_all

CODECS = {kind: Codec(kind, 7) for kind in KINDS}
FILE = exports.descriptor()
PANEL = {FILE.id: Seat.of(FILE)}
KNOWN = {FILE.id: FILE}
GOOD = exports.line(
    {
        "record_type": "AVAIL", "station": "WABC", "broadcast_date": "11/24/2026", "avail_id": "A-1",
        "break_id": "B-1", "window_start": "12:00:00", "window_end": "12:05:00", "duration_s": "30",
        "units_total": "3", "units_sold": "1", "floor_rate": "10.00",
    }
)  # fmt: skip
BAD = GOOD.replace(b"11/24/2026", b"2026-11-24")


class Record(NamedTuple):
    """A record of the raw topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def record(value, offset=0, number=1, key=None, file=FILE):
    return Record(
        offset, 1_700_000_000_000 + offset, key or rawkey.pack(file.id, offset * 100, number, 0), value
    )


def good(number):
    return GOOD.replace(b"A-1", b"A-%d" % number)


def judged(window, partition=3, codecs=CODECS):
    return conclude(window, verdicts(window, PANEL), partition, codecs, KNOWN)


#: For each record: whether it is good, and how many offsets (transaction markers) are skipped before it.
PATTERNS = st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=40)


def window_of(pattern, start=1000):
    window, offset = [], start
    for number, (is_good, skipped) in enumerate(pattern, 1):
        offset += skipped
        window.append(record(good(number) if is_good else BAD, offset, number))
        offset += 1
    return window


@settings(max_examples=40)
@given(PATTERNS)
def test_every_raw_offset_is_in_the_batch_or_in_one_letter(pattern):
    """Exactly one of the two; the source range names what is in the batch; the position is behind all."""
    window = window_of(pattern)
    outcome = judged(window)
    accepted = [raw.offset for raw, (is_good, _) in zip(window, pattern, strict=True) if is_good]
    rejected = [raw.offset for raw, (is_good, _) in zip(window, pattern, strict=True) if not is_good]
    batched = source_of(dict(outcome.headers)).expand() if outcome.batch else []
    assert batched == accepted
    assert [letter.place.raw_offset for _, letter in outcome.letters] == rejected
    assert all(letter.place.partition == 3 for _, letter in outcome.letters)
    assert len({key for key, _ in outcome.letters}) == len(rejected)
    assert outcome.end == window[-1].offset + 1
    assert (outcome.batch is not None) == bool(accepted)
    assert sum(len(block.messages) for block in outcome.validated.values()) == len(accepted)
    if outcome.batch:
        records = orjson.loads(igzip.decompress(outcome.batch.body))["records"]
        numbers = [n for n, (is_good, _) in enumerate(pattern, 1) if is_good]
        assert [one["avail_id"] for one in records] == [f"A-{number}" for number in numbers]
        assert outcome.batch.records == len(accepted)


@settings(max_examples=20)
@given(PATTERNS.filter(lambda pattern: any(is_good for is_good, _ in pattern)), st.integers(0, 7))
def test_a_batch_is_its_records_and_nothing_else(pattern, partition):
    """The same records from another partition, file, time, spacing and company: the same request."""
    one = judged(window_of(pattern)).batch
    elsewhere = exports.descriptor(header=tuple(reversed(exports.HEADER)))
    header = elsewhere.header
    numbers = [n for n, (is_good, _) in enumerate(pattern, 1) if is_good]
    cells = dict(zip(exports.HEADER, GOOD.decode().strip().split(","), strict=True))
    others = [
        record(exports.line(cells | {"avail_id": f" a-{n} "}, header), 50 + 2 * n, n, file=elsewhere)
        for n in numbers
    ]
    panel = {elsewhere.id: Seat.of(elsewhere)}
    other = conclude(others, verdicts(others, panel), partition, CODECS, {elsewhere.id: elsewhere}).batch
    assert (other.key, other.body, other.batch_id) == (one.key, one.body, one.batch_id)
    records = orjson.loads(igzip.decompress(one.body))["records"]
    hashes = [
        placement_hash(
            orjson.dumps(
                {name: value for name, value in found.items() if name != "idempotency_key"},
                option=orjson.OPT_SORT_KEYS,
            )
        )
        for found in records
    ]
    assert [found["idempotency_key"] for found in records] == hashes
    assert one.key == idempotency_key(hashes)


def test_a_record_that_cannot_be_encoded_is_rejected_alone_with_its_traceback(monkeypatch):
    """Its neighbours are booked."""
    real = codec.bodies

    def choosy(kind, columns, placement_hashes):
        if "A-2" in columns["avail_id"].each():
            raise OverflowError("too much")
        return real(kind, columns, placement_hashes)

    monkeypatch.setattr(codec, "bodies", choosy)
    window = [record(good(number), number, number) for number in (1, 2, 3)]
    outcome = judged(window)
    ((_, letter),) = outcome.letters
    assert letter.reason == "unencodable"
    assert "OverflowError: too much" in letter.traceback
    assert letter.original == good(2)
    assert letter.record_type == "avail"
    assert source_of(dict(outcome.headers)).expand() == [1, 3]
    assert len(outcome.validated["avion.validated.avails"].messages) == 2


def test_messages_of_strangers_become_letters():
    """No key, a key of another size, no value, an unknown file: each is a letter of its own."""
    unknown = exports.descriptor(header=("Type",))
    window = [
        record(good(1), 0, 1),
        Record(1, 0, None, b"hello"),
        Record(2, 0, b"short", b"hello"),
        Record(3, 0, FILE.id + b"more than a key has" * 3, good(4)),
        Record(4, 0, rawkey.pack(FILE.id, 400, 5, 0), None),
        Record(5, 0, rawkey.pack(unknown.id, 0, 1, 0), good(6)),
        record(good(7), 6, 7),
    ]
    outcome = judged(window)
    assert source_of(dict(outcome.headers)).expand() == [0, 6]
    assert dict(outcome.headers)["files"] == FILE.id.hex().encode()
    letters = {letter.place.raw_offset: letter for _, letter in outcome.letters}
    assert set(letters) == {1, 2, 3, 4, 5}
    assert all(letter.reason == "invalid" and letter.reasons[0]["rule"] for letter in letters.values())
    assert "key" in letters[1].reasons[0]["rule"]
    assert "descriptor" in letters[5].reasons[0]["rule"]
    assert letters[3].original == good(4)


def test_equal_messages_of_strangers_at_equal_offsets_keep_a_letter_each():
    """Without a file the raw partition tells them apart; else compaction would leave one of the two."""
    stranger = [Record(5, 0, None, b"hello")]
    keys = {key for partition in (0, 1) for key, _ in judged(stranger, partition).letters}
    assert len(keys) == 2


def test_a_descriptor_that_no_judge_can_be_made_of_costs_its_records_only():
    """A file whose layout its profile does not know is no reason to end."""
    odd = exports.descriptor(header=("no", "such", "columns"))
    seat = Seat.of(odd)
    assert isinstance(seat.judge, Invalid)
    window = [record(b"a,b,c\n", 0, 1, file=odd), record(good(2), 1, 2)]
    found = verdicts(window, PANEL | {odd.id: seat})
    assert isinstance(found[0], Invalid)
    assert isinstance(found[1], Valid)


class Source:
    """Descriptors by id; reading one lets others run."""

    def __init__(self, descriptors):
        self._known = {descriptor.id: descriptor for descriptor in descriptors}

    def get(self, identity):
        return self._known.get(identity)


async def test_judges_of_a_window_stay_while_others_are_made(monkeypatch):
    """The table is bounded; what one lane is about to use, no other lane clears away."""
    monkeypatch.setattr(Judges, "_MOST", 2)
    files = [exports.descriptor(header=(*exports.HEADER, f"extra {n}")) for n in range(9)]
    asked = Counter()

    async def blocking(call, identity):
        asked[identity] += 1
        if asked.total() < 9:
            other = next(file.id for file in files if not asked[file.id])
            await judges.panel([record(b"", key=rawkey.pack(other, 0, 1, 0))])
        return call(identity)

    judges = Judges(Source(files), blocking)
    window = [record(b"", number, 1, file=file) for number, file in enumerate(files)]
    panel = await judges.panel(window)
    assert set(panel) == {file.id for file in files}


@pytest.fixture
def held():
    """A trial, which ends with the test."""
    held = Trial()
    yield held
    held.close()


async def test_a_descriptor_is_waited_for_while_the_broker_is_away(monkeypatch):
    """An outage is no reason to end: to start again takes longer than to go on."""
    monkeypatch.setattr(Judges, "_AGAIN_S", 0.01)
    silent = [Unreachable("no answer"), Unreachable("no answer")]

    async def blocking(call, identity):
        if silent:
            raise silent.pop()
        return call(identity)

    panel = await Judges(Source([FILE]), blocking).panel([record(good(1))])
    assert set(panel) == {FILE.id}


KILLER = """
import os, signal
import streams.validate.judge
judge = streams.validate.judge.Judge.judge

def murderous(self, values):
    if any(b"KILLER" in value for value in values):
        os.kill(os.getpid(), signal.SIGKILL)
    return judge(self, values)

streams.validate.judge.Judge.judge = murderous
"""


@pytest.fixture
def killer(tmp_path):
    """A folder for PYTHONPATH: records that hold KILLER end whatever process judges them."""
    folder = tmp_path / "killer"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KILLER)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


async def test_a_trial_finds_the_records_that_kill(held, killer, monkeypatch):
    """Wherever they stand; the others live."""
    monkeypatch.setenv("PYTHONPATH", killer)
    deadly = {0, 250, 499}
    window = [record(b"KILLER\n" if n in deadly else good(n), n, n + 1) for n in range(500)]
    assert await held.survivors(window, KNOWN) == [n not in deadly for n in range(500)]


async def test_a_trial_that_cannot_be_held_condemns_nobody(held, monkeypatch, tmp_path):
    """When no process lives, records are not to blame."""
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Problem, match="ended early"):
        await held.survivors([record(good(1))], KNOWN)


async def test_a_record_that_never_ends_counts_as_deadly(held, monkeypatch, tmp_path):
    """The trial's process has a time limit of the kernel's."""
    monkeypatch.setattr(trial, "_LONGEST_S", 2)
    (tmp_path / "sitecustomize.py").write_text(
        KILLER.replace("os.kill(os.getpid(), signal.SIGKILL)", "__import__('time').sleep(3600)")
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    window = [record(good(1), 0, 1), record(b"KILLER\n", 1, 2)]
    assert await held.survivors(window, KNOWN) == [True, False]


async def test_windows_share_the_process_and_none_holds_up_another(held, monkeypatch, tmp_path):
    """After a death each partition has many small windows on trial; one start of Python is dear enough."""
    monkeypatch.setattr(trial, "_LONGEST_S", 5)
    (tmp_path / "sitecustomize.py").write_text(
        KILLER.replace("os.kill(os.getpid(), signal.SIGKILL)", "__import__('time').sleep(3600)")
        + f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    hanging = asyncio.create_task(held.survivors([record(b"KILLER\n", 0, 1)], KNOWN))
    for _ in range(3):
        asked = [held.survivors([record(good(n), n, n + 1) for n in range(40)], KNOWN) for _ in range(8)]
        assert await asyncio.gather(*asked) == [[True] * 40] * 8
    assert not hanging.done()
    assert await hanging == [False]
    assert (tmp_path / "starts").read_text() == "x"


async def test_a_trial_whose_process_has_died_starts_another(held):
    window = [record(good(1))]
    assert await held.survivors(window, KNOWN) == [True]
    held._process.kill()
    held._process.wait()
    assert await held.survivors(window, KNOWN) == [True]


async def test_a_trial_ends_when_it_is_idle(held, monkeypatch):
    monkeypatch.setattr(trial, "_IDLE_S", 0.1)
    await held.survivors([record(good(1))], KNOWN)
    process = held._process
    while held._process:
        await asyncio.sleep(0.01)
    assert process.returncode is not None


@pytest.mark.broker
@pytest.mark.timeout(240)
@pytest.mark.parametrize("deadly", [700, 2100, 6500])
def test_a_record_that_kills_the_worker_is_quarantined(flow, killer, deadly):
    """In whichever window it is: after two deaths at the most it is set aside, and all else is booked."""
    log = flow.log(7000, seed=deadly, bad_rate=0)
    log.path.write_bytes(log.path.read_bytes().replace(log.records[deadly - 1], b"KILLER\r\n"))
    flow.tail(log)
    settings = {"BATCH__RECORDS": 2000, "BATCH__SECONDS": 0.2, "WORKER__SESSION_TIMEOUT_S": 6}
    worker = flow.start("worker", extra={"PYTHONPATH": killer}, **settings)
    flow.settle(180)
    assert worker.popen.poll() is None
    assert worker.said.count("ended, starting it again") <= 2
    ((_, letter, _),) = flow.letters(log)
    assert (letter.reason, letter.place.number, letter.original) == ("quarantined", deadly, b"KILLER\r\n")
    flow.check(log, delivered=6999, rejected=1)
    assert flow.booked() == log.accepted


@pytest.mark.broker
@pytest.mark.timeout(180)
def test_what_came_after_a_death_is_not_suspected_of_it(flow, killer):
    """A quiet log would be judged apart until as many records have come as two windows may hold."""
    log = flow.log(300, seed=77, bad_rate=0)
    whole = log.path.read_bytes().replace(log.records[99], b"KILLER\r\n")
    later = whole.index(log.records[199])
    log.path.write_bytes(whole[:later])
    flow.tail(log)
    worker = flow.start(
        "worker", extra={"PYTHONPATH": killer}, BATCH__SECONDS=0.2, WORKER__SESSION_TIMEOUT_S=6
    )
    flow.settle(120)
    apart = worker.said.count("judging apart")
    assert apart
    with log.path.open("ab") as appended:
        appended.write(whole[later:])
    flow.tail(log)
    flow.settle()
    assert worker.said.count("judging apart") == apart
    flow.check(log, delivered=299, rejected=1)


ONCE = """
import os
import {module}
original = {module}.{name}

def failing(*arguments):
    if not os.path.exists({flag!r}):
        open({flag!r}, "x").close()
        raise RuntimeError("fails once")
    return original(*arguments)

{module}.{name} = failing
"""


@pytest.mark.broker
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("topics.ownership", "Ownership.feed"),
        ("streams.validate.outcome", "Outcome.produce"),
        ("streams.dispatch.lane", "settle"),
    ],
    ids=["agent", "transaction", "delivery"],
)
def test_an_error_that_nobody_handles_ends_the_role_and_costs_nothing(flow, module, name):
    """The role ends by it, is started again, and reads the same records again; nothing is left half alive."""
    folder = flow.folder / "failing"
    folder.mkdir()
    flag = folder / "failed"
    (folder / "sitecustomize.py").write_text(ONCE.format(module=module, name=name, flag=str(flag)))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    log = flow.log(3000, seed=sum(map(ord, name)))
    worker = flow.start("worker", extra={"PYTHONPATH": path}, BATCH__SECONDS=0.2, WORKER__SESSION_TIMEOUT_S=6)
    flow.tail(log)
    flow.settle(90)
    assert flag.exists()
    assert "fails once" in worker.said
    assert worker.said.count("ended, starting it again") == 1
    flow.check(log)
    assert flow.booked() == log.accepted


@pytest.mark.broker
def test_a_strangers_open_transaction_does_not_hide_descriptors(flow):
    """Read committed, the topic would seem to end before a descriptor whose records can be read."""
    stranger = Producer(flow.kafka.confluent(transactional_id="stranger", transaction_timeout_ms=120_000))
    stranger.init_transactions(15)
    stranger.begin_transaction()
    stranger.produce(FILES.name, b"{}", b"stranger")
    stranger.flush(15)
    log = flow.log(2500, seed=20, bad_rate=0)
    flow.start("worker", BATCH__SECONDS=0.2, WORKER__SESSION_TIMEOUT_S=6)
    flow.tail(log)
    flow.settle()
    stranger.abort_transaction(15)
    flow.check(log)
    assert flow.booked() == log.accepted


@pytest.mark.broker
def test_a_window_closes_early_while_nothing_waits_downstream(flow):
    """Early, then after its whole time because a batch waits, then early again, once dispatch has come."""
    settings = {"BATCH__SECONDS": 5, "BATCH__EARLY_SECONDS": 0.05}
    grown, (header, *lines) = (
        flow.folder / "grown.csv",
        flow.log(60, seed=47).path.read_bytes().splitlines(True),
    )
    grown.write_bytes(header)

    def grow(first, last):
        """Append lines and publish them; gives how long the batch of them has taken, in seconds."""
        before = len(flow.batches())
        with grown.open("ab") as file:
            file.writelines(lines[first:last])
        status, said = flow.run("tail", grown, "--once")
        assert status == 0, said
        until(lambda: len(flow.batches()) > before)
        made = max(read_all(flow.kafka, BATCHES.name), key=lambda message: message.timestamp())
        return (made.timestamp()[1] - int(dict(made.headers())["appended-ms"])) / 1000

    flow.start("worker", "--role", "validate", **settings).wait_for("started")
    assert grow(0, 20) < 4
    assert grow(20, 40) > 4.9
    flow.start("worker", "--role", "dispatch").wait_for("started")
    flow.settle()
    assert grow(40, 60) < 4
