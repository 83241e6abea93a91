"""The tailer killed by SIGKILL at each step of its transaction, then run again: each line once, in order."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mortal import STEPS
from tailing import HEADER, Tail, lines, whole

from topics.catalogue import RAW
from topics.reader import read_all

pytestmark = pytest.mark.broker

_MORTAL = Path(__file__).with_name("mortal.py")

#: So that a transaction holds some 200 lines.
_SETTINGS = {"TAIL__BLOCK_BYTES": "4096", "TAIL__TRANSACTION_TIMEOUT_S": "30"}


def killed(tail: Tail, path: Path, step: str, transaction: int, *arguments: str | Path) -> None:
    """Run until it has killed itself."""
    given = {"KAFKA__BOOTSTRAP_SERVERS": tail.kafka.bootstrap_servers, "TAIL__NAME": tail.name} | _SETTINGS
    done = subprocess.run(
        [
            sys.executable,
            str(_MORTAL),
            step,
            str(transaction),
            "tail",
            "--once",
            str(path),
            *map(str, arguments),
        ],
        env=os.environ | {f"SPOTSTREAM_{name}": value for name, value in given.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def survives(tail: Tail, step: str, transactions: list[int]) -> None:
    """Killed in these transactions, one after the other; what follows publishes all of it."""
    path = tail.folder / "log.csv"
    written = lines(0, 600 * (4 + sum(transactions)))  # a transaction takes up to eight blocks
    path.write_bytes(HEADER + b"".join(written))
    for transaction in transactions:
        killed(tail, path, step, transaction)
    status, said = tail.once(path, **_SETTINGS)
    assert status == 0, said
    records = tail.published(path)
    (descriptor,) = {key.descriptor for key, _ in records}
    raw = [m.value() for m in read_all(tail.kafka, RAW.name) if m.key()[:16] == descriptor]
    assert raw == written
    assert whole(records, size=path.stat().st_size)


@pytest.mark.parametrize("step", STEPS["tail"])
def test_killed_at_a_step_each_line_arrives_once(tail: Tail, step: str) -> None:
    """In transactions that publish: the first two claim the name and the file. Three in a row, so that one is
    the checkpoint's should it ever have its own.
    """
    survives(tail, step, [3, 4, 5])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", STEPS["tail"])
def test_killed_twenty_times_at_a_step_each_line_arrives_once(tail: Tail, step: str) -> None:
    """In any transaction, those of the claims included."""
    chance = random.Random(step)
    survives(tail, step, [chance.randint(1, 5) for _ in range(20)])
