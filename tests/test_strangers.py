"""A stranger writes on the flow's topics: worker, page and every command survive, and the flow goes on."""

import json
import subprocess
from typing import Any, NamedTuple

import psutil
import pytest
import strangers
from flow import COMMAND, Flow
from strangers import Strange

from schemas.letter import DeadLetter
from topics.catalogue import BATCHES, CATALOGUE, CHECKPOINTS, DLQ, VALIDATED
from topics.reader import read_all

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

#: Small windows, and no guard: nearly everything here is wrong.
HASTE = {
    "BATCH__SECONDS": 0.2, "WORKER__SESSION_TIMEOUT_S": 6, "DLQ__FLOOD_SHARE": 1, "DLQ__FLOOD_REFUSED": 0,
    "DISPATCH__BACKOFF_CAP_S": 1,
}  # fmt: skip


class Said(NamedTuple):
    status: int
    out: str
    err: str


def say(flow: Flow, *arguments: str) -> Said:
    """What a command comes to; it must know what it says."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=flow.environment(),
        cwd=flow.folder,
        capture_output=True,
        check=False,
        timeout=120,
    )
    said = Said(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))
    assert "Traceback" not in said.err, (arguments, said)
    assert "spotstream: unexpected" not in said.err, (arguments, said)
    assert said.status in (0, 1), (arguments, said)
    return said


@pytest.fixture(scope="module")
def genuine(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Strange]:
    """The flow's own messages of every topic, letters of all sorts among them."""
    with Flow(lab, tmp_path_factory.mktemp("genuine")) as flow:
        log = flow.log(1500, seed=1)
        flow.start("worker", **HASTE, DISPATCH__GIVE_UP_AFTER_ATTEMPTS=2)
        flow.faults({"kind": "reject", "record_probability": 0.01}, seed=1)
        flow.tail(log)
        flow.settle()
        flow.faults({"kind": "status", "status": 503, "hashes": sorted(log.accepted)})
        flow.tail(flow.log(300, seed=2))
        flow.settle()
    return [Strange.of(message) for topic in CATALOGUE for message in read_all(flow.kafka, topic.name)]


def strange(genuine: list[Strange], count: int, seed: int) -> list[Strange]:
    """Without checkpoints, on which a test of its own puts something."""
    return strangers.messages([one for one in genuine if one.topic != CHECKPOINTS.name], count, seed)


def survives(flow: Flow, found: list[Strange], seed: int) -> None:
    """Put them there and have a log go through the midst of them; look at everything meanwhile."""
    worker = flow.start("worker", **HASTE)
    worker.wait_for('"started"', 2)
    roles = [role.pid for name in ("validate", "dispatch") if (role := worker.role(name))]
    strangers.put(flow.kafka.bootstrap_servers, found)
    log = flow.log(1000, seed=100 + seed, bad_rate=0.1)
    flow.tail(log)
    flow.settle(240)
    assert worker.popen.poll() is None
    assert [psutil.pid_exists(pid) for pid in roles] == [True, True], worker.said[-5000:]
    assert "Traceback" not in worker.said, worker.said[worker.said.find("Traceback") - 500 :][:5000]
    assert log.accepted <= flow.booked()
    assert max((flow.booked() & log.accepted).values()) == 1
    assert sum(place == str(log.path) for place in placed(flow)) == log.truth.bad
    worker.end(15)


def placed(flow: Flow) -> list[str]:
    """The files of the dead letters of records."""
    found = []
    for message in read_all(flow.kafka, DLQ.name):
        try:
            found.append(json.loads(message.value() or b"null")["place"]["path"])
        except (ValueError, TypeError, KeyError):
            continue
    return found


def newest(flow: Flow) -> dict[bytes, bytes | None]:
    """By key what lies on the topic of dead letters, as compaction leaves it."""
    return {message.key() or b"": message.value() for message in read_all(flow.kafka, DLQ.name)}


