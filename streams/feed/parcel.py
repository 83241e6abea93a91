"""A parcel: what one transaction publishes of a feed, its records and the position that comes after them."""

from collections.abc import Sequence
from hashlib import sha256

from confluent_kafka import Producer

from schemas.descriptor import Descriptor
from schemas.letter import now
from schemas.rawkey import pack
from streams.formats.framing import HEAD, Oversized
from streams.settings import TailSettings
from streams.tail.checkpoint import Checkpoint, State, Stretch, message
from streams.tail.round import Letter, Message, post
from topics.catalogue import CHECKPOINTS, FILES, RAW
from topics.transaction import send_all

#: What no file can prove to have.
_NOTHING = Stretch(length=0, sha256="")


class Bookmark(Checkpoint):
    """A feed's checkpoint, among those of files: bytes and records are counted as if they were one file's.

    ``given`` is the program's own position, as JSON; empty before the first. ``digest`` covers every record
    and every position that was ever committed.
    """

    given: str = ""

    @classmethod
    def first(cls, descriptor: Descriptor, partitions: int) -> "Bookmark":
        """Of a feed that has published nothing yet."""
        name = descriptor.identity
        return cls(
            identity=name,
            path=descriptor.path,
            device=0,
            inode=0,
            descriptor="",
            partition=int.from_bytes(sha256(name.encode()).digest()[:8]) % partitions,
            position=0,
            records=0,
            skipped=0,
            pending=0,
            head=_NOTHING,
            recent=_NOTHING,
            owner=name,
            at=now(),
        )


class Parcel:
    """Gather with :meth:`add`; :meth:`produce` in a transaction, and again when that is repeated."""

    def __init__(
        self, after: Bookmark, descriptor: Descriptor, settings: TailSettings, partitions: int
    ) -> None:
        self._after, self._descriptor, self._settings, self._partitions = (
            after,
            descriptor,
            settings,
            partitions,
        )
        self._descriptor_id = descriptor.id
        self._position, self._pending = after.position, after.pending
        self._given = after.given
        self._digest = sha256(after.digest.encode())
        self._raw: list[Message] = []
        self._letters: list[Letter] = []
        self.size = 0  #: bytes of the records
        self.records = 0

    def add(self, records: Sequence[bytes], given: str) -> None:
        """Take the next records, and the position (JSON) that comes after them."""
        for record in records:
            self.records += 1
            number = self._after.records + self.records
            if len(record) > self._settings.max_record_bytes:
                self._set_aside(record, number)
            else:
                key = pack(self._descriptor_id, self._position, number, self._pending)
                self._raw.append({"key": key, "value": record})
                self._pending = 0
            self._position += len(record)
            self._digest.update(record)
        self._given = given
        self._digest.update(given.encode())
        self.size = self._position - self._after.position

    def _set_aside(self, record: bytes, number: int) -> None:
        line = Oversized(self._position, number, len(record), record[:HEAD])
        self._letters.append(Letter(self._descriptor.path, self._descriptor_id, self._after.partition, line))
        self._pending += len(record)

    def __bool__(self) -> bool:
        return bool(self.records) or self._given != self._after.given

    def bookmark(self) -> Bookmark:
        """Where the feed stands after it."""
        update = {
            "descriptor": self._descriptor_id.hex() if self.records else self._after.descriptor,
            "position": self._position,
            "records": self._after.records + self.records,
            "oversized": self._after.oversized + len(self._letters),
            "skipped": self._after.skipped + sum(letter.line.length for letter in self._letters),
            "pending": self._pending,
            "size": self._position,
            "digest": self._digest.hexdigest(),
            "given": self._given,
            "at": now(),
        }
        return self._after.model_copy(update=update)

    def following(self) -> "Parcel":
        """The empty one after it."""
        after = self.bookmark()
        if self._settings.partitioning == "block":
            after = after.model_copy(update={"partition": (after.partition + 1) % self._partitions})
        return Parcel(after, self._descriptor, self._settings, self._partitions)

    def is_in(self, state: State) -> bool:
        """Whether it has been committed, when nobody else writes this checkpoint."""
        known = state.files.get(self._after.identity)
        return known is not None and known.digest == self._digest.hexdigest()

    def produce(self, producer: Producer) -> None:
        """Queue all of it; raises ``KafkaException``."""
        if self.records and self._after.descriptor != self._descriptor_id.hex():
            send_all(producer, FILES.name, [{"key": self._descriptor_id, "value": self._descriptor.dump()}])
        send_all(producer, RAW.name, self._raw, self._after.partition)
        for letter in self._letters:
            post(producer, letter)
        send_all(producer, CHECKPOINTS.name, [message(self.bookmark())])
