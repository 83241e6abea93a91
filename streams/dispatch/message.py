"""A message of ``avstar.batches``: what dispatch sends, and where it came from."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from schemas import hashes
from schemas.batch import Batch, Source, content_types, source_of
from schemas.rawkey import RawKey

#: Headers that redrive and replay add to a batch's own: keys of dead letters, a replay's id, indices; each
#: list with commas.
REDRIVE_OF, REPLAY, REJECTED_BEFORE = "redrive-of", "replay", "rejected-before"

_KEY = re.compile(rb"[0-9a-f]{64}")

#: Of all headers: a redrive of 10,000 letters has a quarter of it. A dead letter takes them along, escaped.
_MOST_HEADERS = 3_145_728

#: Of milliseconds since 1970, until the year 30,000.
_DIGITS = 15


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

    @property
    def appended_ms(self) -> int | None:
        """When the oldest of its raw records was appended, as Kafka's time stamps count."""
        text = self.headers.get("appended-ms", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None

    @classmethod
    def read(cls, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes | None]) -> "Message":
        """Raises ``ValueError`` when it is not one of ours."""
        if not _KEY.fullmatch(key or b""):
            raise ValueError("its key is no idempotency key")
        given = {name: text for name, text in headers.items() if text is not None}
        if sum(len(name) + len(text) for name, text in given.items()) > _MOST_HEADERS:
            raise ValueError(f"its headers have more than {_MOST_HEADERS} bytes")
        texts = {name: text.decode() for name, text in given.items()}
        try:
            batch = Batch(
                (key or b"").decode(),
                texts["batch-id"],
                value or b"",
                int(texts["records"]),
                texts["content-type"],
                texts["content-encoding"],
            )
            message = cls(batch, source_of(given), texts)
        except KeyError as missing:
            raise ValueError(f"no header {missing}") from None
        message._check()
        return message

    def _check(self) -> None:
        """What would fail only after it was sent, or keep it from ever being sent."""
        records = self.batch.records
        if self.batch.batch_id != self.batch.key[: len(self.batch.key) // 2]:
            raise ValueError("its batch id is not its key's")
        # Another one Avstar answers with 415, for ever: that says nothing about the records.
        if self.batch.content_type not in content_types(self.batch.batch_id):
            raise ValueError("its content type is none of a batch's")
        if self.batch.content_encoding != "gzip":
            raise ValueError("its content encoding is none of a batch's")
        self.source.check(records)
        if self.from_letters and self.redrives and len(self.redrives) != records:
            raise ValueError(f"{REDRIVE_OF} does not name a letter for each record")
        if not all(0 <= index < records for index in self.rejected_before):
            raise ValueError(f"{REJECTED_BEFORE} names records that are not there")


class RawOriginal(NamedTuple):
    """A raw record as it stands on ``avion.raw``: its key, empty when it is not there any more; its bytes."""

    key: bytes
    value: bytes

    @property
    def place(self) -> RawKey:
        """Where it stood; nowhere without a key of ours."""
        try:
            return RawKey.unpack(self.key)
        except ValueError:
            return RawKey(b"", 0, 0, 0)

    @property
    def letter_key(self) -> str:
        """The key of its dead letter."""
        return hashes.rejection_key(self.place.descriptor, self.place.offset, self.value)