def test_a_damaged_message_leaves_the_letter_of_its_batch_alone(flow: Flow) -> None:
    log = flow.log(50, seed=4, bad_rate=0)
    flow.faults({"kind": "status", "status": 503, "hashes": sorted(log.accepted)})
    worker = flow.start("worker", **HASTE, DISPATCH__GIVE_UP_AFTER_ATTEMPTS=2)
    before = newest(flow)
    flow.tail(log)
    flow.settle()
    given_up = {key: value for key, value in newest(flow).items() if key not in before}
    assert given_up
    damaged = [Strange(BATCHES.name, key, b"damaged", [], 0) for key in given_up]
    strangers.put(flow.kafka.bootstrap_servers, damaged)
    flow.settle()
    assert worker.end(15) == 0
    after = newest(flow)
    assert {key: after[key] for key in given_up} == given_up
    added = [DeadLetter.load(value) for key, value in after.items() if key not in before | given_up]
    assert {letter.idempotency_key.encode() for letter in added} == given_up.keys()
    assert {(letter.reason, letter.original) for letter in added} == {("malformed", b"damaged")}


def test_the_flow_goes_on_among_strange_messages(flow: Flow, genuine: list[Strange]) -> None:
    survives(flow, strange(genuine, 1000, seed=1), seed=1)


def test_every_command_reads_past_them(flow: Flow, genuine: list[Strange]) -> None:
    strangers.put(flow.kafka.bootstrap_servers, strange(genuine, 500, seed=2))
    audit = say(flow, "audit", "--json")
    assert json.loads(audit.out)["records"] > 0
    assert "a message is passed over that is not spotstream's" in audit.err
    say(flow, "audit")
    say(flow, "dlq", "list")
    lines = say(flow, "dlq", "list", "--json").out
    assert lines.isascii()  # nothing that a terminal would obey, or a reader take for the end of a line
    listed = [json.loads(line) for line in lines.splitlines()]
    assert {"unreadable", "invalid", "rejected"} <= {one["reason"] for one in listed}
    say(flow, "dlq", "list", "--older", "0s", "--newer", "1d", "--file", "x.csv")
    for reason in sorted({one["reason"] for one in listed}):
        key = next(one["key"] for one in listed if one["reason"] == reason)
        if key.isprintable():
            say(flow, "dlq", "show", key)
            shown = say(flow, "dlq", "show", key, "--json").out
            assert all(letter.isprintable() or letter in "\n\t" for letter in shown)
    for kind in VALIDATED:
        read = say(flow, "subscribe", kind)
        assert all(json.loads(line)["placement_hash"] for line in read.out.splitlines())
        assert "left out what is no record of ours" in read.err
    say(flow, "replay", "--since", "1d", "--dry-run")
    say(flow, "dlq", "redrive", "--all", "--dry-run")
    assert " went to dispatch: " in say(flow, "dlq", "redrive", "--all").out
    say(flow, "topics", "plan")
    say(flow, "doctor")


def test_letters_under_any_key_are_discarded(flow: Flow) -> None:
    """Under the bytes that their keys are, text or not."""
    keys = {b"STRANGER": "STRANGER", b"\xff\xfe": r"\xff\xfe", b"\xef\xbf\xbd": "\ufffd", b"\xfe": r"\xfe"}
    strangers.put(flow.kafka.bootstrap_servers, [Strange(DLQ.name, key, b"[]") for key in keys])
    assert set(keys.values()) <= {letter["key"] for letter in flow.listed()}
    for key, typed in keys.items():
        assert say(flow, "dlq", "show", typed, "--json").out == "[]\n"
        assert say(flow, "dlq", "discard", typed, "--why", "a stranger's").status == 0
        assert newest(flow)[key] is None


def test_a_strange_checkpoint_stops_the_tailer_with_a_word(flow: Flow) -> None:
    """To read past it could publish a file twice; its end is a message without a value."""
    log = flow.log(10, seed=3)
    for key, value in ((b"stranger", b"[]"), (b"\xff", b'{"position": -1}'), (b"tailer:x", b"{}")):
        strangers.put(flow.kafka.bootstrap_servers, [Strange(CHECKPOINTS.name, key, value)])
        status, said = flow.run("tail", log.path, "--once")
        assert status == 1, said
        assert f"{key!r} is no checkpoint of spotstream's" in said
        assert "Traceback" not in said
        strangers.put(flow.kafka.bootstrap_servers, [Strange(CHECKPOINTS.name, key, None)])
    flow.tail(log)
