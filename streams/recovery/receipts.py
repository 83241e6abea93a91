"""What lies on ``avstar.receipts``: how batches ended."""

from collections.abc import Iterator

from schemas.letter import Receipt
from topics.catalogue import RECEIPTS
from topics.connection import KafkaSettings
from topics.reader import read_all


def read(kafka: KafkaSettings) -> Iterator[tuple[bytes, Receipt]]:
    """Every receipt with its message's key; what strangers wrote is passed over."""
    for message in read_all(kafka, RECEIPTS.name):
        try:
            receipt = Receipt.load(message.value())
        except ValueError:
            continue
        yield message.key() or b"", receipt
