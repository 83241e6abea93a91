"""The meter: how far a tailer is with its files, for its metrics."""

from collections.abc import Iterable
from math import inf
from time import monotonic

from streams import metrics
from streams.metrics import Progress
from streams.tail.round import Round
from streams.tail.source import Source
from streams.tail.sources import Sources

#: How often the files are looked at: it costs a few microseconds each.
_EVERY_S = 2.0

#: Files that are shown by their paths.
_SHOWN = 100
_OTHERS = "others"


class Meter:
    """Counts what is published, and shows the files where ``shows``: without an endpoint nobody would see."""

    def __init__(self, *, shows: bool) -> None:
        self._published: dict[str, int] = {}  # by identity
        self._losses = 0
        self._next = 0.0 if shows else inf

    def publish(self, batch: Round) -> None:
        """This is committed."""
        metrics.TAIL_RECORDS.inc(batch.records)
        metrics.TAIL_BYTES.inc(batch.size)
        metrics.count_letters("tail", ["too_large"] * batch.oversized)
        if self._next < inf:
            self._published |= {identity: done.position for identity, done in batch.checkpoints.items()}

    def look(self, sources: Sources, *, now: bool = False) -> None:
        """See how far the files are, when it is time again or ``now``: whenever some are new."""
        for loss in sources.losses[self._losses :]:
            metrics.TAIL_LOSSES.inc()
            metrics.TAIL_LOST_BYTES.inc(loss.known)
        self._losses = len(sources.losses)
        if self._next == inf or (monotonic() < self._next and not now):
            return
        self._next = monotonic() + _EVERY_S
        files = sources.open
        # What is read is not published yet, so a file counts from where it was first seen.
        self._published = {one: self._published.get(one, of.position) for one, of in files.items()}
        metrics.TAIL_FILES.set(len(files))
        metrics.TAIL_REFUSED_FILES.set(len(sources.refused))
        metrics.FILES.show(bounded((of.file.path, self._progress(of)) for of in files.values()))

    def _progress(self, source: Source) -> Progress:
        position = self._published[source.identity]
        # How much a gzip file holds is known once it has been read.
        return Progress(position, None if source.file.is_gzip else max(0, source.file.size() - position))


def bounded(files: Iterable[tuple[str, Progress]]) -> dict[str, Progress]:
    """By path, those that are furthest behind; all the others added up."""
    ranked = sorted(files, key=lambda one: -(one[1].behind or 0))
    shown: dict[str, Progress] = {}
    for index, (path, progress) in enumerate(ranked):
        name = path if index < _SHOWN else _OTHERS
        # Not only the others may be there already: a file and the one that took its name are one path.
        shown[name] = _sum(shown[name], progress) if name in shown else progress
    return shown


def _sum(one: Progress, other: Progress) -> Progress:
    return Progress(one.position + other.position, (one.behind or 0) + (other.behind or 0))
