"""Kafka behind TLS, SASL and ACLs: each way in, by both libraries, and each command with what it needs."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiokafka
import pytest
import trustme
from confluent_kafka.admin import AclOperation, AdminClient, ResourcePatternType, ResourceType
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from flow import Flow, until
from secured import (
    CLIENT_SECRET,
    PLAIN_PASSWORD,
    REAUTHENTICATED_MS,
    SCRAM_PASSWORD,
    Acl,
    Pems,
    SecuredBroker,
    TokenServer,
)

from streams.lab.up import Lab
from topics.admin import Admin
from topics.catalogue import MAKEGOODS, RAW
from topics.connection import KafkaSettings
from topics.transport import credentials

pytestmark = pytest.mark.broker

_PAGE = Path(__file__).parents[1] / "docs" / "security.md"
_ROW = re.compile(r"^\| (.*?) ?\| (topic|group|transactional id)s? (`.+?`) \| (.+?) \|$", re.MULTILINE)
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {operation.name.replace("_", "").lower(): operation for operation in AclOperation}


def listed() -> dict[str, list[Acl]]:
    """The page's table: what each command needs."""
    found: dict[str, list[Acl]] = {}
    commands: list[str] = []
    for named, kind, names, operations in _ROW.findall(_PAGE.read_text(encoding="utf-8")):
        commands = re.findall(r"`(.+?)`", named) or commands
        acls = [
            Acl(
                _RESOURCES[kind],
                name.removesuffix("*"),
                ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL,
                _OPERATIONS[operation.lower()],
            )
            for name in re.findall(r"`(.+?)`", names)
            for operation in operations.split(", ")
        ]
        for command in commands:
            found.setdefault(command, []).extend(acls)
    return found


ACLS = listed()

#: A command, what it lacks, and what it has to say about that.
LACKING = [
    ("tail", (RAW.name, AclOperation.WRITE), "is not allowed to write to avion.raw"),
    ("tail", ("spotstream-tail-", AclOperation.WRITE), "transactional id of spotstream-tail-tail"),
    ("subscribe", ("avion.validated.", AclOperation.READ), "topic avion.validated.spots"),
    ("audit", ("avstar.receipts", AclOperation.READ), "topic avstar.receipts"),
    ("replay", ("spotstream-dispatch", AclOperation.DESCRIBE), "group spotstream-dispatch"),
    ("topics plan", ("avion.", AclOperation.DESCRIBE), "topic avion."),
    (
        "worker --role validate",
        ("spotstream-validate", AclOperation.READ),
        "group spotstream-validate",
    ),
    ("worker --role validate", ("avstar.batches", AclOperation.WRITE), "write to avstar.batches"),
]
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "subscribe": ("spot",),
    "replay": ("--since", "1h"),
    "topics apply": ("--allow", "partitions"),
    "doctor": ("--timeout", "20"),
}


