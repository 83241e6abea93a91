"""Validate, dispatch, redrive and replay: killed at each step of their transactions, then run again.

Whatever they were doing, each record is booked once and stands once on every topic that it belongs to.
"""

import random
import signal
from collections import Counter

import pytest
from flow import Flow, Log, Process, until
from mortal import STEPS

from schemas.batch import source_of
from streams.dispatch.message import REDRIVE_OF, REPLAY
from topics.catalogue import RAW

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

HASTE = {"BATCH__SECONDS": 0.2, "BATCH__RECORDS": 2000, "WORKER__SESSION_TIMEOUT_S": 6}
SPREAD = {"TAIL__PARTITIONING": "block", "TAIL__BLOCK_BYTES": 32_768}

#: 0: the first transaction that works on records; the others: in any of the first few, ten times.
SEEDS = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 11))]
)


def has_died(process: Process) -> None:
    """It has killed itself; whatever else ends it is no step."""
    assert process.popen.wait(180) == -signal.SIGKILL, process.said


def die(flow: Flow, step: str, transaction: int, *arguments: object) -> None:
    """Run a command that does."""
    has_died(flow.start(*arguments, dying=(step, transaction), **HASTE))


def run(flow: Flow, *arguments: object) -> str:
    """Run a command that does not; what it said."""
    status, said = flow.run(*arguments)
    assert status == 0, said
    return said


def rejecting(hashes: set[str]) -> dict[str, object]:
    """Avstar takes all but these."""
    return {"kind": "reject", "hashes": sorted(hashes), "code": "no_contract"}


def once(found: Counter[str], *logs: Log) -> bool:
    """Whether each record that the oracle accepts is there as often as in the logs; others may be, too."""
    accepted = sum((log.accepted for log in logs), Counter())
    return {one: found[one] for one in accepted} == accepted


def each_stands_once(flow: Flow, *logs: Log) -> None:
    """Accepted records on the validated topics, raw records in batches, batches among receipts."""
    assert once(flow.validated(), *logs)
    fresh = [
        (key, source_of(headers))
        for key, headers in flow.batches()
        if REDRIVE_OF not in headers and REPLAY not in headers
    ]
    offsets = Counter((source.partition, at) for _, source in fresh for at in source.expand())
    assert set(offsets.values()) == {1}
    settled = Counter(
        (key, receipt.source)
        for key, receipt in flow.receipts()
        if not receipt.replay and receipt.status in ("delivered", "dead_lettered")
    )
    assert settled == Counter(fresh)


def each_bad_record_is_a_letter(flow: Flow, log: Log) -> None:
    """One, with its number."""
    numbers = [letter.place.number for _, letter, _ in flow.letters(log) if letter.stage == "validate"]
    assert sorted(numbers) == [verdict.number for verdict in log.verdicts if not verdict.placement_hash]


@SEEDS
def test_both_roles_killed_at_each_step(flow: Flow, seed: int) -> None:
    """At the same time, on a log each, so that dispatch has batches whatever becomes of validate."""
    chance = random.Random(seed) if seed else None
    backlog, log = flow.log(40_000 if chance else 4000, seed=1), flow.log(30_000 if chance else 6000, seed=2)
    guilty = set(list(backlog.accepted)[::150])
    flow.faults(rejecting(guilty))
    validate = flow.start("worker", "--role", "validate", **HASTE)
    flow.tail(backlog, **SPREAD)
    until(lambda: not flow.behind("spotstream-validate", RAW.name))
    assert validate.end(signal.SIGTERM) == 0
    flow.tail(log)
    for turn, steps in enumerate(zip(STEPS["validate"], STEPS["dispatch"], strict=True)):
        # The first transaction of a partition's first owner only leaves a note.
        numbers = (chance.randint(1, 2), chance.randint(1, 2)) if chance else (1 if turn else 2, 1)
        dying = [
            flow.start(
                "worker", "--role", role, dying=death, **HASTE, DISPATCH__PER_PARTITION=1 if chance else 4
            )
            for role, death in zip(("validate", "dispatch"), zip(steps, numbers, strict=True), strict=True)
        ]
        for process in dying:
            has_died(process)
    flow.start("worker", **HASTE)
    flow.settle()
    assert flow.booked() == backlog.accepted + log.accepted - Counter(guilty)
    delivered, rejected = backlog.accepted.total() - len(guilty), backlog.truth.bad + len(guilty)
    flow.check(backlog, delivered=delivered, rejected=rejected)
    flow.check(log)
    each_stands_once(flow, backlog, log)
    each_bad_record_is_a_letter(flow, backlog)
    each_bad_record_is_a_letter(flow, log)
    letters = [letter.placement_hash for _, letter, _ in flow.letters() if letter.placement_hash in guilty]
    assert sorted(letters) == sorted(guilty)


