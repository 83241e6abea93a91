"""What a window becomes: validated records, one batch, dead letters. Pure, given the verdicts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

from confluent_kafka import Producer

from schemas import batch, hashes
from schemas.batch import AUTO, Batch, Headers, Source, Upload
from schemas.codec import Codec
from schemas.descriptor import Descriptor
from schemas.letter import DeadLetter, Place, Reason, now
from schemas.rawkey import RawKey
from schemas.records import Invalid, Kind, Valid, Verdict
from topics.block import Block, send_blocks
from topics.catalogue import BATCHES, DLQ, RAW, VALIDATED
from topics.record import Record

QUARANTINED = Invalid(
    [Reason(field="", value="", rule="ended the process that judged it")], "", why="quarantined"
)


class Outcome(NamedTuple):
    """What one window becomes; all of it is committed together."""

    validated: dict[str, Block]  #: topic → messages
    batch: Batch | None  #: None when every record was rejected
    headers: Headers
    letters: list[tuple[str, DeadLetter]]
    records: int
    appended_ms: int  #: when the oldest of them was, as Kafka's time stamps count
    end: int  #: the raw offset to go on from

    def produce(self, producer: Producer, partition: int) -> None:
        """Queue all of it."""
        for topic, block in self.validated.items():
            send_blocks(producer, topic, [block])
        if self.batch:
            producer.produce(
                BATCHES.name, self.batch.body, self.batch.key, partition=partition, headers=self.headers
            )
        for key, letter in self.letters:
            producer.produce(DLQ.name, letter.dump(), key, headers=letter.connect_headers(RAW.name))


def conclude(
    window: Sequence[Record],
    verdicts: Sequence[Verdict],
    partition: int,
    codecs: Mapping[Kind, Codec],
    descriptors: Mapping[bytes, Descriptor],
    *,
    upload: Upload = AUTO,
) -> Outcome:
    """Turn the verdicts on a window into what is written. Pure."""
    accepted = [verdict for verdict in verdicts if isinstance(verdict, Valid)]
    kept = list(compress(window, (isinstance(verdict, Valid) for verdict in verdicts)))
    at = now()
    letters = [
        _letter(raw, verdict, partition, descriptors, at)
        for raw, verdict in zip(window, verdicts, strict=True)
        if isinstance(verdict, Invalid)
    ]
    bodies = [(valid.placement_hash, valid.canonical) for valid in accepted]
    built = batch.build(bodies, upload) if bodies else None
    first, last = window[0].offset, window[-1].offset
    source = Source(partition, first, last, len(window), batch.runs([raw.offset for raw in kept], first))
    files = sorted(file.hex() for file in {(raw.key or b"")[:16] for raw in kept})
    kinds = sorted({valid.kind for valid in accepted})
    appended_ms = min(raw.timestamp for raw in window)
    airs = [valid.airs for valid in accepted]
    headers = built.headers(source, files, kinds, appended_ms, airs) if built else []
    return Outcome(written(accepted, codecs), built, headers, letters, len(window), appended_ms, last + 1)


def written(accepted: Iterable[Valid], codecs: Mapping[Kind, Codec]) -> dict[str, Block]:
    """What subscribers get of the records, by topic."""
    of_kind: dict[Kind, list[Valid]] = defaultdict(list)
    for valid in accepted:
        of_kind[valid.kind].append(valid)
    return {
        VALIDATED[kind].name: Block.joined(
            [one.key for one in of], [one.avro for one in of], codecs[kind].frame
        )
        for kind, of in of_kind.items()
    }


def _letter(
    raw: Record, verdict: Invalid, partition: int, descriptors: Mapping[bytes, Descriptor], at: str
) -> tuple[str, DeadLetter]:
    original = raw.value or b""
    try:
        place = RawKey.unpack(raw.key or b"")
    except ValueError:
        place = RawKey(b"", raw.offset, 0, 0)
    letter = DeadLetter(
        kind="record",
        stage="validate",
        reason=verdict.why,
        reasons=verdict.reasons,
        original=original,
        record_type=verdict.record_type,
        place=Place(
            descriptor=place.descriptor.hex(),
            path=descriptors[place.descriptor].path if place.descriptor in descriptors else "",
            offset=place.offset,
            number=place.number,
            partition=partition,
            raw_offset=raw.offset,
        ),
        traceback=verdict.traceback,
        attempts=1,
        first_failure=at,
        last_failure=at,
    )
    # Without a file it is the raw partition that tells equal records apart.
    return hashes.rejection_key(place.descriptor or b"%d" % partition, place.offset, original), letter
