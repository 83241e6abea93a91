"""Metrics: what a running flow tells is what happened, and the documents name each of them as it is."""

import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer
from flow import until
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from streams import metrics
from streams.lab.kafka import Broker
from streams.tail.meter import bounded
from topics import provision
from topics.connection import KafkaSettings
from topics.oldest import Oldest

DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"


def families():
    """Ours, by name as Prometheus shows them: type and labels."""
    found = {}
    for collector in (
        one for one in vars(metrics).values() if isinstance(one, (MetricWrapperBase, type(metrics.FILES)))
    ):
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ())
            found[name] = family.type, tuple(labels), family.documentation
    return found


def documented():
    """The rows of the tables: name → type, unit, labels, meaning."""
    rows = [
        line.strip("|").split("|")
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `spotstream_")
    ]
    return {name.strip(" `"): [cell.strip() for cell in cells] for name, *cells in rows}


def test_every_metric_is_documented_as_it_is():
    rows = documented()
    ours = families()
    assert rows.keys() == ours.keys()
    for name, (kind, labels, meaning) in ours.items():
        type_, unit, named, text = rows[name]
        assert (type_, re.findall(r"`(\w+)`", named), text) == (kind, list(labels), meaning), name
        for suffix in ("seconds", "bytes"):
            assert (f"_{suffix}" in name) == (unit == suffix), name


def test_nothing_is_in_the_registry_that_is_not_declared_there():
    names = {family.name for family in REGISTRY.collect() if family.name.startswith("spotstream_")}
    assert names == {name.removesuffix("_total") for name in families()}


def test_labels_are_bounded():
    """A field that no kind of record has comes from a file, and could be anything."""
    metrics.count_rejections([("invalid", "spot_id"), ("invalid", "made up"), ("invalid", "record_type")])
    fields = {sample.labels["field"] for family in metrics.REJECTIONS.collect() for sample in family.samples}
    assert {"spot_id", "record_type", ""} <= fields
    assert "made up" not in fields


def test_a_file_whose_name_is_no_text_spoils_nothing():
    metrics.FILES.show({"log-\udcff.csv": metrics.Progress(7, None)})
    try:
        (position, behind) = metrics.FILES.collect()
        assert [(s.labels["path"], s.value) for s in position.samples] == [("log-\\udcff.csv", 7)]
        assert not behind.samples
    finally:
        metrics.FILES.show({})


def test_only_so_many_files_are_shown():
    files = [(f"log-{number}", metrics.Progress(1000, number)) for number in range(250)]
    shown = bounded([*files, ("log.gz", metrics.Progress(5, None))])
    assert len(shown) == 101
    assert shown["log-249"] == (1000, 249)
    assert shown["others"] == (150 * 1000 + 5, sum(range(150)))


def get(url):
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Told:
    """What was scraped."""

    def __init__(self):
        self.samples = []

    def values(self, name, **labels):
        """Of all series with these labels."""
        return [
            value
            for of, have, value in self.samples
            if of == f"spotstream_{name}" and labels.items() <= have.items()
        ]

    def total(self, name, **labels):
        """Their sum; None where there are none."""
        return sum(found) if (found := self.values(name, **labels)) else None


def scrape(*urls):
    """All samples there, added up."""
    found = Told()
    for url in urls:
        _, text = get(url)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.samples.append((sample.name, sample.labels, sample.value))
    return found


def free_ports(count=2):
    """A port with as many free behind it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            try:
                for index in range(1, count):
                    socket.create_server(("127.0.0.1", port + index)).close()
            except OSError:
                continue
            return port


@pytest.mark.broker
def test_a_flow_is_told_as_it_was(flow):
    log = flow.log(12_000, seed=61, bad_rate=0.05)
    port = free_ports()
    validate, dispatch = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    flow.tail(log)
    flow.start("worker", WORKER__WEB_PORT=port)
    flow.settle()
    until(lambda: all(get(f"{url}/ready")[0] == 200 for url in (validate, dispatch)))
    bad = len(log.faults)
    batches = len(flow.batches())
    until(lambda: scrape(f"{dispatch}/metrics").total("batches_total", outcome="delivered") == batches)
    told = scrape(f"{validate}/metrics", f"{dispatch}/metrics")
    assert told.total("records_total", outcome="rejected") == bad
    assert told.total("records_total", outcome="accepted") == 12_000 - bad
    assert told.total("dead_letters_total", stage="validate", reason="invalid") == bad
    reasons = [(letter.reason, why["field"]) for _, letter, _ in flow.letters(log) for why in letter.reasons]
    for reason, field in set(reasons):
        assert told.total("rejections_total", reason=reason, field=field) == reasons.count((reason, field))
    assert told.total("booked_records_total", state="new") == 12_000 - bad
    for histogram in ("batch_seconds", "batch_attempts", "booking_seconds", "limiter_wait_seconds"):
        assert told.total(f"{histogram}_count") == batches
    assert told.total("batch_attempts_sum") == batches
    assert 0 < told.total("booking_seconds_sum") < 60 * batches
    assert told.total("requests_in_flight") == 0
    assert told.total("requests_limit") > 0


@pytest.mark.broker
def test_what_waits_is_told_while_avstar_is_down(flow):
    """How much, how old, and how long it is kept; though dispatch fetches nothing then."""
    port = free_ports()
    page = f"http://127.0.0.1:{port + 1}/metrics"
    flow.faults({"kind": "status", "status": 503, "probability": 1})
    worker = flow.start("worker", WORKER__WEB_PORT=port, BREAKER__MINIMUM_CALLS=2, BREAKER__OPEN_S=600)
    flow.tail(flow.log(6_000, seed=62))
    until(lambda: scrape(page).total("breaker_closed") == 0, timeout_s=100)

    def waiting(name):
        return scrape(page).values(name, topic="avstar.batches")

    def is_exact():
        return sum(waiting("lag")) == sum(flow._ends("avstar.batches").values()) - sum(waiting("position"))

    for seed in (63, 64):
        flow.tail(flow.log(6_000, seed=seed))
        until(lambda: not flow.behind("spotstream-validate", "avion.raw"))
        until(is_exact)
    assert sum(waiting("lag")) >= 12  # six batches, each with a marker
    until(lambda: waiting("unread_age_seconds"))
    week_s = 7 * 24 * 3600
    assert all(0 <= age < 120 for age in waiting("unread_age_seconds"))
    assert all(week_s - 120 < left <= week_s for left in waiting("retention_left_seconds"))
    flow.faults()
    worker.end(signal.SIGTERM)


@pytest.mark.broker
def test_the_oldest_unread_record(make_topic, broker):
    """Aborted records and markers are none; a partition that is read to its end has none."""
    topic = make_topic(partitions=3, config={"retention.ms": "5000000"})
    plain = Producer({"bootstrap.servers": broker.bootstrap})
    for partition, ms in ((0, 1_000), (0, 2_000), (1, 3_000)):
        plain.produce(topic, b"x", partition=partition, timestamp=ms)
    plain.flush()
    open_ = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic})
    open_.init_transactions()
    open_.begin_transaction()
    open_.produce(topic, b"x", partition=1, timestamp=4_000)
    open_.produce(topic, b"x", partition=2, timestamp=5_000)
    open_.flush()
    open_.abort_transaction()
    oldest = Oldest(KafkaSettings(bootstrap_servers=broker.bootstrap), topic)
    until(lambda: oldest.ends([0, 1, 2]) == {0: 2, 1: 3, 2: 2})  # markers come after the answer
    assert oldest.appended_ms({0: 0, 1: 0, 2: 0}) == {0: 1_000, 1: 3_000}
    assert oldest.appended_ms({0: 1, 1: 1}) == {0: 2_000}
    assert oldest.retention_s() == 5_000


@pytest.mark.broker
def test_health_and_readiness(flow, tmp_path):
    """Ready while it owns partitions and the broker answers; alive for as long as it runs."""
    port = free_ports()
    with Broker(tmp_path / "own") as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
        provision.apply(kafka)
        given = {"KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap, "WORKER__WEB_PORT": port - 1}
        worker = flow.start("worker", "--role", "dispatch", **given)
        until(lambda: get(f"http://127.0.0.1:{port}/ready")[0] == 200)
        status, line = get(f"http://127.0.0.1:{port}/ready")
        assert line.endswith("\n")
        assert orjson.loads(line) == {"status": "owning", "role": "dispatch", "partitions": 8}
        status, line = get(f"http://127.0.0.1:{port}/health")
        assert (status, orjson.loads(line)) == (200, {"status": "alive", "role": "dispatch"})
    until(lambda: get(f"http://127.0.0.1:{port}/ready")[0] == 503)
    assert orjson.loads(get(f"http://127.0.0.1:{port}/ready")[1])["status"] in {"unreachable", "joining"}
    assert get(f"http://127.0.0.1:{port}/health")[0] == 200
    worker.end(signal.SIGTERM)


@pytest.mark.broker
def test_a_tailer_tells_how_far_it_is(flow):
    log = flow.log(2_000, seed=64)
    whole = log.path.read_bytes()
    port = free_ports(1)
    page = f"http://127.0.0.1:{port}/metrics"
    tailer = flow.start("tail", log.path, TAIL__METRICS_PORT=port, TAIL__MAX_RECORD_BYTES=4096)
    until(lambda: scrape(page).values("tail_position_bytes", path=str(log.path)) == [len(whole)])
    told = scrape(page)
    assert told.values("tail_behind_bytes", path=str(log.path)) == [0]
    assert told.total("tail_records_total") == 2_000
    assert told.total("tail_bytes_total") == sum(map(len, log.records))
    assert told.total("tail_files") == 1
    assert told.total("tail_losses_total") == 0
    with log.path.open("ab") as stream:
        stream.write(b"x" * 9_000 + b"\nhalf")
    until(lambda: scrape(page).values("tail_behind_bytes", path=str(log.path)) == [4])
    assert scrape(page).total("dead_letters_total", stage="tail", reason="too_large") == 1
    tailer.popen.send_signal(signal.SIGSTOP)
    with log.path.open("ab") as stream:
        stream.write(b"what nobody reads\n")
    log.path.write_bytes(whole[:500])
    tailer.popen.send_signal(signal.SIGCONT)
    until(lambda: scrape(page).total("tail_losses_total") == 1)
    assert tailer.end(signal.SIGTERM) == 1


@pytest.mark.broker
def test_a_tailers_port_that_is_taken(flow):
    log = flow.log(10, seed=65)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = flow.run("tail", log.path, TAIL__METRICS_PORT=port)
    assert status == 2
    assert f"127.0.0.1:{port}" in said
    assert "tail.metrics_port" in said