def with_letters(flow: Flow, records: int) -> Log:
    """A log of which some batches were given up and some records rejected; Avstar is well again."""
    log = flow.log(records, seed=3)
    hashes = list(log.accepted)
    flow.faults(
        {"kind": "status", "status": 500, "hashes": hashes[:: len(hashes) // 3]},
        rejecting(set(hashes[1::40])),
    )
    worker = flow.start("worker", **HASTE, DISPATCH__GIVE_UP_AFTER_ATTEMPTS=1, BREAKER__MINIMUM_CALLS=100_000)
    flow.tail(log, **SPREAD)
    flow.settle()
    assert worker.end(signal.SIGTERM) == 0
    flow.faults()
    return log


@SEEDS
def test_redrive_killed_at_each_step(flow: Flow, seed: int) -> None:
    """In the transaction of batches' letters, later of records', too; and in that of one that was mended."""
    chance = random.Random(seed) if seed else None
    log = with_letters(flow, 4000)
    letters = {letter["key"]: letter for letter in flow.listed("--file", str(log.path))}
    ours = [key for key, letter in letters.items() if letter["stage"] == "dispatch"]
    assert {letters[key]["kind"] for key in ours} == {"batch", "record"}
    for step in STEPS["redrive"] * (2 if chance else 1):
        die(flow, step, chance.randint(1, 2) if chance else 1, "dlq", "redrive", "--all")
    mended, fresh = next(key for key in letters if key not in ours), flow.log(1, seed=4, bad_rate=0)
    (flow.folder / "row").write_bytes(fresh.records[0])
    edit = ("dlq", "redrive", mended, "--edit", flow.folder / "row")
    die(flow, "validated produced", 1, *edit)
    run(flow, *edit)
    run(flow, "dlq", "redrive", "--all")
    sent = [key for _, headers in flow.batches() for key in headers.get(REDRIVE_OF, b"").decode().split(",")]
    assert sorted(key for key in sent if key in letters) == sorted([mended, *ours])
    flow.start("worker", **HASTE)
    flow.settle()
    assert once(flow.booked(), log, fresh)
    flow.check(log, delivered=log.accepted.total() + 1, rejected=log.truth.bad - 1)
    left = {letter["key"] for letter in flow.listed("--file", str(log.path))}
    assert left == letters.keys() - {mended, *ours}
    each_stands_once(flow, log, fresh)


@SEEDS
def test_replay_killed_at_each_step(flow: Flow, seed: int) -> None:
    """In the transaction that hands the batches over, then in the one that says that the replay has ended."""
    log = flow.log(3000, seed=5)
    flow.start("worker", **HASTE)
    flow.tail(log, **SPREAD)
    flow.settle()
    assert flow.booked() == log.accepted
    batches = {receipt.batch_id for _, receipt in flow.receipts() if receipt.status == "delivered"}
    command = ("replay", "--since", "5h", "--file", log.path)
    for step in (*STEPS["replay"], "before commit"):
        die(flow, step, 1, *command)
    assert "going on with the replay that was interrupted" in run(flow, *command)
    replayed = Counter(receipt.batch_id for _, receipt in flow.receipts() if receipt.replay)
    assert set(replayed.values()) == {1}
    assert replayed.keys() <= batches
    assert sum(receipt.records for _, receipt in flow.receipts() if receipt.replay) == log.accepted.total()
    assert flow.booked() == log.accepted
    flow.check(log)
    each_stands_once(flow, log)
