"""Records that had been rejected, judged again: those that are right now make a batch. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from schemas import batch
from schemas.batch import Batch, Headers, Source, Upload
from schemas.codec import Codec
from schemas.letter import DeadLetter, Reason
from schemas.rawkey import RawKey
from schemas.records import Invalid, Kind, Valid
from streams.dispatch.message import REDRIVE_OF
from streams.validate.outcome import written
from streams.validate.panel import Panel, verdicts
from topics.block import Block


class Sending(NamedTuple):
    """A batch that goes to dispatch once more, and the letters that wait for it, as they are to be then."""

    batch: Batch
    headers: Headers
    partition: int
    letters: dict[str, DeadLetter]
    validated: dict[str, Block]  #: topic → messages, of records that are valid only now
    gone: Sequence[bytes] = ()  #: keys of parts that the letters had and as they are now do not have


class Remade(NamedTuple):
    """``sending`` is None when none is right; ``left`` are the letters that stay, by key, and why."""

    sending: Sending | None
    left: dict[str, str]


class _Raw(NamedTuple):
    offset: int
    timestamp: int
    key: bytes
    value: bytes


def remake(
    found: Mapping[str, DeadLetter],
    panel: Panel,
    codecs: Mapping[Kind, Codec],
    upload: Upload,
    at: str,
    *,
    edited: bytes | None = None,
) -> Remade:
    """Judge the records of letters (by key, of one raw partition) and batch what is valid.

    ``at``: the time, RFC 3339, for the mark that a redrive is under way. ``edited``: the bytes to judge
    instead of the one letter's original.
    """
    valid: dict[str, Valid] = {}
    left: dict[str, str] = {}
    unwritten: list[Valid] = []
    raws = [_raw(letter, edited) for letter in found.values()]
    for (key, letter), verdict in zip(found.items(), verdicts(raws, panel), strict=True):
        if isinstance(verdict, Invalid):
            left[key] = "still rejected: " + "; ".join(_said(reason) for reason in verdict.reasons)
            continue
        valid[key] = verdict
        # Else it is on its topic since it was judged first.
        if verdict.placement_hash != letter.placement_hash:
            unwritten.append(verdict)
    return Remade(_sending(found, valid, written(unwritten, codecs), upload, at) if valid else None, left)


def _said(reason: Reason) -> str:
    return f"{reason['field']}: {reason['rule']}" if reason["field"] else reason["rule"]


def _raw(letter: DeadLetter, edited: bytes | None) -> _Raw:
    place = letter.place
    if place is None or not place.descriptor:
        return _Raw(-1, 0, b"", b"")
    key = RawKey(bytes.fromhex(place.descriptor), place.offset, place.number, 0)
    return _Raw(place.raw_offset, 0, key.pack(), letter.original if edited is None else edited)


def _sending(
    found: Mapping[str, DeadLetter],
    valid: Mapping[str, Valid],
    validated: dict[str, Block],
    upload: Upload,
    at: str,
) -> Sending:
    keys = _told_apart(sorted(valid, key=lambda key: _offset(found[key])), found)
    built = batch.build([(valid[key].placement_hash, valid[key].canonical) for key in keys], upload)
    offsets = [_offset(found[key]) for key in keys]
    first, partition = min(offsets), _partition(found[keys[0]])
    source = Source(partition, first, max(offsets), len(keys), batch.runs(offsets, first))
    files = sorted({letter.place.descriptor for key in keys if (letter := found[key]).place})
    kinds = sorted({one.kind for one in valid.values()})
    appended_ms = int(datetime.fromisoformat(at).astimezone(UTC).timestamp() * 1000)
    headers = [
        *built.headers(source, files, kinds, appended_ms, [valid[key].airs for key in keys]),
        (REDRIVE_OF, ",".join(keys).encode()),
    ]
    marked = {
        key: found[key].model_copy(
            update={
                "under_way": at,
                "record_type": valid[key].kind,
                "placement_hash": valid[key].placement_hash,
                "idempotency_key": built.key,
            }
        )
        for key in keys
    }
    return Sending(built, headers, partition, marked, validated)


def _told_apart(keys: list[str], found: Mapping[str, DeadLetter]) -> list[str]:
    """The first record once more for each time that it was sent.

    Avstar answers a key that it knows as it did before, so the same set needs another one; a record that is
    in it twice counts as a duplicate.
    """
    sent = max(found[key].retry_count + bool(found[key].idempotency_key) for key in keys)
    return [*keys[:1] * sent, *keys]


def _offset(letter: DeadLetter) -> int:
    return letter.place.raw_offset if letter.place else -1


def _partition(letter: DeadLetter) -> int:
    return letter.place.partition if letter.place else -1
