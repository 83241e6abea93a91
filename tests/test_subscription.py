"""Subscribing: what was committed, decoded, and nothing else; for programs and as lines on stdout."""

import asyncio
import copy
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fastavro
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from flow import COMMAND, Flow, until
from structlog.testing import capture_logs
from test_codec import SPOT, as_logical
from validated import CELLS, Validated, judged, message, spots

from schemas.codec import schema
from schemas.errors import Unreachable, UsageError
from schemas.records import KINDS, Kind, Valid
from schemas.registry import RegistrySettings
from streams.lab.up import Lab
from streams.settings import Settings
from streams.subscription import Record, chunks, subscribe
from topics.catalogue import SPOTS

broker_needed = pytest.mark.broker


@pytest.fixture
def topics(lab: Lab) -> Validated:
    return Validated(lab)


def read(topics: Validated, kind: str, **options: object) -> list[Record]:
    return [record for chunk in chunks(topics.settings, kind, **options) for record in chunk]


def since(topics: Validated) -> datetime:
    """A moment that lies between all that is on the topics and all that will be."""
    time.sleep(0.01)
    now = datetime.now(UTC)
    time.sleep(0.01)
    return now


def bodies(records: list[Record]) -> list[tuple[object, str, bytes]]:
    return [(one.record, one.placement_hash, one.key.encode()) for one in records]


def expected(records: list[Valid]) -> list[tuple[object, str, bytes]]:
    return [(one.record, one.placement_hash, one.key) for one in records]


@broker_needed
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_read_as_it_was_validated(topics: Validated, kind: Kind) -> None:
    begin, records = since(topics), judged([CELLS[kind], CELLS[kind] | {"station": "KXYZ-TV"}])
    topics.publish(records, partition=1)
    for name in (kind, f"{kind}s", kind.upper()):
        found = read(topics, name, since=begin)
        assert bodies(found) == expected(records)
        assert [one.partition for one in found] == [1, 1]
        assert found[1].offset == found[0].offset + 1
        assert all(begin <= one.timestamp <= datetime.now(UTC) for one in found)


@broker_needed
def test_it_ends_where_it_began_and_leaves_out_what_was_aborted(topics: Validated) -> None:
    begin = since(topics)
    kept, aborted, later = spots(3), spots(3), spots(1)
    topics.publish(kept)
    topics.publish(aborted, commit=False)  # the log ends with a marker, after records that are none
    reading = chunks(topics.settings, "spot", since=begin)
    found = next(reading)
    topics.publish(later)
    found += [record for chunk in reading for record in chunk]
    assert bodies(found) == expected(kept)
    assert bodies(read(topics, "spot", since=begin)) == expected([*kept, *later])


@broker_needed
def test_since_leaves_out_what_is_older_and_may_be_later_than_all(topics: Validated) -> None:
    old, begin = spots(2), datetime.now(UTC)
    topics.publish(old, partition=2)
    between = since(topics)
    young = spots(2)
    topics.publish(young, partition=2)
    topics.publish(young, partition=3)
    assert bodies([one for one in read(topics, "spot", since=begin) if one.partition == 2]) == expected(
        old + young
    )
    assert bodies(read(topics, "spot", since=between)) == expected(young + young)
    assert read(topics, "spot", since=datetime.now(UTC) + timedelta(days=1)) == []
    everything = read(topics, "spot")
    assert bodies(everything)[: len(everything)] == bodies(
        read(topics, "spot", since=datetime(1960, 1, 1, tzinfo=UTC))
    )


@broker_needed
async def test_following_gives_what_comes_also_from_new_partitions(topics: Validated) -> None:
    begin, first, second, third = since(topics), spots(2), spots(2), spots(2)
    admin = AdminClient(topics.kafka.confluent())
    topics.publish(first)
    async with aclosing(subscribe(topics.settings, "spot", since=begin, follow=True)) as records:
        assert bodies([await anext(records) for _ in first]) == expected(first)
        await asyncio.to_thread(topics.publish, second, 1)
        assert bodies([await anext(records) for _ in second]) == expected(second)
        count = len(admin.list_topics(SPOTS.name, timeout=15).topics[SPOTS.name].partitions)
        admin.create_partitions([NewPartitions(SPOTS.name, count + 1)])[SPOTS.name].result(15)
        await asyncio.to_thread(topics.publish, third, count)
        assert bodies([await asyncio.wait_for(anext(records), 20) for _ in third]) == expected(third)


@broker_needed
async def test_a_subscription_that_is_cancelled_ends(topics: Validated) -> None:
    async def read_on() -> None:
        async with aclosing(subscribe(topics.settings, "spot", since=since(topics), follow=True)) as records:
            async for _ in records:
                pass

    reading = asyncio.create_task(read_on())
    await asyncio.sleep(1)  # long enough to be waiting for records
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, 5)


@broker_needed
def test_values_that_are_not_ours_are_told_and_left_out(topics: Validated) -> None:
    begin, records = since(topics), spots(2)
    ours = message(topics.codec(), records[0])
    (avail,) = judged([CELLS["avail"]])
    foreign = [
        {"value": None},
        {"value": b'{"spot_id": "SP-1"}'},
        {"value": b"\0\x7f\xff\xff\xff" + records[0].avro},  # an id that the registry has not given
        message(topics.codec("avail"), avail),
        {"value": ours["value"][:-5]},
        {"value": ours["value"] + b"x"},
    ]
    messages = [message(topics.codec(), records[0]), *foreign, message(topics.codec(), records[1])]
    topics.write([(SPOTS.name, one) for one in messages])
    with capture_logs() as said:
        found = read(topics, "spot", since=begin)
    assert bodies(found) == expected(records)
    assert [(one["topic"], one["partition"], one["offset"]) for one in said] == [
        (SPOTS.name, 0, found[0].offset + 1 + index) for index in range(len(foreign))
    ]
    reasons = [one["why"] for one in said]
    for part, why in zip(
        ("framed", "framed", "2147483647", "spot", "spot", "more bytes"), reasons, strict=True
    ):
        assert part in why, reasons


