"""Random lives of files on a real broker: what is committed is what could be read, in order, each byte once.

``ROTATION_SEED=N`` replays one sequence. ``ROTATION_SEQUENCES=N`` runs as many, from ``ROTATION_FIRST`` on.
"""

import os
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from crowd import Crowd, Diary
from rotations import Oracle, World

from schemas.descriptor import Descriptor
from schemas.rawkey import RawKey
from streams.lab.kafka import Broker
from topics.catalogue import FILES, RAW
from topics.connection import KafkaSettings
from topics.provision import apply
from topics.reader import read_all

pytestmark = pytest.mark.broker

_ACTIONS = 16
_AT_ONCE = 8

#: Sequences in every test run and on one broker: a tailer that starts reads the checkpoints of all of them.
_TOGETHER = 100


def judge(kafka: KafkaSettings, worlds: list[World]) -> dict[int, list[str]]:
    """What is wrong, by the seeds."""
    files = {m.key(): Descriptor.load(m.value()) for m in read_all(kafka, FILES.name)}
    records: dict[str, dict[str, list[tuple[RawKey, bytes]]]] = defaultdict(lambda: defaultdict(list))
    for message in read_all(kafka, RAW.name):
        key = RawKey.unpack(message.key())
        file = files[key.descriptor]
        records[str(Path(file.path).parent)][file.identity].append((key, message.value()))
    return {world.seed: Oracle(world, records[str(world.folder)]).faults() for world in worlds}


def told(diary: Diary, seed: int, faults: list[str]) -> str:
    """All that helps to find the cause."""
    return "\n".join((f"ROTATION_SEED={seed}", *faults, "what happened:", *diary.of(seed), ""))


def run(folder: Path, seeds: Iterable[int]) -> None:
    diary = Diary()
    with diary.kept(), Broker(folder / "kafka") as broker:
        apply(KafkaSettings(bootstrap_servers=broker.bootstrap))
        crowd = Crowd(broker, folder)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            lives = {seed: pool.submit(crowd.live, seed, _ACTIONS) for seed in seeds}
        faults = judge(crowd.kafka, [life.result() for life in lives.values() if not life.exception()])
    faults |= {seed: [_traceback(life)] for seed, life in lives.items() if life.exception()}
    wrong = [told(diary, seed, found) for seed, found in faults.items() if found]
    if wrong:
        pytest.fail("\n".join((*wrong, "in threads of no world:", *diary.of(None))), pytrace=False)


def _traceback(life: "Future[World]") -> str:
    return "".join(traceback.format_exception(life.exception()))


@pytest.mark.timeout(480)
def test_what_is_committed_is_what_could_be_read(tmp_path: Path) -> None:
    given = os.environ.get("ROTATION_SEED")
    run(tmp_path, [int(given)] if given else range(_TOGETHER))


def hundreds() -> Iterator[range]:
    first = int(os.environ.get("ROTATION_FIRST", "0"))
    end = first + int(os.environ.get("ROTATION_SEQUENCES", "2000"))
    for begin in range(first, end, _TOGETHER):
        yield range(begin, min(begin + _TOGETHER, end))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", list(hundreds()), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_two_thousand_sequences(tmp_path: Path, seeds: range) -> None:
    run(tmp_path, seeds)
