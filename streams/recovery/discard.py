"""Discard: a dead letter that nobody will send again ends; why, its receipt keeps."""

from confluent_kafka import Producer

from schemas.batch import Source
from schemas.errors import Problem, UsageError
from schemas.letter import DeadLetter, Receipt, now
from streams.recovery import letters
from streams.recovery.letters import Pen, Stored
from streams.settings import Settings
from topics.catalogue import DLQ, RECEIPTS

_NOWHERE = Source(-1, 0, 0, 0, "")


def discard(settings: Settings, prefix: str, why: str) -> str:
    """End the letter whose key begins with ``prefix``, and give its key.

    Raises :class:`Problem` when there is none or more than one, or when a redrive of it is under way.
    """
    if not why.strip():
        raise UsageError("say why", where="--why", remedy="the receipt keeps it")
    letters.check_key(prefix)  # before the pen, which would take it from a redrive that runs
    pen = Pen(settings.kafka)
    stored = letters.find(settings.kafka, prefix)
    if stored.said.get("under_way"):
        raise Problem("a redrive of it is under way", where=stored.key, remedy="wait for what comes of it")
    letter = letters.load(settings.kafka, [stored]).get(stored.key) if stored.said else None
    receipt = _receipt(stored, letter, why.strip())

    def produce(producer: Producer) -> None:
        producer.produce(RECEIPTS.name, receipt.dump(), stored.key)
        for key, (partition, _) in stored.messages.items():  # a stranger's may lie anywhere
            producer.produce(DLQ.name, None, key, partition=partition)

    pen.commit(produce)
    return stored.key


def _receipt(stored: Stored, letter: DeadLetter | None, why: str) -> Receipt:
    found = Receipt(
        status="discarded",
        batch_id="",
        source=_NOWHERE,
        records=0,
        dlq=list(map(letters.text, stored.messages)),
        why=why,
        at=now(),
    )
    if letter is None:
        return found
    place, source = letter.place, letter.source
    if place:
        source = Source(place.partition, place.raw_offset, place.raw_offset, 1, "0")
    update = {
        "batch_id": letter.headers.get("batch-id", ""),
        "source": source or _NOWHERE,
        "records": letter.records,
        "place": place,
    }
    return found.model_copy(update=update)
