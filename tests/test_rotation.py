"""Random lives of files on a real broker: what is committed is what could be read, in order, each byte once.

``ROTATION_SEED=N`` replays one sequence, ``ROTATION_SEQUENCES=N`` runs as many in the soak test.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
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

#: Sequences on one broker: a tailer that starts reads the checkpoints of all of them.
_QUICKLY = 25  #: sequences in every test run; the soak test has the others
_TOGETHER = 100

_restarting = threading.Lock()


def live(kafka: Broker, folder: Path, seed: int) -> World:
    def restart() -> None:
        with _restarting:
            kafka.kill()
            kafka.start()

    folder.mkdir()
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, timeout_s=30)
    world = World(settings, folder, seed, restart)
    world.start()
    for _ in range(_ACTIONS):
        world.step()
    world.finish()
    return world


def judge(kafka: Broker, worlds: list[World]) -> list[str]:
    """What is wrong, with the seeds."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, timeout_s=30)
    files = {m.key(): Descriptor.load(m.value()) for m in read_all(settings, FILES.name, stable_s=120)}
    records: dict[str, dict[str, list[tuple[RawKey, bytes]]]] = defaultdict(lambda: defaultdict(list))
    for message in read_all(settings, RAW.name, stable_s=120):
        key = RawKey.unpack(message.key())
        file = files[key.descriptor]
        records[str(Path(file.path).parent)][file.identity].append((key, message.value()))
    found = []
    for world in worlds:
        faults = Oracle(world, records[str(world.folder)]).faults()
        found += [f"ROTATION_SEED={world.seed}: {fault}; {' '.join(world.done)}" for fault in faults]
    return found


def run(folder: Path, seeds: Iterable[int]) -> None:
    with Broker(folder / "kafka") as kafka:
        apply(KafkaSettings(bootstrap_servers=kafka.bootstrap))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            worlds = [(seed, pool.submit(live, kafka, folder / f"{seed}", seed)) for seed in seeds]
        broken = [f"ROTATION_SEED={seed}: {w.exception()!r}" for seed, w in worlds if w.exception()]
        faults = broken + judge(kafka, [world.result() for _, world in worlds if not world.exception()])
    assert not faults, "\n".join(faults)


@pytest.mark.timeout(300)
def test_what_is_committed_is_what_could_be_read(tmp_path: Path) -> None:
    given = os.environ.get("ROTATION_SEED")
    run(tmp_path, [int(given)] if given else range(_QUICKLY))


def hundreds() -> Iterator[range]:
    end = int(os.environ.get("ROTATION_SEQUENCES", "2000"))
    for begin in range(0, end, _TOGETHER):
        yield range(begin, min(begin + _TOGETHER, end))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", list(hundreds()), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_two_thousand_sequences(tmp_path: Path, seeds: range) -> None:
    run(tmp_path, seeds)
