"""Validated records on their topics, written as the worker writes them."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import Producer
from test_codec import BILL, JUDGE, SPOT, line

from schemas.codec import Codec, schema
from schemas.records import Kind, Valid
from schemas.registry import Registry, RegistrySettings
from streams.lab.up import Lab
from streams.settings import Settings
from topics.catalogue import VALIDATED
from topics.connection import KafkaSettings

AVAIL = {
    "record_type": "AVAIL",
    "station": "WABC",
    "broadcast_date": "03/09/2026",
    "avail_id": "AV-1",
    "break_id": "BR-1",
    "window_start": "08:00:00",
    "window_end": "08:02:00",
    "duration_s": "30",
    "units_total": "4",
    "units_sold": "1",
    "floor_rate": "1.00",
}
MAKEGOOD = {
    "record_type": "MG",
    "station": "WABC",
    "broadcast_date": "03/09/2026",
    "makegood_id": "MG-1",
    "original_spot_id": "SP-1",
    "replacement_spot_id": "SP-2",
    "reason_code": "PREEMPT",
    "air_time": "25:30:00.250",
    "duration_s": "30",
    "adjustment": "-1.50",
    "approved_at": "2026-03-09T14:30:05Z",
}
CELLS: dict[Kind, dict[str, str]] = {"spot": SPOT, "avail": AVAIL, "billing": BILL, "makegood": MAKEGOOD}


def judged(cells: Iterable[dict[str, str]]) -> list[Valid]:
    """The records of these cells, all of which keep the rules."""
    verdicts = JUDGE.judge([line(one) for one in cells])
    found = [one for one in verdicts if isinstance(one, Valid)]
    assert len(found) == len(verdicts), verdicts
    return found


def spots(count: int) -> list[Valid]:
    """Spots with ids that no other call has given."""
    name = uuid.uuid4().hex[:8].upper()
    return judged([SPOT | {"spot_id": f"{name}-{number}"} for number in range(count)])


def message(codec: Codec, valid: Valid) -> dict[str, bytes]:
    """Key and value, as ``produce`` takes them."""
    return {"key": valid.key, "value": codec.frame + valid.avro}


class Validated:
    """The validated topics of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=lab.broker.bootstrap)
        self.settings = Settings(kafka=self.kafka, registry=RegistrySettings(url=lab.registry.url))
        self.registry = Registry(self.settings.registry)

    def codec(self, kind: Kind = "spot") -> Codec:
        """This version's, registered."""
        return Codec(kind, self.registry.register(VALIDATED[kind].name, schema(kind)))

    def publish(self, records: Sequence[Valid], partition: int = 0, *, commit: bool = True) -> None:
        """In one transaction; ``commit=False`` aborts it."""
        codecs = {kind: self.codec(kind) for kind in {record.kind for record in records}}
        messages = [(VALIDATED[one.kind].name, message(codecs[one.kind], one)) for one in records]
        self.write(messages, partition, commit=commit)

    def write(
        self, messages: Iterable[tuple[str, dict[str, Any]]], partition: int = 0, *, commit: bool = True
    ) -> None:
        """Whatever it is."""
        producer = Producer(self.kafka.confluent(transactional_id=uuid.uuid4().hex, linger_ms=20))
        producer.init_transactions(15)
        producer.begin_transaction()
        for topic, message in messages:
            while True:
                try:
                    producer.produce(topic, partition=partition, **message)
                    break
                except BufferError:
                    producer.poll(0.1)
        if commit:
            producer.commit_transaction(60)
        else:
            producer.flush(15)
            producer.abort_transaction(15)
