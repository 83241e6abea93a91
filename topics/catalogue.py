"""Every topic of the product, declared once: purpose, who writes, who reads, how it is kept.

The batch and dead-letter topics take messages of 16 MiB: a batch of 10,000 records with every text at its
longest is about 20 MB of JSON and compresses below that; a dead batch holds it once more, in base64.
"""

from typing import Literal, NamedTuple

_DAY_MS = 86_400_000
_MIB = 1_048_576


class Topic(NamedTuple):
    """A topic's contract. ``partitions``: the default at creation; retention in ms, -1 for ever."""

    name: str
    purpose: str
    written_by: str
    read_by: str
    cleanup: Literal["delete", "compact"]
    retention_ms: int = -1
    max_message_bytes: int = _MIB
    partitions: int = 8

    @property
    def config(self) -> dict[str, str]:
        """The broker-side settings, as Kafka names them."""
        settings = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
            # Not the writer's: of a clock ahead Kafka takes nothing, by one behind it deletes too soon.
            "message.timestamp.type": "LogAppendTime",
        }
        if self.cleanup == "delete":
            settings["retention.ms"] = str(self.retention_ms)
        return settings


RAW = Topic(
    "avion.raw",
    "the records of Avion's files, byte for byte",
    "tail, feeds",
    "validate, dispatch, audit, replay, status pages",
    "delete",
    30 * _DAY_MS,
    8 * _MIB,
)
FILES = Topic(
    "avion.files",
    "what describes each file",
    "tail, feeds",
    "validate, audit, replay, dlq, status pages",
    "compact",
    partitions=1,
)
CHECKPOINTS = Topic(
    "avion.tail.checkpoints",
    "how far each file is published",
    "tail, feeds",
    "tail, feeds, audit, status pages",
    "compact",
    partitions=1,
)


def _validated(name: str, purpose: str) -> Topic:
    return Topic(f"avion.validated.{name}", purpose, "validate, dlq redrive", "any", "delete", 7 * _DAY_MS)


SPOTS = _validated("spots", "validated spots")
AVAILS = _validated("avails", "validated avails")
BILLING = _validated("billing", "validated billing records")
MAKEGOODS = _validated("makegoods", "validated make-goods")
BATCHES = Topic(
    "avstar.batches",
    "the exact requests to Avstar",
    "validate, replay, dlq redrive",
    "dispatch, audit, replay, status pages",
    "delete",
    7 * _DAY_MS,
    16 * _MIB,
)
RECEIPTS = Topic(
    "avstar.receipts",
    "how each batch ended",
    "dispatch, dlq discard",
    "audit, replay, status pages",
    "delete",
    90 * _DAY_MS,
    8 * _MIB,
)
DLQ = Topic(
    "avstar.dlq",
    "what failed, with all context",
    "tail, validate, dispatch, dlq redrive, dlq discard",
    "dlq, dispatch, audit, status pages",
    "compact",
    -1,
    24 * _MIB,
)

#: The consumer groups of the worker's roles.
VALIDATING, DISPATCHING = "spotstream-validate", "spotstream-dispatch"

#: By record type, as in the ``record_type`` column.
VALIDATED = {"spot": SPOTS, "avail": AVAILS, "billing": BILLING, "makegood": MAKEGOODS}

CATALOGUE = (RAW, FILES, CHECKPOINTS, *VALIDATED.values(), BATCHES, RECEIPTS, DLQ)
