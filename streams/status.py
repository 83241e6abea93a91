"""The status page of a role, its metrics, its health and readiness, on Faust's web server."""

import html
from typing import Any

import faust
import orjson
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from streams import metrics
from streams.readiness import Readiness
from streams.unread import Unread
from topics.transport import App

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>spotstream {role}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ margin: 2rem auto; max-width: 46rem; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884 }}
td {{ font-variant-numeric: tabular-nums }}
</style>
<h1>spotstream {role}</h1>
<p id="state" role="status">{state}</p>
<table><caption>Partitions owned</caption>
<thead><tr><th>partition<th>position<th>behind</thead><tbody id="partitions"></tbody></table>
<table><caption>Counters since the start</caption><tbody id="counters"></tbody></table>
<script>
const row = cells => {{
  const tr = document.createElement("tr")
  for (const cell of cells) tr.appendChild(document.createElement("td")).textContent = cell
  return tr
}}
async function refresh() {{
  const state = document.getElementById("state")
  try {{
    const now = await (await fetch("?format=json")).json()
    state.textContent = now.state
    document.getElementById("partitions").replaceChildren(
      ...now.partitions.map(p => row([p.topic + " " + p.partition, p.position, p.lag])))
    document.getElementById("counters").replaceChildren(...Object.entries(now.counters).map(row))
  }} catch (error) {{ state.textContent = "the worker does not answer" }}
}}
refresh(); setInterval(refresh, 2000)
</script>
"""


def add_pages(app: App, role: str, unread: Unread) -> None:
    """Serve ``/metrics``, ``/health``, ``/ready``, and a page at ``/status/`` (numbers: ``?format=json``)."""
    readiness = Readiness(app, role)

    @app.page("/status/", name="status")
    async def status(view: Any, request: Any) -> Any:
        now = snapshot(app, role, unread)
        if request.query.get("format") == "json":
            return view.bytes(orjson.dumps(now), content_type="application/json")
        return view.html(_PAGE.format(role=html.escape(role), state=html.escape(now["state"])))

    @app.page("/metrics", name="metrics")
    async def prometheus(view: Any, request: Any) -> Any:  # noqa: ARG001 - the signature is Faust's
        snapshot(app, role, unread)
        return view.bytes(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.page("/health", name="health")
    async def health(view: Any, request: Any) -> Any:  # noqa: ARG001
        return _line(view, *readiness.alive())

    @app.page("/ready", name="ready")
    async def ready(view: Any, request: Any) -> Any:  # noqa: ARG001
        return _line(view, *await readiness.ready())


def _line(view: Any, fine: bool, told: dict[str, Any]) -> Any:
    body = orjson.dumps(told) + b"\n"
    return view.bytes(body, content_type="application/json", status=200 if fine else 503)


def snapshot(app: App, role: str, unread: Unread) -> dict[str, Any]:
    """What the page shows: state, owned partitions with position and lag, counters."""
    partitions = []
    metrics.POSITION.clear()
    metrics.LAG.clear()
    for owned in app.ownership.owned:
        topic, partition = owned.partition.topic, owned.partition.partition
        fetched = app.consumer.highwater(faust.types.TP(topic, partition)) or 0
        lag = max(0, fetched - owned.position, unread.ends.get(partition, 0) - owned.position)
        metrics.POSITION.labels(topic, partition).set(owned.position)
        metrics.LAG.labels(topic, partition).set(lag)
        partitions.append({"topic": topic, "partition": partition, "position": owned.position, "lag": lag})
    state = f"running, {len(partitions)} partitions" if partitions else "waiting for partitions"
    if not REGISTRY.get_sample_value("spotstream_breaker_closed"):
        state += "; the circuit breaker is open: Avstar fails, one batch now and then tries it"
    if held := metrics.held():
        state += f"; the flood guard holds {', '.join(held)}: nearly all is refused, see the log"
    return {"role": role, "state": state, "partitions": partitions, "counters": _counters()}


def _counters() -> dict[str, float]:
    return {
        f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value
        for family in REGISTRY.collect()
        if family.name.startswith("spotstream") and family.type == "counter"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
