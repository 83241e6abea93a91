"""How fast the flow is, and when it will have caught up. Pure; the clock is an argument."""

from collections import deque
from typing import NamedTuple

#: Over how long the speed is taken; and what comes, which may end as suddenly as it began.
_WINDOW_S, _INFLOW_S = 30.0, 10.0

#: A batch on its topic is a message and the marker of its transaction.
OFFSETS_A_BATCH = 2


class Sample(NamedTuple):
    """Sums over partitions at a moment in seconds: raw topic's ends and positions, then the batches'."""

    at: float
    raw_end: int
    raw_done: int
    batches_end: int
    batches_done: int


class Speed(NamedTuple):
    """A second: raw records that came, raw records that were validated, batches that ended."""

    published: float = 0.0
    validated: float = 0.0
    batches: float = 0.0


class Trend:
    """Remembers the last half minute."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def learn(self, sample: Sample) -> None:
        """The newest one. Where positions went back, as after an offset was set by hand, it begins anew."""
        if self._samples and sample.raw_done < self._samples[-1].raw_done:
            self._samples.clear()
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].at <= sample.at - _WINDOW_S:
            self._samples.popleft()

    @property
    def speed(self) -> Speed:
        """Of the time that is remembered."""
        first, last = (self._samples[0], self._samples[-1]) if self._samples else (None, None)
        if first is None or last is None or last.at <= first.at:
            return Speed()
        seconds = last.at - first.at
        late = next(sample for sample in reversed(self._samples) if self._is_early(sample))
        return Speed(
            (last.raw_end - late.raw_end) / (last.at - late.at),
            (last.raw_done - first.raw_done) / seconds,
            (last.batches_done - first.batches_done) / OFFSETS_A_BATCH / seconds,
        )

    def _is_early(self, sample: Sample) -> bool:
        """Whether inflow may be taken from it on: there is none that is older, or it is old enough."""
        return sample is self._samples[0] or self._samples[-1].at - sample.at >= _INFLOW_S


def caught_up_in_s(records: int, batches: int, batch_records: float, speed: Speed) -> float | None:
    """Until what waits, and what comes meanwhile, is booked; None: not at this speed.

    ``records`` wait for validation, ``batches`` for Avstar; ``batch_records`` are in one.
    """
    if not records and not batches:
        return 0.0
    to_validate = _until(records, speed.validated - speed.published)
    more, coming = (records / batch_records, speed.published / batch_records) if batch_records else (0.0, 0.0)
    to_book = _until(batches + more, speed.batches - coming)
    return None if to_validate is None or to_book is None else max(to_validate, to_book)


def _until(waiting: float, gain: float) -> float | None:
    if not waiting:
        return 0.0
    return waiting / gain if gain > 0 else None
