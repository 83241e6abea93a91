"""Traces: a batch's spans and requests carry its id, whatever process they are of."""

import gzip
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flow import Flow
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from topics.catalogue import RECEIPTS
from topics.reader import read_all

HASTE = {"BATCH__SECONDS": 0.2, "WORKER__SESSION_TIMEOUT_S": 6, "DISPATCH__BACKOFF_BASE_S": 0.1}


class Both(ThreadingHTTPServer):
    """A collector of traces, and an Avstar that is unavailable at first and then takes everything."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Any]] = []  #: of a service
        self.parents: list[tuple[str, str]] = []  #: idempotency key and traceparent of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Both
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                (service,) = (
                    a.value.string_value for a in group.resource.attributes if a.key == "service.name"
                )
                self.server.spans += [(service, span) for scope in group.scope_spans for span in scope.spans]
            return self._answer(200, b"")
        self.server.parents.append((self.headers["Idempotency-Key"].strip('"'), self.headers["traceparent"]))
        if len(self.server.parents) == 1:
            return self._answer(503, b"")
        return self._answer(
            200, json.dumps({"accepted": len(json.loads(body)["records"]), "duplicates": 0}).encode()
        )

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def both() -> Iterator[Both]:
    with Both() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.broker
def test_a_batch_is_one_trace_from_append_to_receipt(flow: Flow, both: Both) -> None:
    log = flow.log(6_000, seed=1, bad_rate=0.01)
    worker = flow.start("worker", TRACES__ENDPOINT=both.url, AVSTAR__BASE_URL=both.url, **HASTE)
    flow.tail(log)
    flow.settle()
    keys = {(message.key() or b"").decode() for message in read_all(flow.kafka, RECEIPTS.name)}
    assert worker.end(signal.SIGTERM) == 0
    assert keys
    assert {key for key, _ in both.parents} == keys
    spans = {(service, span.name, span.trace_id.hex()): span for service, span in both.spans}
    for key in keys:
        assert ("spotstream-validate", "validate", key[:32]) in spans
        dispatched = spans["spotstream-dispatch", "dispatch", key[:32]]
        sent = [span for _, span in both.spans if span.parent_span_id == dispatched.span_id]
        requests = {f"00-{key[:32]}-{span.span_id.hex()}-01" for span in sent}
        assert requests == {parent for sent_key, parent in both.parents if sent_key == key}
    statuses = Counter(
        attribute.value.int_value
        for _, span in both.spans
        for attribute in span.attributes
        if attribute.key == "http.response.status_code"
    )
    assert statuses == {503: 1, 200: len(keys)}
