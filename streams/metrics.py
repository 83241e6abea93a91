"""Every metric, in one place; names and units as Prometheus asks for them. docs/metrics.md has the table.

What is known of a label beforehand is there from the start with 0: a series that begins with 1 has not
increased for Prometheus, so the first dead letter would raise no alert.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from itertools import product
from math import nan
from typing import NamedTuple

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.errors import UsageError
from schemas.records import COLUMNS

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600)


def _counter(name: str, documentation: str, **labels: Iterable[str]) -> Counter:
    """A counter with these labels, each with the values that it is known to have."""
    counter = Counter(name, documentation, list(labels))
    for values in product(*labels.values()) if labels else ():
        counter.labels(*values)
    return counter


# -- validate

RECORDS = _counter("spotstream_records", "Raw records judged, by outcome", outcome=("accepted", "rejected"))
REJECTIONS = Counter(
    "spotstream_rejections",
    "Reasons for which validation rejected records, by class of reason and field; a record may have several",
    ["reason", "field"],
)

# -- dispatch

ANSWERS = ("booked", "refused", "limited", "unavailable", "unauthorized", "notoken")
ATTEMPTS = _counter("spotstream_delivery_attempts", "Requests to Avstar, by answer", answer=ANSWERS)
ATTEMPT_SECONDS = Histogram(
    "spotstream_delivery_attempt_seconds", "Time from request to answer", buckets=_SECONDS
)
LIMITER_WAIT_SECONDS = Histogram(
    "spotstream_limiter_wait_seconds",
    "Time that a request waited for its turn: for the account's limits, a free place or the breaker",
    buckets=(*_SECONDS, 60, 120, 300),
)
REQUESTS_IN_FLIGHT = Gauge("spotstream_requests_in_flight", "Requests to Avstar under way")
REQUESTS_LIMIT = Gauge("spotstream_requests_limit", "Requests that this worker may have in flight now")
BREAKER = _counter(
    "spotstream_breaker",
    "Times that the circuit breaker entered a state",
    state=("closed", "open", "half-open"),
)
BREAKER_CLOSED = Gauge("spotstream_breaker_closed", "1 while the circuit breaker is closed, else 0")
BREAKER_CLOSED.set(1)
TOKEN_AGE = Gauge(
    "spotstream_token_age_seconds", "Since the OAuth2 token in use was asked for; NaN without one"
)
TOKEN_AGE.set(nan)
BATCHES = _counter(
    "spotstream_batches",
    "Batches that ended, by outcome",
    outcome=("delivered", "dead_lettered", "redriven", "malformed"),
)
BATCH_SECONDS = Histogram(
    "spotstream_batch_seconds",
    "Time from a batch's arrival in dispatch to the commit of its receipt",
    buckets=(*_SECONDS, 60, 300, 900, 3600),
)
BATCH_ATTEMPTS = Histogram(
    "spotstream_batch_attempts",
    "Requests that a batch took, as its receipt tells",
    buckets=(1, 2, 3, 5, 10, 20, 50, 100),
)
BOOKED = _counter(
    "spotstream_booked_records",
    "Records that Avstar took, new or known before (so a replay's), or rejected",
    state=("new", "known", "rejected"),
)
BOOKING_SECONDS = Histogram(
    "spotstream_booking_seconds",
    "Time from the append of a batch's oldest record to avion.raw to the commit of its booking",
    buckets=_LONG_SECONDS,
)

#: How far ahead spots are looked for that are to air, in hours, by the label's value.
AIRING_WITHIN = {"1h": 1, "4h": 4, "24h": 24}
AIRING_UNBOOKED = Gauge(
    "spotstream_airing_unbooked",
    "Scheduled spots that are validated, air in the present clock hour or the next 1, 4 or 24, and are not "
    "booked: their batch waits for longer than half a minute, or is a dead letter",
    ["within"],
)
for _within in AIRING_WITHIN:
    AIRING_UNBOOKED.labels(_within)

# -- both roles

DEAD_LETTERS = Counter(
    "spotstream_dead_letters", "Dead letters written, by stage and reason", ["stage", "reason"]
)
for _stage, _reasons in {
    "tail": ("too_large",),
    "validate": ("invalid", "unencodable", "crashed", "quarantined"),
    "dispatch": ("refused", "gave_up", "rejected", "malformed"),
}.items():
    for _reason in _reasons:
        DEAD_LETTERS.labels(_stage, _reason)

POSITION = Gauge("spotstream_position", "Committed offset of an owned partition", ["topic", "partition"])
LAG = Gauge("spotstream_lag", "Offsets between the log's end and the position", ["topic", "partition"])
UNREAD_AGE = Gauge(
    "spotstream_unread_age_seconds",
    "Age of the oldest record of an owned partition that is not done; none when all are",
    ["topic", "partition"],
)
RETENTION_LEFT = Gauge(
    "spotstream_retention_left_seconds",
    "Time until retention may delete the oldest record of an owned partition that is not done",
    ["topic", "partition"],
)
FLOOD_GUARD = Gauge(
    "spotstream_flood_guard", "1 while the flood guard holds a partition (-1: all)", ["topic", "partition"]
)

# -- tail

TAIL_RECORDS = Counter("spotstream_tail_records", "Records published to avion.raw, or as dead letters")
TAIL_BYTES = Counter("spotstream_tail_bytes", "Bytes of the records published to avion.raw")
TAIL_LOSSES = Counter(
    "spotstream_tail_losses", "Times that bytes of a file were, or may have been, destroyed before being read"
)
TAIL_LOST_BYTES = Counter(
    "spotstream_tail_lost_bytes", "Bytes destroyed before they could be read, as far as they had been seen"
)
TAIL_FILES = Gauge("spotstream_tail_files", "Files that are being read")
TAIL_REFUSED_FILES = Gauge("spotstream_tail_refused_files", "Files that cannot be read; the log tells why")


class Progress(NamedTuple):
    """Of a file, in bytes: published up to ``position``, ``behind`` are in the file beyond; None: unknown."""

    position: int
    behind: int | None


class _Files(Collector):
    """The gauges of single files. They change as a whole: a scrape sees all of a change or nothing of it."""

    def __init__(self) -> None:
        self._shown: Mapping[str, Progress] = {}

    def show(self, files: Mapping[str, Progress]) -> None:
        """Show these, by path, and no others. Each path becomes a series, so the caller bounds them."""
        self._shown = dict(files)

    def collect(self) -> Iterable[Metric]:
        shown = self._shown
        position = GaugeMetricFamily(
            "spotstream_tail_position_bytes", "Offset up to which a file is published", labels=["path"]
        )
        behind = GaugeMetricFamily(
            "spotstream_tail_behind_bytes", "Bytes of a file that are not published yet", labels=["path"]
        )
        for path, progress in shown.items():
            # A name need not be text, and one that is not would spoil the whole answer.
            label = path.encode(errors="backslashreplace").decode()
            position.add_metric([label], progress.position)
            if progress.behind is not None:
                behind.add_metric([label], progress.behind)
        return position, behind


FILES = _Files()
REGISTRY.register(FILES)


_FIELDS = {"record_type", *(field for columns in COLUMNS.values() for field in columns)}


def count_rejections(reasons: Iterable[tuple[str, str]]) -> None:
    """Count reasons, each a (class, field) pair; a field that no kind of record has is none."""
    for (reason, field), times in Tally(reasons).items():
        REJECTIONS.labels(reason, field if field in _FIELDS else "").inc(times)


def count_letters(stage: str, reasons: Iterable[str]) -> None:
    """Count dead letters that a stage has written."""
    for reason, times in Tally(reasons).items():
        DEAD_LETTERS.labels(stage, reason).inc(times)


def held() -> list[str]:
    """What the flood guard holds now: partitions, or a whole topic."""
    samples = [sample for family in FLOOD_GUARD.collect() for sample in family.samples if sample.value]
    return [f"{at['topic']} {at['partition']}".removesuffix(" -1") for at in (one.labels for one in samples)]


def serve(host: str, port: int) -> None:
    """Serve them at ``/metrics`` from a thread of this process, until it ends.

    Raises :class:`UsageError` when nobody can listen there.
    """
    try:
        start_http_server(port, host)
    except OSError as error:
        raise UsageError(
            f"cannot listen there: {error.strerror}",
            where=f"{host}:{port}",
            remedy="set tail.metrics_port to another, or to 0 for none, or tail.metrics_host",
        ) from None
