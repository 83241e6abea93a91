"""A message of ``avstar.batches``: what dispatch sends, and where it came from."""

from collections.abc import Mapping
from typing import NamedTuple

from schemas import hashes
from schemas.batch import Batch, Source, source_of
from schemas.rawkey import RawKey

#: Headers that redrive and replay add to a batch's own: keys of dead letters, a replay's id, indices; each
#: list with commas.
REDRIVE_OF, REPLAY, REJECTED_BEFORE = "redrive-of", "replay", "rejected-before"


class Message(NamedTuple):
    """A message of ``avstar.batches``, read back: the request, its records' source, all its headers."""

    batch: Batch
    source: Source
    headers: dict[str, str]

    @property
    def replay(self) -> str:
        """The replay that sent it; empty for none."""
        return self.headers.get(REPLAY, "")

    @property
    def redrives(self) -> list[str]:
        """Keys of the dead letters that wait for this delivery. A replay repeats it, but ends no letters."""
        return [] if self.replay else [key for key in self.headers.get(REDRIVE_OF, "").split(",") if key]

    @property
    def from_letters(self) -> bool:
        """Whether it was made of single records' letters, one for each index, and not of a batch's."""
        return not self.headers.get(REDRIVE_OF, self.batch.key).startswith(self.batch.key)

    @property
    def rejected_before(self) -> list[int]:
        """Of a replay: the records that earlier deliveries rejected, by index."""
        return [int(index) for index in self.headers.get(REJECTED_BEFORE, "").split(",") if index]

    @classmethod
    def read(cls, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> "Message":
        """Raises ``ValueError`` when it is not one of ours."""
        try:
            batch = Batch(
                (key or b"").decode(),
                headers["batch-id"].decode(),
                value or b"",
                int(headers["records"]),
                headers["content-type"].decode(),
                headers["content-encoding"].decode(),
            )
            texts = {name: text.decode() for name, text in headers.items()}
            message = cls(batch, source_of(dict(headers)), texts)
        except KeyError as missing:
            raise ValueError(f"no header {missing}") from None
        if message.from_letters and message.redrives and len(message.redrives) != batch.records:
            raise ValueError(f"{REDRIVE_OF} does not name a letter for each record")
        if not all(0 <= index < batch.records for index in message.rejected_before):
            raise ValueError(f"{REJECTED_BEFORE} names records that are not there")
        return message


class RawOriginal(NamedTuple):
    """A raw record as it stands on ``avion.raw``: its key, empty when it is not there any more; its bytes."""

    key: bytes
    value: bytes

    @property
    def place(self) -> RawKey:
        """Where it stood; nowhere without a key."""
        return RawKey.unpack(self.key) if self.key else RawKey(b"", 0, 0, 0)

    @property
    def letter_key(self) -> str:
        """The key of its dead letter."""
        return hashes.rejection_key(self.place.descriptor, self.place.offset, self.value)
