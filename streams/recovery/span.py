"""Spans of the raw topic: by partition, first and last offsets that are wanted."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from confluent_kafka import KafkaException

from schemas.batch import Source
from schemas.errors import UsageError
from topics.admin import Asker, problem
from topics.catalogue import RAW
from topics.connection import KafkaSettings
from topics.reader import beginnings

_SPAN = re.compile(r"(\d{1,9}):(\d{1,19})(-(\d{1,19})?)?")
_END = 2**63 - 1
#: Spans of one partition: all are kept in an offset's metadata, of which brokers take 4096 bytes.
_MOST = 90


class Spans(NamedTuple):
    """``wanted``: partition → (first, last) offsets, both included."""

    wanted: Mapping[int, tuple[tuple[int, int], ...]]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Spans":
        """Of ``P:A-B`` (``P:A``: one offset, ``P:A-``: from there on); raises :class:`UsageError`."""
        found: dict[int, tuple[tuple[int, int], ...]] = {}
        for text in texts:
            match = _SPAN.fullmatch(text)
            first = int(match[2]) if match else 0
            last = (int(match[4]) if match[4] else _END if match[3] else first) if match else -1
            if match is None or last < first:
                remedy = f"write P:A-B, partition and offsets of {RAW.name}, like 3:1000-1999"
                raise UsageError("not a span of offsets", where=f"--offsets {text}", remedy=remedy)
            spans = found[int(match[1])] = (*found.get(int(match[1]), ()), (first, last))
            if len(spans) > _MOST:
                what = f"more than {_MOST} spans of partition {match[1]}"
                raise UsageError(what, where="--offsets", remedy="replay them by several commands")
        return cls(found)

    def check(self, kafka: KafkaSettings) -> None:
        """Raises :class:`UsageError` for a partition that there is not, and :class:`Unreachable`."""
        there = beginnings(kafka, RAW.name)
        for partition in self.wanted:
            if partition not in there:
                what = f"{RAW.name} has no partition {partition}"
                raise UsageError(what, where="--offsets", remedy=f"they are 0 to {max(there)}")

    @classmethod
    def between(cls, kafka: KafkaSettings, since: datetime, until: datetime | None) -> "Spans":
        """What was published then; raises :class:`Unreachable`."""
        begins = _at(kafka, since)
        ends = _at(kafka, until) if until else {}
        spans = {partition: (begin, ends.get(partition, _END + 1) - 1) for partition, begin in begins.items()}
        return cls({partition: (span,) for partition, span in spans.items() if span[0] <= span[1]})

    def hold(self, source: Source) -> bool:
        """Whether any record of a batch from there is wanted."""
        wanted = self.wanted.get(source.partition, ())
        return bool(wanted) and any(
            first <= end and begin <= last for first, last in source.stretches() for begin, end in wanted
        )


def _at(kafka: KafkaSettings, moment: datetime) -> dict[int, int]:
    """By partition, the offset of the first record that was published then or later."""
    asker, since = Asker(kafka), int(moment.timestamp() * 1000)
    try:
        wanted = dict.fromkeys(asker.topic(RAW.name).partitions, since)
        found = asker.offsets(RAW.name, wanted, kafka.timeout_s)
    except KafkaException as error:
        raise problem(error.args[0], kafka, RAW.name) from None
    return {partition: offset if offset >= 0 else _END for partition, offset in found.items()}
