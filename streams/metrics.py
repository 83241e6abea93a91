"""Every metric of the worker, in one place; names and units as Prometheus asks for them."""

from math import nan

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("spotstream_records", "Raw records judged, by outcome", ["outcome"])
ATTEMPTS = Counter("spotstream_delivery_attempts", "Requests to Avstar, by answer", ["answer"])
ATTEMPT_SECONDS = Histogram(
    "spotstream_delivery_attempt_seconds",
    "Time from request to answer",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BREAKER = Counter("spotstream_breaker", "Times that the circuit breaker entered a state", ["state"])
BREAKER_CLOSED = Gauge("spotstream_breaker_closed", "1 while the circuit breaker is closed, else 0")
BREAKER_CLOSED.set(1)
BATCHES = Counter("spotstream_batches", "Batches that ended, by outcome", ["outcome"])
BOOKED = Counter("spotstream_booked_records", "Records that Avstar took, new or known before", ["state"])
TOKEN_AGE = Gauge(
    "spotstream_token_age_seconds", "Since the OAuth2 token in use was asked for; NaN without one"
)
TOKEN_AGE.set(nan)
POSITION = Gauge("spotstream_position", "Committed offset of an owned partition", ["topic", "partition"])
LAG = Gauge("spotstream_lag", "Offsets between the log's end and the position", ["topic", "partition"])
FLOOD_GUARD = Gauge(
    "spotstream_flood_guard", "1 while the flood guard holds a partition (-1: all)", ["topic", "partition"]
)


def held() -> list[str]:
    """What the flood guard holds now: partitions, or a whole topic."""
    samples = [sample for family in FLOOD_GUARD.collect() for sample in family.samples if sample.value]
    return [f"{at['topic']} {at['partition']}".removesuffix(" -1") for at in (one.labels for one in samples)]
