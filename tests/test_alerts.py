"""Alert rules and dashboards: of metrics that exist, and each alert fires when it is to, and only then."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from flow import until
from test_metrics import documented, families, free_ports

ROOT = Path(__file__).parents[1] / "docker"
RULES, RULES_TEST = ROOT / "prometheus" / "alerts.yml", ROOT / "prometheus" / "alerts_test.yml"
DASHBOARDS = sorted((ROOT / "grafana").glob("*.json"))

#: What Prometheus and its client make by themselves.
GIVEN = {
    "up",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
}


def tool(name):
    """The path of one of Prometheus's programs, or the test is skipped."""
    if found := shutil.which(name):
        return found
    pytest.skip(f"no {name} here: install Debian's package prometheus")


def names(expression):
    """The metrics of a PromQL expression: what is no function, keyword, label, string or duration."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', " ", expression.replace("{{", "").replace("}}", ""))
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)
    return set(words) - {"and", "or", "unless", "bool", "offset"}


def plain(name):
    """A series' name without what a histogram adds."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def known(name, ours):
    """Whether a series of this name exists."""
    is_histogram = ours.get(plain(name), ("",))[0] == "histogram"
    return name in GIVEN or (is_histogram if plain(name) != name else name in ours and not is_histogram)


def rules():
    """All of them."""
    return yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


def expressions():
    """Every expression, with where it stands."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"]


def test_names_of_an_expression():
    assert names('sum by (le) (rate(a_b_bucket{c="d"}[5m])) / e > 1e6 and on (f) g or vector(0)') == {
        "a_b_bucket", "e", "g",
    }  # fmt: skip


def test_alerts_and_dashboards_use_metrics_that_exist():
    rows, ours = documented(), families()
    for where, expression in expressions():
        found = names(expression)
        assert found, where
        assert {name for name in found if not known(name, ours)} == set(), where
        assert {plain(name) for name in found} <= rows.keys() | GIVEN, where


def test_every_metric_is_on_a_dashboard():
    """One that nobody looks at is one too many."""
    shown = {name for where, expression in expressions() for name in names(expression)}
    assert set(families()) - {plain(name) for name in shown} == set()


def test_labels_of_expressions_exist():
    """A misspelt label selects nothing, and no tool says so."""
    labels = {label for _, of, _ in families().values() for label in of} | {"job", "instance", "le"}
    for where, expression in expressions():
        used = re.findall(r"[{,]\s*(\w+)\s*[=!]", expression)
        for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
            used += [label.strip() for label in group.split(",")]
        assert set(used) <= labels, where


def test_every_alert_is_tested_both_ways():
    fires, quiet = set(), set()
    for test in yaml.safe_load(RULES_TEST.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            (fires if one.get("exp_alerts") else quiet).add(one["alertname"])
    alerts = {rule["alert"] for rule in rules()}
    assert fires == alerts
    assert quiet == alerts


def test_every_alert_says_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "remedy"}


def promtool(*arguments):
    done = subprocess.run(
        [tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid():
    promtool("check", "rules", RULES)


def test_prometheus_takes_its_configuration():
    # Without the files that it names: the token is there only where it runs, the rules have their own test.
    promtool("check", "config", "--syntax-only", ROOT / "prometheus" / "prometheus.yml")


def test_alerts_fire_when_they_are_to():
    promtool("test", "rules", RULES_TEST)


def test_dashboards_have_valid_expressions(tmp_path):
    """Checked as if they were rules; Grafana's variables stand for durations."""
    recorded = [
        {"record": f"panel:{index}", "expr": re.sub(r"\$__\w+", "5m", expression)}
        for index, (_, expression) in enumerate(expressions())
    ]
    rules_file = tmp_path / "panels.yml"
    rules_file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", rules_file)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_are_laid_out(path):
    """Panels do not overlap, each says what it shows, and the data source is chosen by the reader."""
    dashboard = json.loads(path.read_text())
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


class Prometheus:
    """A real one that scrapes every second, with our rules."""

    def __init__(self, folder, targets):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "spotstream", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            tool("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with (folder / "prometheus.log").open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)

    def close(self):
        self._process.terminate()
        self._process.wait(20)

    def get(self, path, **query):
        """``data`` of an answer; {} while it does not answer."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())["data"]
        return {}

    def value(self, expression):
        """Of the only sample there; None where there is none."""
        found = self.get("query", query=expression).get("result", [])
        return float(found[0]["value"][1]) if found else None

    def firing(self):
        """Names of the alerts that wait or fire."""
        return {alert["labels"]["alertname"] for alert in self.get("alerts").get("alerts", [])}


@pytest.mark.broker
def test_a_real_prometheus_and_a_running_worker(flow, tmp_path):
    """It scrapes all three processes; its answers are what was booked; the breaker's alert starts."""
    tool("prometheus")
    port = free_ports(3)
    log = flow.log(6_000, seed=71, bad_rate=0.02)
    flow.start("worker", WORKER__WEB_PORT=port, BREAKER__MINIMUM_CALLS=2, BREAKER__OPEN_S=600)
    flow.start("tail", log.path, TAIL__METRICS_PORT=port + 2)
    prometheus = Prometheus(tmp_path, [f"127.0.0.1:{port + index}" for index in range(3)])
    try:
        until(lambda: prometheus.value('sum(up{job="spotstream"})') == 3)
        good = 6_000 - len(log.faults)
        until(lambda: prometheus.value('sum(spotstream_booked_records_total{state="new"})') == good)
        assert prometheus.value("sum(spotstream_tail_records_total)") == 6_000
        assert (
            prometheus.value("histogram_quantile(0.95, sum by (le) (spotstream_booking_seconds_bucket))") > 0
        )
        assert "SpotstreamBreakerOpen" not in prometheus.firing()
        states = {
            rule["name"]: rule["health"]
            for group in prometheus.get("rules").get("groups", [])
            for rule in group["rules"]
        }
        assert states == dict.fromkeys((rule["alert"] for rule in rules()), "ok")
        flow.faults({"kind": "status", "status": 503, "probability": 1})
        with log.path.open("ab") as stream:
            stream.write(flow.log(6_000, seed=72).path.read_bytes().partition(b"\n")[2])
        until(lambda: "SpotstreamBreakerOpen" in prometheus.firing())
    finally:
        prometheus.close()
        flow.faults()
        for process in flow._started:
            process.send_signal(signal.SIGTERM)
