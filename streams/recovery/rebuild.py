"""A batch built anew from its raw records: the same key and body, or the reason why not. Pure."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from schemas import batch
from schemas.batch import Batch, Headers, Source, Upload
from schemas.records import Invalid
from streams.dispatch.message import REDRIVE_OF, RawOriginal
from streams.validate.panel import Panel, identities, verdicts


class Message(Protocol):
    """A raw record, as confluent-kafka's consumer gives it."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...


class Rebuilt(NamedTuple):
    """A batch as it was, the files (descriptor ids) and kinds that its records are of."""

    batch: Batch
    headers: Headers
    files: list[str]
    kinds: list[str]


class _Raw(NamedTuple):
    offset: int
    timestamp: int
    key: bytes
    value: bytes


def rebuild(
    key: str,
    source: Source,
    found: Mapping[int, Message],
    panel: Panel,
    upload: Upload,
    *,
    from_letters: bool,
) -> Rebuilt | str:
    """The batch ``key`` of the records at ``source``, of which ``found`` are still kept, by raw offset."""
    offsets = source.expand()
    raws = []
    for offset in offsets:
        message = found.get(offset)
        if message is None:
            return f"raw record {source.partition}:{offset} is no longer kept"
        raws.append(_Raw(offset, message.timestamp()[1], message.key() or b"", message.value() or b""))
    judged = []
    for raw, verdict in zip(raws, verdicts(raws, panel), strict=True):
        if isinstance(verdict, Invalid):
            rules = "; ".join(f"{reason['field']} {reason['rule']}".strip() for reason in verdict.reasons)
            return f"raw record {source.partition}:{raw.offset} would be rejected now: {rules}"
        judged.append(verdict)
    built = batch.build([(valid.placement_hash, valid.canonical) for valid in judged], upload)
    if built.key != key:
        return "its records would be normalized otherwise now, and have another key"
    files = sorted({file.hex() for file in set(identities(raws))})
    kinds = sorted({valid.kind for valid in judged})
    appended_ms = min(raw.timestamp for raw in raws)
    headers = built.headers(source, files, kinds, appended_ms, [valid.airs for valid in judged])
    if from_letters:
        letters = ",".join(RawOriginal(raw.key, raw.value).letter_key for raw in raws)
        headers.append((REDRIVE_OF, letters.encode()))
    return Rebuilt(built, headers, files, list(kinds))