class Secured:
    """The lab on a broker that demands credentials, and the settings that have them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca, self.tokens = folder, trustme.CA(), TokenServer()
        self.lab = Lab(folder / "lab")
        self.broker = SecuredBroker(folder / "lab" / "kafka", self.ca, self.tokens)
        self.lab.brokers = [self.broker]

    def settings(self, user: str, protocol: str = "SASL_SSL", way: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """The ``kafka`` section for ``user``."""
        pems = Pems.written(self.ca, self.folder, user)
        given: dict[str, Any] = {
            "bootstrap_servers": getattr(self.broker, protocol.lower()),
            "security_protocol": protocol,
            "timeout_s": 20,
        }
        if protocol.endswith("SSL"):
            given["ssl_cafile"] = pems.authority
        if protocol == "SSL":
            return given | {"ssl_certfile": pems.client}
        given["sasl_mechanism"] = way
        if way == "OAUTHBEARER":
            return given | {
                "oauth_token_url": self.tokens.url,
                "oauth_client_id": user,
                "oauth_client_secret": CLIENT_SECRET,
            }
        password = PLAIN_PASSWORD if way == "PLAIN" else SCRAM_PASSWORD
        return given | {"sasl_username": user, "sasl_password": password}

    def environment(self, user: str, *way: str) -> dict[str, Any]:
        return {f"KAFKA__{name.upper()}": value for name, value in self.settings(user, *way).items()}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("secured"))
    with made.lab:
        for command, acls in ACLS.items():
            made.broker.allow(command, acls)
        made.broker.add_users(*ACLS, "scram")
        anything = [Acl(ResourceType.TOPIC, RAW.name, ResourcePatternType.LITERAL, AclOperation.READ)]
        for user in ("plain", "scram", "oauth", "certified"):
            made.broker.allow(user, anything)
        yield made
    made.tokens.close()


@pytest.fixture(scope="module")
def lab(secured: Secured) -> Lab:
    return secured.lab


def test_the_page_lists_every_command_that_reaches_kafka() -> None:
    assert set(ACLS) == {
        "tail", "worker --role validate", "worker --role dispatch", "subscribe", "audit", "replay", "doctor",
        "dlq list", "dlq show", "dlq redrive", "dlq discard", "topics plan", "topics apply",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("user", "protocol", "way"),
    [
        ("plain", "SASL_SSL", "PLAIN"),
        ("scram", "SASL_SSL", "SCRAM-SHA-256"),
        ("scram", "SASL_SSL", "SCRAM-SHA-512"),
        ("oauth", "SASL_SSL", "OAUTHBEARER"),
        ("scram", "SASL_PLAINTEXT", "SCRAM-SHA-512"),
        ("oauth", "SASL_PLAINTEXT", "OAUTHBEARER"),
        ("certified", "SSL", ""),
    ],
)
async def test_both_libraries_get_in(secured: Secured, user: str, protocol: str, way: str) -> None:
    kafka = KafkaSettings(**secured.settings(user, protocol, way))
    assert RAW.name in (await asyncio.to_thread(Admin(kafka).topics))
    auth = credentials_to_aiokafka_auth(credentials(kafka))  # as Faust gives them to its consumer
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, **auth)
    try:
        await consumer.start()
        assert set(await consumer.topics()) == {RAW.name}
    finally:
        await consumer.stop()


@pytest.mark.parametrize(
    ("user", "protocol", "way", "wrong", "said"),
    [
        ("scram", "SASL_SSL", "SCRAM-SHA-512", {"SASL_PASSWORD": "guessed"}, "invalid credentials"),
        ("oauth", "SASL_SSL", "OAUTHBEARER", {"OAUTH_CLIENT_SECRET": "guessed"}, "invalid_client"),
        ("certified", "SSL", "", {"SSL_CAFILE": "other.pem"}, "certificate verify failed"),
        ("certified", "SSL", "", {"SSL_CERTFILE": "other.pem", "SSL_KEYFILE": "key.pem"}, "SSL"),
    ],
)
def test_who_is_not_believed_is_told_why_at_once(
    flow: Flow, secured: Secured, user: str, protocol: str, way: str, wrong: dict[str, str], said: str
) -> None:
    other = trustme.CA()
    (flow.folder / "other.pem").write_bytes(other.cert_pem.bytes())
    if "SSL_KEYFILE" in wrong:
        stranger = other.issue_cert("stranger.example")
        (flow.folder / "other.pem").write_bytes(stranger.cert_chain_pems[0].bytes())
        (flow.folder / "key.pem").write_bytes(stranger.private_key_pem.bytes())
    given = secured.environment(user, protocol, way) | {
        f"KAFKA__{name}": value for name, value in wrong.items()
    }
    begin = time.monotonic()
    status, stderr = flow.run("topics", "plan", **given)
    assert status == 1
    (line,) = stderr.splitlines()
    assert said in line
    assert "guessed" not in line
    assert time.monotonic() - begin < 15  # kafka.timeout_s and a start


@pytest.mark.timeout(400)
def test_every_command_needs_no_more_than_is_listed(flow: Flow, secured: Secured) -> None:
    def run(command: str, *arguments: object, way: tuple[str, ...] = ()) -> None:
        given = secured.environment(command, *way)
        status, said = flow.run(*command.split(), *(arguments or ARGUMENTS.get(command, ())), **given)
        assert status == 0, f"{command}: {said}"

    run_into_drift(secured)
    given = secured.environment("topics apply") | {"KAFKA__PARTITIONS": 9}
    assert flow.run("topics", "apply", "--allow", "partitions", **given)[0] == 0
    assert flow.run("topics", "plan", **secured.environment("topics plan") | {"KAFKA__PARTITIONS": 9})[0] == 0
    # Each by another way in; each connection is closed and proven anew while records flow.
    ways = {"validate": ("SASL_SSL", "OAUTHBEARER"), "dispatch": ("SASL_PLAINTEXT", "SCRAM-SHA-256")}
    workers = [
        flow.start(
            *(command := f"worker --role {role}").split(),
            **secured.environment(command, *way),
            BATCH__SECONDS=0.2,
        )
        for role, way in ways.items()
    ]
    log = flow.log(200, seed=5, bad_rate=0.1)
    run("tail", log.path, "--once", way=("SSL",))
    flow.settle(120)
    time.sleep(1.5 * REAUTHENTICATED_MS / 1000)  # it is the broker's clock that closes them
    later = flow.log(200, seed=6, bad_rate=0.1)
    run("tail", later.path, "--once", way=("SSL",))
    flow.settle(120)
    until(lambda: flow.audit()[0] == 0)
    flow.check(later)
    letters = [key for key, letter, _ in flow.letters() if letter.reason == "invalid"]
    for command in ("audit", "subscribe", "dlq list", "replay", "doctor"):
        run(command)
    good = next(verdict for verdict in later.verdicts if verdict.placement_hash)
    (flow.folder / "mended").write_bytes(later.records[later.verdicts.index(good)])
    run("dlq redrive", letters[1], "--edit", flow.folder / "mended")
    run("dlq show", letters[0])
    run("dlq discard", letters[0], "--why", "a test")
    assert [worker.popen.poll() for worker in workers] == [None, None]


def run_into_drift(secured: Secured) -> None:
    """A topic is missing, and one has too few bytes a message: for `topics apply` to do."""
    admin = AdminClient({"bootstrap.servers": secured.broker.bootstrap})
    admin.delete_topics([MAKEGOODS.name])[MAKEGOODS.name].result(15)
    until(lambda: MAKEGOODS.name not in admin.list_topics(timeout=15).topics)


@pytest.mark.parametrize(("command", "lacking", "said"), LACKING)
def test_what_is_not_allowed_is_named(
    flow: Flow, secured: Secured, command: str, lacking: tuple[str, AclOperation], said: str
) -> None:
    acls = [acl for acl in ACLS[command] if (acl.name, acl.operation) != lacking]
    assert len(acls) == len(ACLS[command]) - 1
    if lacking == (RAW.name, AclOperation.WRITE):  # which includes Describe, and that it has
        acls.append(Acl(ResourceType.TOPIC, RAW.name, ResourcePatternType.LITERAL, AclOperation.DESCRIBE))
    user = f"{command} without {lacking[0]}"
    secured.broker.add_users(user)
    secured.broker.allow(user, acls)
    log = flow.log(20, seed=9)
    arguments = (log.path, "--once") if command == "tail" else ARGUMENTS.get(command, ())
    if command.startswith("worker"):
        assert flow.run("tail", log.path, "--once", **secured.environment("tail"))[0] == 0
    status, stderr = flow.run(*command.split(), *arguments, **secured.environment(user), timeout_s=60)
    assert status in (1, 3)
    assert said in stderr
    assert not [line for line in stderr.splitlines() if line.startswith("Traceback")]
