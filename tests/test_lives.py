"""The random lives of files of test_rotation.py, many more of them: transactions are an entry in memory here.

``ROTATION_SEQUENCES=N`` runs as many, from ``ROTATION_FIRST`` on; a life is a seventh of a second.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from ctypes import string_at
from itertools import chain
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from crowd import Diary
from rotations import Oracle, World
from tailing import Memory

from schemas.descriptor import Descriptor
from schemas.rawkey import RawKey
from streams.settings import Settings
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.publisher import _taken_over
from streams.tail.round import Round
from topics.block import _LAYOUT
from topics.connection import KafkaSettings
from topics.transaction import AbandonedError

_ACTIONS = 16
_FIELDS = _LAYOUT.names

#: Lives in which something was once published twice, or told wrongly.
_KNOWN = (1020, 2227, 2328, 2437, 2555, 4872, 5204, 5274, 6324, 6807, 10129, 12238)


class Topics(Memory):
    """What the tailers of a world have committed, and which process has each name."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, str] = {}
        self.descriptors: dict[bytes, Descriptor] = {}
        self.raw: list[tuple[RawKey, bytes]] = []
        self.lock = threading.RLock()

    def publisher(self, settings: Settings) -> "InMemory":
        """As :class:`streams.tail.publisher.Publisher` is made."""
        return InMemory(self, settings.tail.name)

    def read(self) -> State:
        return super().read()._replace(claims=dict(self.claims))

    def published(self) -> dict[str, list[tuple[RawKey, bytes]]]:
        """By the files' identities, in order."""
        found = defaultdict(list)
        for key, value in sorted(self.raw, key=lambda record: record[0].number):
            found[self.descriptors[key.descriptor].identity].append((key, value))
        return dict(found)


class InMemory:
    """A tailer's publisher, without a broker."""

    partitions = Memory.partitions

    def __init__(self, topics: Topics, name: str) -> None:
        self._topics, self._name, self._instance = topics, name, uuid4().hex
        self._abandoned = False

    def start(self) -> None:
        self._topics.claims[self._name] = self._instance

    def check(self) -> State:
        with self._topics.lock:
            if self._abandoned:
                raise AbandonedError(self._name)
            if self._topics.claims.get(self._name) != self._instance:
                raise _taken_over(self._name)
            return self._topics.read()

    def take_over(self, owner: str, theirs: Callable[[State], Sequence[Checkpoint]]) -> None:
        with self._topics.lock:
            self._topics.claims[owner] = self._instance
            self._topics.take_over(owner, theirs)

    def publish(self, batch: Round) -> None:
        with self._topics.lock:
            self.check()
            for described in batch._files:
                self._topics.descriptors[described["key"]] = Descriptor.load(described["value"])
            for message in chain.from_iterable(block.messages.tolist() for _, block in batch._raw):
                found = dict(zip(_FIELDS, message, strict=True))
                key = string_at(found["key"], found["key_len"])
                value = string_at(found["payload"], found["len"])
                self._topics.raw.append((RawKey.unpack(key), value))
            self._topics.commit(list(batch.checkpoints.values()))
            for identity in batch.withdrawn:
                self._topics.files.pop(identity, None)

    def abandon(self) -> None:
        self._abandoned = True


def live(seed: int, folder: Path) -> list[str]:
    """What is wrong with what came of a life."""
    folder.mkdir()
    topics = Topics()
    world = World(KafkaSettings(), folder, seed, lambda _: None, topics.publisher)
    with structlog.contextvars.bound_contextvars(world=seed):
        try:
            world.start()
            for name in (world.choose() for _ in range(_ACTIONS)):
                world.step(name)
            world.finish()
        finally:
            world.drop()
    return Oracle(world, topics.published()).faults()


def run(folder: Path, seeds: Iterable[int]) -> None:
    diary = Diary()
    with diary.kept():
        found = {seed: live(seed, folder / str(seed)) for seed in seeds}
    wrong = [
        "\n".join((f"seed {seed}", *faults, *diary.of(seed))) for seed, faults in found.items() if faults
    ]
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)


def test_what_is_committed_is_what_could_be_read(tmp_path: Path) -> None:
    run(tmp_path, [*_KNOWN, *range(30)])


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_thousands_of_lives(tmp_path: Path) -> None:
    first = int(os.environ.get("ROTATION_FIRST", "0"))
    run(tmp_path, range(first, first + int(os.environ.get("ROTATION_SEQUENCES", "2000"))))
