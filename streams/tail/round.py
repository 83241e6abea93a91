"""A round: what one transaction publishes. Records, descriptors, dead letters, checkpoints: all or none."""

from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from confluent_kafka import Producer

from schemas.hashes import rejection_key
from schemas.letter import DeadLetter, Place, Reason, now
from schemas.rawkeys import pack
from streams.formats.framing import HEAD, Framed, Oversized
from streams.tail.checkpoint import Checkpoint, State, message, withdrawal
from streams.tail.source import Source
from topics.block import Block, send_blocks
from topics.catalogue import CHECKPOINTS, DLQ, FILES, RAW
from topics.transaction import send_all

Message = dict[str, bytes]


class Letter(NamedTuple):
    """A record that is too large, and whose it is."""

    path: str
    descriptor: bytes
    partition: int
    line: Oversized


class Round:
    """Gather with :meth:`add`, then :meth:`produce` in a transaction, and again when that is repeated."""

    def __init__(self) -> None:
        self.records = 0
        self.size = 0  #: bytes of the records
        self.checkpoints: dict[str, Checkpoint] = {}
        self.withdrawn: list[str] = []  #: identities whose checkpoints are taken back
        self._raw: list[tuple[int, Block]] = []
        self._files: list[Message] = []
        self._letters: list[Letter] = []

    def add(self, source: Source, framed: Framed) -> None:
        """Take what a source has just read, and where it stands now."""
        # A file is described with its first record.
        if not source.described and (framed.count or framed.oversized):
            self._files.append({"key": source.descriptor_id, "value": source.descriptor.dump()})
            source.described = True
        if framed.count:
            keys = pack(source.descriptor_id, framed.offsets, framed.numbers, framed.skipped)
            self._raw.append((source.partition, Block.of(keys, framed.data, framed.starts, framed.sizes)))
        self._letters += [
            Letter(source.file.path, source.descriptor_id, source.partition, line)
            for line in framed.oversized
        ]
        self.checkpoints[source.identity] = source.checkpoint()
        self.records += framed.count + len(framed.oversized)
        self.size += framed.size

    @property
    def oversized(self) -> int:
        """Records that are too large."""
        return len(self._letters)

    def is_in(self, state: State) -> bool:
        """Whether it has been committed, when nobody else writes these checkpoints."""
        moved = all(state.files.get(identity) == moved for identity, moved in self.checkpoints.items())
        return moved and not any(identity in state.files for identity in self.withdrawn)

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.withdrawn)

    def produce(self, producer: Producer) -> None:
        """Queue all of it; raises ``KafkaException``."""
        send_all(producer, FILES.name, self._files)
        for partition, blocks in groupby(self._raw, itemgetter(0)):
            send_blocks(producer, RAW.name, [block for _, block in blocks], partition)
        for letter in self._letters:
            post(producer, letter)
        send_all(producer, CHECKPOINTS.name, [message(moved) for moved in self.checkpoints.values()])
        for identity in self.withdrawn:
            producer.produce(CHECKPOINTS.name, **withdrawal(identity))


def post(producer: Producer, letter: Letter) -> None:
    """Queue the dead letter; raises ``KafkaException``."""
    line = letter.line
    rule = f"a record has no more than tail.max_record_bytes; of this one the first {HEAD} are kept"
    at = now()
    dead = DeadLetter(
        kind="record",
        stage="tail",
        reason="too_large",
        reasons=[Reason(field="", value=f"{line.length} bytes", rule=rule)],
        original=line.head,
        place=Place(
            descriptor=letter.descriptor.hex(),
            path=letter.path,
            offset=line.offset,
            number=line.number,
            partition=letter.partition,
            raw_offset=-1,
        ),
        first_failure=at,
        last_failure=at,
    )
    key = rejection_key(letter.descriptor, line.offset, line.head)
    producer.produce(DLQ.name, key=key, value=dead.dump(), headers=dead.connect_headers(RAW.name))
