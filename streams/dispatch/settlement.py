"""How a delivered batch ends: a receipt, and dead letters for what Avstar did not take. Pure.

A batch that a redrive sent ends its letters, too: gone for what was booked, renewed for what was not.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
from confluent_kafka import Producer

from schemas import airing, hashes, parts
from schemas.batch import records_of
from schemas.letter import DeadLetter, Place, Reason, Receipt, RecordRejection, now
from streams.dispatch.answer import Booked, Refused
from streams.dispatch.delivery import Delivered
from streams.dispatch.halving import Ended
from streams.dispatch.message import Message, RawOriginal
from streams.recovery.letters import write
from topics.catalogue import DLQ, RECEIPTS

#: Of a rejection's code and message, on receipts: ten thousand of them have to fit into one.
_CODE_BYTES, _MESSAGE_BYTES = 64, 200

#: Of a message's key, on the letter of one that is no batch: as long as an idempotency key is.
_KEY_BYTES = 64


class Settlement(NamedTuple):
    """What is written when a batch has ended: its receipt, dead letters by key, keys of letters to end.

    ``appended_ms``: of the oldest raw record of a batch that was booked as it came, so neither redriven nor
    replayed.
    """

    key: str
    receipt: Receipt | None
    letters: list[tuple[str, DeadLetter]]
    gone: list[str]
    appended_ms: int | None = None

    def produce(self, producer: Producer) -> None:
        """Queue all of it."""
        if self.receipt:
            producer.produce(RECEIPTS.name, self.receipt.dump(), self.key)
        for key in self.gone:
            producer.produce(DLQ.name, None, key)
        for key, letter in self.letters:
            write(producer, key, letter)


def settle(
    message: Message,
    ended: Ended,
    originals: Mapping[int, RawOriginal],
    renewed: Mapping[str, DeadLetter] = MappingProxyType({}),
) -> Settlement:
    """The settlement of ``message``.

    ``originals``: the raw records that were rejected, and ``message.rejected_before``, by raw offset.
    ``renewed``: the dead letters that a redrive sent, by key, where it did not book all of them.
    """
    answer = ended.delivered.answer
    if isinstance(answer, Booked):
        return _booked(message, ended, answer, originals, renewed)
    if isinstance(answer, Refused):
        reason, why = "refused", Reason(field="", value=str(answer.status), rule=answer.message)
    else:
        reason, why = "gave_up", Reason(field="", value="", rule=answer.why)
    if message.from_letters and renewed:
        letters = [(key, _again(letter, ended, reason, why)) for key, letter in renewed.items()]
    elif message.batch.key in renewed:
        letters = [(message.batch.key, _again(renewed[message.batch.key], ended, reason, why))]
    else:
        letters = [(message.batch.key, _dead(message, ended.delivered, reason, why))]
    receipt = _receipt(message, ended).model_copy(update={"dlq": [key for key, _ in letters]})
    return Settlement(message.batch.key, receipt, letters, _parts_gone(message, letters))


def malformed(key: bytes | None, value: bytes | None, why: str) -> Settlement:
    """The end of a message on ``avstar.batches`` that is not a batch: a dead letter, no receipt.

    Its letter's key is its own, made of all that it is: under its message's key a batch may have a letter.
    """
    at = now()
    key, value = key or b"", value or b""
    letter = DeadLetter(
        kind="batch",
        stage="dispatch",
        reason="malformed",
        reasons=[Reason(field="", value="", rule=why)],
        original=value,
        idempotency_key=key[:_KEY_BYTES].decode(errors="backslashreplace"),
        records=0,
        first_failure=at,
        last_failure=at,
    )
    found = hashes.rejection_key(key, 0, value)
    return Settlement(found, None, [(found, letter)], [])


def _receipt(message: Message, ended: Ended) -> Receipt:
    delivered = ended.delivered
    return Receipt(
        status="dead_lettered",
        batch_id=message.batch.batch_id,
        source=message.source,
        records=message.batch.records,
        http_status=delivered.answer.exchange.get("status", 0),
        attempts=delivered.attempts,
        latency_ms=delivered.answer.latency_ms,
        breaker=delivered.breaker,
        parts=list(ended.parts),
        from_letters=message.from_letters,
        replay=message.replay,
        at=now(),
    )


def _dead(message: Message, delivered: Delivered, reason: str, why: Reason) -> DeadLetter:
    return DeadLetter(
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


def _again(letter: DeadLetter, ended: Ended, reason: str, why: Reason, index: int = -1) -> DeadLetter:
    """A letter whose redrive failed; ``index``: of its record, where Avstar rejected that."""
    return letter.model_copy(
        update={
            "reason": reason,
            "reasons": [why],
            "exchange": ended.exchanges.get(index, ended.delivered.answer.exchange),
            "attempts": letter.attempts + ended.delivered.attempts,
            "last_failure": now(),
            "retry_count": letter.retry_count + 1,
            "under_way": "",
        }
    )


def _parts_gone(message: Message, letters: list[tuple[str, DeadLetter]]) -> list[str]:
    """Keys that the redriven letters had and the renewed ones do not have."""
    kept = {part_key for key, letter in letters for part_key, _ in parts.split(key, letter)}
    return [key for key in message.redrives if key not in kept]


def _booked(
    message: Message,
    ended: Ended,
    answer: Booked,
    originals: Mapping[int, RawOriginal],
    renewed: Mapping[str, DeadLetter],
) -> Settlement:
    known = set(message.rejected_before)
    records = _records(message) if answer.rejected else []
    offsets = message.source.expand() if answer.rejected or known else []
    letters = []
    for rejection in answer.rejected:
        index = rejection["index"]
        why = Reason(field="", value=rejection["code"], rule=rejection["message"])
        letter_key = message.redrives[index] if message.from_letters and message.redrives else ""
        if letter_key in renewed:
            # From now on it is Avstar that rejects it, so its receipt accounts for it.
            letter = _again(renewed[letter_key], ended, "rejected", why, index)
            letters.append((letter_key, letter.model_copy(update={"stage": "dispatch"})))
        elif index not in known:
            original = originals.get(offsets[index]) or RawOriginal(b"", orjson.dumps(records[index]))
            where = Place(partition=message.source.partition, raw_offset=offsets[index])
            letters.append(
                _rejected(message, ended, index, why, original=original, where=where, record=records[index])
            )
    letters = list(dict(letters).items())  # a redrive may send a record more than once
    receipt = _receipt(message, ended).model_copy(
        update={
            "status": "redriven" if message.redrives else "delivered",
            "accepted": answer.accepted,
            "duplicates": answer.duplicates,
            "rejected": [_shortened(rejection) for rejection in answer.rejected],
            "dlq": [key for key, _ in letters],
        }
    )
    taken = known.difference(rejection["index"] for rejection in answer.rejected)
    closed = [originals[offsets[index]] for index in sorted(taken) if offsets[index] in originals]
    gone = _parts_gone(message, letters) + [original.letter_key for original in closed]
    fresh = not (message.redrives or message.replay)
    return Settlement(message.batch.key, receipt, letters, gone, message.appended_ms if fresh else None)


def _records(message: Message) -> list[dict[str, Any]]:
    """As they were sent; of a body that is not ours, and that Avstar could read, nothing is told."""
    try:
        return records_of(message.batch)
    except ValueError:
        return [{"idempotency_key": ""}] * message.batch.records


def _shortened(rejection: RecordRejection) -> RecordRejection:
    code, message = _cut(rejection["code"], _CODE_BYTES), _cut(rejection["message"], _MESSAGE_BYTES)
    return {**rejection, "code": code, "message": message}


def _cut(text: str, most_bytes: int) -> str:
    """Its beginning, without control characters: JSON needs six bytes for one, two at the most for others."""
    shown = "".join(filter(str.isprintable, text[: 2 * most_bytes]))
    return shown.encode()[:most_bytes].decode(errors="ignore")


def _rejected(
    message: Message,
    ended: Ended,
    index: int,
    why: Reason,
    *,
    original: RawOriginal,
    where: Place,
    record: Mapping[str, Any],
) -> tuple[str, DeadLetter]:
    """The dead letter of a record that Avstar rejected out of a batch that it otherwise booked."""
    at = now()
    stood = original.place
    letter = DeadLetter(
        kind="record",
        stage="dispatch",
        reason="rejected",
        reasons=[why],
        original=original.value,
        record_type=record.get("record_type", ""),
        placement_hash=record["idempotency_key"],
        idempotency_key=message.batch.key,
        place=where.model_copy(
            update={"descriptor": stood.descriptor.hex(), "offset": stood.offset, "number": stood.number}
        ),
        exchange=ended.exchanges.get(index, ended.delivered.answer.exchange),
        attempts=ended.delivered.attempts,
        first_failure=ended.delivered.first_failure or at,
        last_failure=at,
        headers={airing.HEADER: f"{airs}=1"} if (airs := airing.hour(record)) else {},
    )
    return original.letter_key, letter