@broker_needed
def test_records_of_another_version_are_read_as_ours(topics: Validated) -> None:
    """A later version has added a field, and an earlier one had not an optional one of ours."""
    begin, (record,) = since(topics), spots(1)
    other = copy.deepcopy(schema("spot"))
    other["fields"] = [field for field in other["fields"] if field["name"] != "revision"]
    other["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
    number = topics.registry.register(SPOTS.name, other)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(other), as_logical(record) | {"later": "x"})
    value = b"\0" + number.to_bytes(4) + written.getvalue()
    topics.write([(SPOTS.name, {"key": record.key, "value": value})])
    topics.publish([record])
    assert bodies(read(topics, "spot", since=begin)) == expected([record, record])


@broker_needed
def test_a_registry_that_is_away_is_no_reason_to_leave_records_out(topics: Validated) -> None:
    begin = since(topics)
    topics.publish(spots(1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        away = Settings(kafka=topics.kafka, registry=RegistrySettings(url=url, timeout_s=1))
        with pytest.raises(Unreachable, match="no schema registry answers"):
            list(chunks(away, "spot", since=begin))


def test_a_kind_that_there_is_not_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="promo: no such kind of record; one of spot, avail"):
        chunks(Settings(), "promo")


def lines(flow: Flow, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "subscribe", *arguments],
        env=flow.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@broker_needed
def test_the_command_prints_a_json_line_for_each(flow: Flow, topics: Validated) -> None:
    begin, records = since(topics), spots(2000)
    topics.publish(records, partition=4)
    topics.write([(SPOTS.name, {"value": b"foreign"})], partition=5)
    done = lines(flow, "spots", "--since", begin.isoformat())
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    where = [line.pop("kafka") for line in printed]
    assert printed == [one.record | {"placement_hash": one.placement_hash} for one in records]
    assert [place["key"].encode() for place in where] == [one.key for one in records]
    assert {place["partition"] for place in where} == {4}
    assert [place["offset"] for place in where] == list(range(where[0]["offset"], where[0]["offset"] + 2000))
    assert all(begin <= datetime.fromisoformat(place["timestamp"]) for place in where)
    (warning,) = done.stderr.splitlines()
    assert '"partition": 5' in warning
    assert SPOTS.name in warning


@broker_needed
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_follows_until_a_signal(flow: Flow, topics: Validated, number: int) -> None:
    begin, records = since(topics), spots(2)
    following = flow.start("subscribe", "spot", "--since", begin.isoformat(), "--follow")
    for record in records:
        topics.publish([record])
        following.wait_for(record.key.decode())
    assert following.end(number, 5) == 0
    assert [json.loads(line)["spot_id"].encode() for line in following.said.splitlines()] == [
        one.key for one in records
    ]


@broker_needed
@pytest.mark.parametrize("follow", [False, True])
def test_the_command_ends_quietly_when_nobody_reads_on(flow: Flow, topics: Validated, follow: bool) -> None:
    begin = since(topics)
    topics.publish(spots(3 if follow else 5000))
    command = [*COMMAND, "subscribe", "spot", "--since", begin.isoformat(), *(["--follow"] if follow else [])]
    with subprocess.Popen(command, env=flow.environment(), stdout=-1, stderr=-1) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(15) == 0
        assert process.stderr.read() == b""


@broker_needed
def test_the_docs_commands_do_as_they_say(flow: Flow, topics: Validated, tmp_path: Path) -> None:
    """Run as written; the one that follows is ended."""
    if not shutil.which("jq"):
        pytest.skip("jq is not on this machine")
    doc = (Path(__file__).parent.parent / "docs" / "subscribing.md").read_text("utf-8")
    once, following = re.findall(r"^\$ (spotstream subscribe .*)$", doc, re.MULTILINE)
    (spot,), (makegood,) = spots(1), judged([CELLS["makegood"]])
    (missed,) = judged([SPOT | {"spot_id": f"{spot.key.decode()}-M", "clearance": "missed"}])
    topics.publish([spot, missed])
    environment = flow.environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(["sh", "-c", once], env=environment, capture_output=True, check=True, timeout=60)
    assert missed.key in done.stdout.splitlines()
    assert spot.key not in done.stdout.splitlines()
    said = tmp_path / "said"
    with said.open("wb") as output, subprocess.Popen(
        ["sh", "-c", f"exec {following}"], env=environment, stdout=output
    ) as process:  # fmt: skip

        def printed() -> bool:
            topics.publish([makegood])  # until it has begun, what is written is older than it
            return said.stat().st_size > 0

        try:
            until(printed, 30, every_s=0.5)
        finally:
            process.terminate()
    assert process.returncode == 0
    assert json.loads(said.read_text().splitlines()[0])["placement_hash"] == makegood.placement_hash


@broker_needed
def test_the_command_says_what_is_wrong(flow: Flow) -> None:
    for arguments, status, said in (
        (["promo"], 2, "promo: no such kind of record"),
        (["spot", "--since", "yesterday"], 2, "--since yesterday: not a moment"),
    ):
        done = lines(flow, *arguments)
        assert (done.returncode, done.stdout) == (status, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
