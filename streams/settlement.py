"""How a delivered batch ends: a receipt, and dead letters for what Avstar did not take. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

import orjson
from confluent_kafka import Producer

from schemas import hashes
from schemas.batch import Batch, Source, records_of, source_of
from schemas.letter import DeadLetter, Place, Reason, Receipt, now
from schemas.rawkey import RawKey
from streams.answer import Booked, Refused, Unavailable
from streams.delivery import Delivered
from topics.catalogue import BATCHES, DLQ, RAW, RECEIPTS


class Message(NamedTuple):
    """A message of ``avstar.batches``, read back: the request, its records' source, all its headers."""

    batch: Batch
    source: Source
    headers: dict[str, str]

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
            return cls(
                batch, source_of(dict(headers)), {name: text.decode() for name, text in headers.items()}
            )
        except KeyError as missing:
            raise ValueError(f"no header {missing}") from None


class RawOriginal(NamedTuple):
    """A raw record as it stands on ``avion.raw``: its key and its bytes."""

    key: bytes
    value: bytes


class Settlement(NamedTuple):
    """What is written when a batch has ended: its receipt, and dead letters by key."""

    key: str
    receipt: Receipt | None
    letters: list[tuple[str, DeadLetter]]

    def produce(self, producer: Producer) -> None:
        """Queue all of it."""
        if self.receipt:
            producer.produce(RECEIPTS.name, self.receipt.dump(), self.key)
        for key, letter in self.letters:
            source = RAW.name if letter.kind == "record" else BATCHES.name
            producer.produce(DLQ.name, letter.dump(), key, headers=letter.connect_headers(source))


def settle(message: Message, delivered: Delivered, originals: Mapping[int, RawOriginal]) -> Settlement:
    """The settlement of ``message``. ``originals``: the raw records that were rejected, by raw offset."""
    answer = delivered.answer
    if isinstance(answer, Refused):
        why = Reason(field="", value=str(answer.status), rule=answer.message)
        return _dead(message, delivered, "refused", why)
    if isinstance(answer, Unavailable):
        return _dead(message, delivered, "gave_up", Reason(field="", value="", rule=answer.why))
    letters = _rejected(message, delivered, answer, originals) if answer.rejected else []
    receipt = _receipt(message, delivered).model_copy(
        update={
            "status": "delivered",
            "accepted": answer.accepted,
            "duplicates": answer.duplicates,
            "rejected": answer.rejected,
            "dlq": [key for key, _ in letters],
        }
    )
    return Settlement(message.batch.key, receipt, letters)


def malformed(key: bytes | None, value: bytes | None, why: str) -> Settlement:
    """The end of a message on ``avstar.batches`` that is not a batch: a dead letter, no receipt."""
    at = now()
    letter = DeadLetter(
        kind="batch",
        stage="dispatch",
        reason="malformed",
        reasons=[Reason(field="", value="", rule=why)],
        original=value or b"",
        records=0,
        first_failure=at,
        last_failure=at,
    )
    found = (key or b"").decode(errors="replace") or hashes.rejection_key(b"", 0, value or b"")
    return Settlement(found, None, [(found, letter)])


def _receipt(message: Message, delivered: Delivered) -> Receipt:
    return Receipt(
        status="dead_lettered",
        batch_id=message.batch.batch_id,
        source=message.source,
        records=message.batch.records,
        http_status=delivered.answer.exchange.get("status", 0),
        attempts=delivered.attempts,
        latency_ms=delivered.answer.latency_ms,
        breaker=delivered.breaker,
        at=now(),
    )


def _dead(message: Message, delivered: Delivered, reason: str, why: Reason) -> Settlement:
    letter = DeadLetter(
        kind="batch",
        stage="dispatch",
        reason=reason,
        reasons=[why],
        original=message.batch.body,
        idempotency_key=message.batch.key,
        source=message.source,
        records=message.batch.records,
        exchange=delivered.answer.exchange,
        attempts=delivered.attempts,
        first_failure=delivered.first_failure,
        last_failure=delivered.last_failure,
        headers=message.headers,
    )
    receipt = _receipt(message, delivered).model_copy(update={"dlq": [message.batch.key]})
    return Settlement(message.batch.key, receipt, [(message.batch.key, letter)])


def _rejected(
    message: Message, delivered: Delivered, answer: Booked, originals: Mapping[int, RawOriginal]
) -> list[tuple[str, DeadLetter]]:
    """One dead letter per record that Avstar rejected out of a batch that it otherwise booked."""
    records = records_of(message.batch)
    raw_offsets = message.source.expand()
    at = now()
    letters = []
    for rejection in answer.rejected:
        record, raw_offset = records[rejection["index"]], raw_offsets[rejection["index"]]
        original = originals.get(raw_offset) or RawOriginal(b"", orjson.dumps(record))
        place = RawKey.unpack(original.key) if original.key else RawKey(b"", raw_offset, 0, 0)
        letter = DeadLetter(
            kind="record",
            stage="dispatch",
            reason="rejected",
            reasons=[Reason(field="", value=rejection["code"], rule=rejection["message"])],
            original=original.value,
            record_type=record["record_type"],
            placement_hash=record["idempotency_key"],
            idempotency_key=message.batch.key,
            place=Place(
                descriptor=place.descriptor.hex(),
                offset=place.offset,
                number=place.number,
                partition=message.source.partition,
                raw_offset=raw_offset,
            ),
            exchange=answer.exchange,
            attempts=delivered.attempts,
            first_failure=delivered.first_failure or at,
            last_failure=at,
        )
        letters.append((hashes.rejection_key(place.descriptor, place.offset, original.value), letter))
    return letters
