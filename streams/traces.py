"""Traces of batches, for those who collect them with OpenTelemetry.

A batch is a trace whose id is the batch id (both have 128 bits), so logs, receipts, dead letters and traces
name the same thing, and a retry, a redrive and a replay belong to the trace of the first delivery. Requests
carry it as the W3C's ``traceparent``, whether spans are exported or not. Raw records carry nothing: a header
would cost two thirds of the publishing speed, so a trace begins when its oldest record was appended.

Source: https://www.w3.org/TR/trace-context/
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from schemas.errors import UsageError
from streams.settings import TracesSettings

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_tracer = trace.get_tracer("spotstream")

Attributes = Mapping[str, str | int]


def configure(settings: TracesSettings, role: str) -> None:
    """Export this process's spans where the settings say; nowhere is the default.

    Raises :class:`UsageError` when the exporter is not installed.
    """
    if not settings.endpoint:
        return
    if find_spec("opentelemetry.exporter") is None or find_spec("opentelemetry.sdk") is None:
        raise UsageError(
            "the exporter of traces is not installed",
            where="traces.endpoint",
            remedy="install spotstream with its extra traces",
        )
    # What exports is an extra, and costs a worker without it nothing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(
        resource=Resource.create({"service.name": f"spotstream-{role}"}), shutdown_on_exit=True
    )
    exporter = OTLPSpanExporter(f"{settings.endpoint.rstrip('/')}/v1/traces", timeout=settings.timeout_s)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def _of(batch_id: str) -> Context:
    """The trace of a batch. Its root is no span of ours, but a name that every process knows."""
    root = SpanContext(int(batch_id, 16), int(batch_id[16:], 16) or 1, is_remote=True, trace_flags=_SAMPLED)
    return trace.set_span_in_context(NonRecordingSpan(root))


def tell(name: str, batch_id: str, since: float, attributes: Attributes) -> None:
    """A span that ends now and began at ``since`` (seconds since 1970)."""
    began = int(min(since, time.time()) * 1e9)
    _tracer.start_span(name, _of(batch_id), SpanKind.CONSUMER, attributes, start_time=began).end()


def batch(name: str, batch_id: str) -> AbstractContextManager[Span]:
    """A span about a batch, in which :func:`request` finds it."""
    return _tracer.start_as_current_span(name, _of(batch_id), SpanKind.CONSUMER)


def request(name: str) -> AbstractContextManager[Span]:
    """A span about a request, within that of its batch."""
    return _tracer.start_as_current_span(name, kind=SpanKind.CLIENT)


def headers() -> dict[str, str]:
    """What a request carries of the span that it is made in; nothing outside of one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier
