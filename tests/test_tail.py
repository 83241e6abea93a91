"""The tailer on a real broker, mostly as a process of its own: each line once, whatever happens."""

import gzip
import os
import random
import shutil
import threading
import time
from base64 import b64decode
from pathlib import Path

import orjson
import pytest
from confluent_kafka import KafkaException, Producer
from tailing import HEADER, Follower, Tail, line, lines, stop, until, whole

from schemas.descriptor import Descriptor
from schemas.errors import Problem
from schemas.profile import load
from streams.formats.framing import HEAD
from streams.lab.kafka import Broker
from streams.tail import checkpoint
from streams.tail.checkpoint import Checkpoint, State
from streams.tail.publisher import Publisher
from streams.tail.round import Round
from streams.tail.source import OpenFile, Source
from topics.catalogue import CHECKPOINTS, DLQ, FILES, RAW
from topics.reader import read_all

pytestmark = pytest.mark.broker


def test_a_file_is_published_byte_for_byte(tail: Tail) -> None:
    """BOM, comments, blank lines, mixed line ends, line breaks in quotes, no line end at the end."""
    path = tail.folder / "log.csv"
    multi = line(3, b'"Acme,\r\n# Widgets\n\n"')
    data = b"\xef\xbb\xbf# Avion\n\n" + HEADER[:-1] + b"\r\n" + line(1)[:-1] + b'\r\n# a "comment\n\r\n'
    data += line(2) + multi + line(4, b'"open') + line(5)[:-1]
    path.write_bytes(data)
    assert tail.once(path)[0] == 0
    records = tail.published(path)
    expected = [line(1)[:-1] + b"\r\n", line(2), multi, line(4, b'"open'), line(5)[:-1]]
    assert [value for _, value in records] == expected
    assert whole(records, size=len(data))
    assert all(data[key.offset :].startswith(value) for key, value in records)
    descriptor = next(
        Descriptor.load(m.value())
        for m in read_all(tail.kafka, FILES.name)
        if m.key() == records[0][0].descriptor
    )
    assert descriptor.header == tuple(HEADER.decode().strip().split(","))
    assert (descriptor.encoding, descriptor.format) == ("utf-8", "csv")
    known = checkpoint.read(tail.kafka).files[descriptor.identity]
    assert (known.records, known.position, known.path) == (5, len(data), str(path))
    assert known.skipped == len(data) - sum(map(len, expected))
    assert tail.once(path)[0] == 0
    assert len(tail.values(path)) == 5


def test_a_growing_file_is_followed_and_its_unfinished_line_held(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(b"")
    process = tail.start(path)
    with path.open("ab", buffering=0) as log:
        log.write(HEADER[:30])
        time.sleep(0.3)
        log.write(HEADER[30:] + line(1) + line(2)[:20])
        until(lambda: tail.values(path) == [line(1)])
        log.write(line(2)[20:] + b'SPOT,"half\n')
        until(lambda: tail.values(path) == [line(1), line(2)])
        log.write(b'of it",' + line(3))
        until(lambda: len(tail.values(path)) == 3)
        log.write(line(4)[:-1])
    stop(process)
    assert tail.values(path) == [line(1), line(2), b'SPOT,"half\nof it",' + line(3)]
    with path.open("ab") as log:
        log.write(b"\n" + line(5))
    assert tail.once(path)[0] == 0
    assert tail.values(path)[3:] == [line(4), line(5)]
    assert whole(tail.published(path), size=path.stat().st_size)


@pytest.mark.parametrize("partitioning", ["file", "block"])
def test_killed_at_random_moments_each_line_arrives_once(tail: Tail, partitioning: str) -> None:
    """SIGKILL ten times, while it catches up with a file that grows."""
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER)
    chance = random.Random(partitioning)
    written, part = 0, 1000
    settings = {"TAIL__BLOCK_BYTES": "16384", "TAIL__PARTITIONING": partitioning}
    for _ in range(10):
        process = tail.start(path, **settings)
        assert '"event": "file ' in process.stderr.readline()  # it begins to publish
        begin, alive_s = time.monotonic(), chance.uniform(0.02, 0.8)
        while time.monotonic() - begin < alive_s:
            with path.open("ab") as log:
                data = b"".join(lines(written, written + part))
                cut = chance.randrange(len(data))
                log.write(data[:cut])
                log.flush()
                time.sleep(chance.uniform(0, 0.1))
                log.write(data[cut:])
            written += part
        process.kill()
        process.wait()
    assert tail.once(path, **settings)[0] == 0
    records = tail.published(path)
    assert [value for _, value in records] == lines(0, written)
    assert whole(records, size=path.stat().st_size)
    assert len({key.descriptor for key, _ in records}) == 1


def test_blocks_spread_over_all_partitions(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + b"".join(lines(0, 5000)))
    assert tail.once(path, TAIL__PARTITIONING="block", TAIL__BLOCK_BYTES="4096")[0] == 0
    assert tail.values(path) == lines(0, 5000)
    descriptor = tail.published(path)[0][0].descriptor
    partitions = {m.partition() for m in read_all(tail.kafka, RAW.name) if m.key()[:16] == descriptor}
    assert partitions == set(range(RAW.partitions))


def test_a_second_tailer_of_the_name_ends_the_first(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(1))
    first = tail.start(path)
    until(lambda: tail.values(path) == [line(1)])
    second = tail.start(path)
    with path.open("ab", buffering=0) as log:
        for number in range(2, 500):
            log.write(line(number))
            time.sleep(0.005)
            if first.poll() is not None:
                break
        log.write(line(number + 1))
    _, said = first.communicate(timeout=10)
    assert first.returncode == 1
    assert f"another tailer named {tail.name} took over" in said
    until(lambda: len(tail.values(path)) == number + 1)
    stop(second)
    assert tail.values(path) == lines(1, number + 2)


def test_another_tailer_takes_a_file_over_by_fencing_its_owner(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(1))
    first = tail.start(path)
    until(lambda: tail.values(path) == [line(1)])
    (claim,) = {claim for name, claim in checkpoint.read(tail.kafka).claims.items() if name == tail.name}
    second = tail.start(path, TAIL__NAME=f"{tail.name[-50:]}-other")
    until(lambda: checkpoint.read(tail.kafka).claims[tail.name] != claim)
    with path.open("ab") as log:
        log.write(line(2))
    _, said = first.communicate(timeout=15)
    assert first.returncode == 1
    assert "took over" in said
    until(lambda: tail.values(path) == lines(1, 3))
    stop(second)
    assert tail.values(path) == lines(1, 3)


def test_the_broker_away_and_back(kafka: Broker, tail: Tail) -> None:
    """Killed with a transaction open; longer away than one may be open."""
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(0))
    process = tail.start(path, TAIL__TRANSACTION_TIMEOUT_S="2")
    until(lambda: tail.values(path) == [line(0)])
    written = 1
    with path.open("ab", buffering=0) as log:
        for kill_at in range(20):
            log.write(b"".join(lines(written, written + 200)))
            written += 200
            time.sleep(0.03)
            if kill_at == 10:
                kafka.kill()
    time.sleep(3)
    kafka.start()
    assert tail.values(path)[:1] == [line(0)]  # one that has just started is there
    until(lambda: len(tail.values(path)) >= written, 60)
    said = stop(process)
    assert tail.values(path) == lines(0, written)
    assert whole(tail.published(path), size=path.stat().st_size), said


def test_a_stop_while_the_broker_is_away(kafka: Broker, tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(0))
    process = tail.start(path)
    until(lambda: tail.values(path) == [line(0)])
    kafka.stop()
    try:
        with path.open("ab") as log:
            log.write(line(1))
        time.sleep(1)
        stop(process)
        status, _ = tail.once(path, KAFKA__TIMEOUT_S="2")
    finally:
        kafka.start()
    assert status == 3
    assert tail.once(path)[0] == 0
    assert tail.values(path) == lines(0, 2)


def test_a_fenced_publisher_whose_name_was_not_taken_goes_on(tail: Tail) -> None:
    """As when the broker ended a transaction that was open too long: the epoch is bumped, the claim stays."""
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + b"".join(lines(0, 100)))
    settings, profile = tail.settings(), load("avion")
    publisher = Publisher(settings)
    publisher.start()
    file = OpenFile(str(path))
    head = file.examine(profile, final=True)
    assert head
    source = Source(file, head, profile, settings.tail, partitions=publisher.partitions, known=None)
    for number in (100, 200):
        batch = Round()
        framed = source.read(final=False)
        assert framed
        batch.add(source, framed)
        for _ in range(2):  # the second time as when a commit went through and its answer was lost
            thief = Producer(tail.kafka.confluent(transactional_id=f"spotstream-tail-{tail.name}"))
            thief.init_transactions(10)
            publisher.publish(batch)
            assert len(tail.values(path)) == number
        with path.open("ab") as log:
            log.write(b"".join(lines(number, number + 100)))
    Publisher(settings).start()
    batch = Round()
    framed = source.read(final=False)
    assert framed
    batch.add(source, framed)
    with pytest.raises(Problem, match="took over"):
        publisher.publish(batch)
    file.close()
    assert tail.values(path) == lines(0, 200)


def test_a_broker_that_refuses_our_transactions_is_not_taken_for_another_tailer(tail: Tail) -> None:
    settings = tail.settings()
    # Above transaction.max.timeout.ms, which may be lower than what settings allow.
    longer = settings.tail.model_copy(update={"transaction_timeout_s": 901.0})
    with pytest.raises(Problem, match=r"refuses our transactions: .*timeout"):
        Publisher(settings.model_copy(update={"tail": longer})).start()


def test_a_strangers_open_transaction_does_not_hide_checkpoints(tail: Tail) -> None:
    """At read_committed the topic ends where it begins; the reader waits for what lies behind."""
    stranger = Producer(tail.kafka.confluent(transactional_id=f"stranger-{tail.name}"))
    stranger.init_transactions(10)
    stranger.begin_transaction()
    stranger.produce(CHECKPOINTS.name, **checkpoint.claim("stranger", "x"))
    stranger.flush()
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(1))
    ender = threading.Timer(2, stranger.abort_transaction)
    ender.start()
    publisher = Publisher(tail.settings())
    publisher.start()
    assert tail.name in publisher.read().claims
    assert not ender.is_alive() or ender.join() is None
    assert "stranger" not in publisher.read().claims


def test_a_line_above_the_limit_goes_to_the_dead_letters(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    long = line(2, b"x" * 200_000)
    path.write_bytes(HEADER + line(1) + long + line(3))
    assert tail.once(path, TAIL__MAX_RECORD_BYTES="2000", TAIL__BLOCK_BYTES="4096")[0] == 0
    records = tail.published(path)
    assert [(key.number, value) for key, value in records] == [(1, line(1)), (3, line(3))]
    assert records[1][0].offset - records[1][0].skipped == len(HEADER) + len(line(1))
    letters = [orjson.loads(m.value()) for m in read_all(tail.kafka, DLQ.name)]
    (letter,) = [letter for letter in letters if letter["place"]["path"] == str(path)]
    assert (letter["kind"], letter["stage"], letter["reason"]) == ("record", "tail", "too_large")
    assert (letter["place"]["offset"], letter["place"]["number"]) == (len(HEADER) + len(line(1)), 2)
    assert b64decode(letter["original"]) == long[:HEAD]
    known = next(c for c in checkpoint.read(tail.kafka).files.values() if c.path == str(path))
    assert (known.records, known.oversized) == (3, 1)


def test_folders_and_globs_and_files_that_appear_later(tail: Tail) -> None:
    folder, other = tail.folder / "in", tail.folder / "more"
    folder.mkdir()
    other.mkdir()
    a, b, c, d = folder / "a.csv", folder / "b.csv", other / "c.csv", other / "d.txt"
    a.write_bytes(HEADER + line(1))
    (folder / ".hidden").write_bytes(HEADER + line(9))
    process = tail.start(folder, other / "*.csv", a)
    until(lambda: tail.values(a) == [line(1)])
    b.write_bytes(HEADER + line(2))
    c.write_bytes(HEADER + line(3))
    d.write_bytes(HEADER + line(4))
    until(lambda: tail.values(a, b, c, d) == lines(1, 4))
    b.rename(folder / "b.csv.1")
    with (folder / "b.csv.1").open("ab") as log:
        log.write(line(5))
    until(lambda: tail.values(b, folder / "b.csv.1") == [line(2), line(5)])
    stop(process)


def test_a_bad_file_in_a_folder_costs_the_others_nothing(tail: Tail) -> None:
    good, bad = tail.folder / "a.csv", tail.folder / "b.csv"
    good.write_bytes(HEADER + line(1))
    bad.write_bytes(b"a\0b")
    status, said = tail.once(tail.folder)
    assert status == 1
    assert "b.csv" in said
    assert "NUL" in said
    assert tail.values(good) == [line(1)]


def test_a_truncated_file_is_read_from_its_start_and_told(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(1) + line(2))
    process = tail.start(path)
    until(lambda: len(tail.values(path)) == 2)
    path.write_bytes(HEADER + line(3))
    until(lambda: len(tail.values(path)) == 3)
    until(
        lambda: any(
            known.gone for known in checkpoint.read(tail.kafka).files.values() if known.path == str(path)
        )
    )
    said = stop(process, status=1)
    assert "truncated" in said
    path.write_bytes(HEADER + line(4))
    status, said = tail.once(path)
    assert status == 1
    assert '"level": "error"' in said
    assert sorted(tail.values(path)) == lines(1, 5)


def test_a_file_that_grew_past_a_last_record_without_line_end_is_told(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(1)[:-5])
    assert tail.once(path)[0] == 0
    path.write_bytes(HEADER + line(1))
    status, said = tail.once(path)
    assert status == 0
    assert "has grown since" in said
    assert tail.values(path) == [line(1)[:-5], line(1)[-5:]]


def test_an_edited_profile_makes_a_new_descriptor_for_the_same_file(tail: Tail) -> None:
    path, profile = tail.folder / "log.csv", tail.folder / "mine.toml"
    text = Path(checkpoint.__file__).parents[2].joinpath("schemas", "profiles", "avion.toml").read_text()
    profile.write_text(text)
    path.write_bytes(HEADER + line(1))
    assert tail.once(path, "--profile", profile)[0] == 0
    with path.open("ab") as log:
        log.write(line(2))
    profile.write_text(text + "\n# nothing\n")
    assert tail.once(path, "--profile", "avion")[0] == 0
    records = tail.published(path)
    assert [value for _, value in records] == lines(1, 3)
    assert whole(records, size=path.stat().st_size)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "no such file", id="missing"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\x7fELF\2\1\1\0\0\n" + line(1), "not a text file", id="binary"),
        pytest.param(b"# only\n\n# comments\n", "no header row", id="without header"),
        pytest.param(line(1) + line(2), "unknown layout", id="data where the header should be"),
        pytest.param(b"Name,Street,Town\nx,y,z\n", "unknown layout", id="another layout"),
        pytest.param(b"Type,Stra\xdfe\n", "not utf-8", id="another encoding"),
    ],
)
def test_a_file_that_cannot_be_tailed_is_a_usage_error(tail: Tail, content: bytes | None, said: str) -> None:
    path = tail.folder / "log.csv"
    if content is not None:
        path.write_bytes(content)
    good = tail.folder / "good.csv"
    good.write_bytes(HEADER + line(1))
    refused(tail.once(good, path), str(path), said)
    assert tail.values(good) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/proc/self/mem", "cannot be read"),
        ("fifo", "not a regular file"),
        ("void", "no file there"),
        ("void/*.csv", "no file there"),
    ],
)
def test_a_path_that_cannot_be_tailed_is_a_usage_error(tail: Tail, given: str, said: str) -> None:
    os.mkfifo(tail.folder / "fifo")
    (tail.folder / "void").mkdir()
    refused(tail.once(tail.folder / given), given, said)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_usage_error(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER)
    path.chmod(0)
    refused(tail.once(path), str(path), "Permission denied")


def refused(result: tuple[int, str], *words: str) -> None:
    status, said = result
    assert status == 2, said
    assert len(said.splitlines()) == 1, said
    assert said.startswith("spotstream: ")
    assert all(word in said for word in words), said


def test_named_files_are_checked_when_following_too(tail: Tail) -> None:
    process = tail.start(tail.folder / "missing.csv")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "no such file" in said


def test_an_unknown_profile_is_a_usage_error(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER)
    refused(tail.once(path, "--profile", "nobody"), "no such profile")


def test_a_broker_that_is_not_there_is_unreachable(tail: Tail) -> None:
    path = tail.folder / "log.csv"
    path.write_bytes(HEADER + line(1))
    begin = time.monotonic()
    status, said = tail.once(path, KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:9", KAFKA__TIMEOUT_S="2")
    assert (status, time.monotonic() - begin < 8) == (3, True)
    assert "127.0.0.1:9" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_failed_delivery_fails_the_transaction(tail: Tail) -> None:
    """What delivery errors rest on: a message that the broker refuses makes the commit fail."""
    producer = Producer(
        tail.kafka.confluent(transactional_id=f"fail-{tail.name}", message_max_bytes=20_000_000)
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce_batch(RAW.name, [{"key": b"k", "value": os.urandom(9 * 1_048_576)}], 0)
    with pytest.raises(KafkaException) as failed:
        producer.commit_transaction(20)
    assert failed.value.args[0].txn_requires_abort()
    producer.abort_transaction(10)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("who", ["itself", "after a crash", "another after a crash"])
def test_a_copy_that_its_original_overtook_holds_nothing_new(tail: Tail, who: str, packed: bool) -> None:
    """Copied, written on, published, truncated: the copy is the beginning of what is published."""
    path, copy = tail.folder / "a.csv", tail.folder / "a.csv.1"
    path.write_bytes(HEADER + b"".join(lines(0, 20)) + line(20)[:30])
    follower = Follower(tail)
    follower.look()
    shutil.copy(path, copy)
    with path.open("ab") as log:
        log.write(line(20)[30:] + b"".join(lines(21, 40)))
    follower.look()
    assert tail.values(path) == lines(0, 40)
    if who != "itself":
        follower.drop()
    path.write_bytes(HEADER + line(40))
    if packed:
        copy.with_name("a.csv.1.gz").write_bytes(gzip.compress(copy.read_bytes()))
        copy.unlink()
    if who != "itself":
        follower = Follower(tail, f"{tail.name[-50:]}-2" if who.startswith("another") else "")
    follower.settle()
    follower.drop()
    assert tail.once(tail.folder)[0] in (0, 1)
    assert sorted(tail.values(path)) == lines(0, 41)
    assert tail.values(copy, copy.with_name("a.csv.1.gz")) == []


def test_a_copy_from_before_the_first_look_holds_nothing_new(tail: Tail) -> None:
    """Both are new at once; that one begins the other has to be seen without any checkpoint."""
    path, copy = tail.folder / "a.csv", tail.folder / "a.csv.1"
    path.write_bytes(HEADER + b"".join(lines(0, 5)) + line(5)[:30])
    shutil.copy(path, copy)
    with path.open("ab") as log:
        log.write(line(5)[30:])
    follower = Follower(tail)
    follower.look()
    path.write_bytes(HEADER)
    assert follower.settle() == []
    follower.drop()
    assert tail.once(tail.folder)[0] == 0
    assert tail.values(path, copy) == lines(0, 6)


def test_a_new_file_that_begins_as_one_that_is_gone_is_read_whole(tail: Tail) -> None:
    """As long as it is nothing else than that beginning it may be a copy; once it differs it is none."""
    path, other = tail.folder / "a.csv", tail.folder / "a.csv.1"
    path.write_bytes(HEADER + b"".join(lines(0, 30)))
    assert tail.once(path)[0] == 0
    path.unlink()
    follower = Follower(tail)
    other.write_bytes(HEADER + b"".join(lines(0, 20)))
    follower.settle()
    assert tail.values(other) == []
    with other.open("ab") as log:
        log.write(line(99))
    follower.settle()
    follower.drop()
    assert tail.values(other) == [*lines(0, 20), line(99)]


def test_a_header_with_anothers_inode_is_not_that_others_file(tail: Tail) -> None:
    """Inodes are used again, and headers are equal: neither fences the tailer of somebody else's folder."""
    ours, theirs = tail.folder / "ours", tail.folder / "theirs"
    ours.mkdir()
    theirs.mkdir()
    (theirs / "b.csv").write_bytes(HEADER)
    other = Follower(tail, f"{tail.name[-50:]}-2", theirs)
    other.look()
    (theirs / "b.csv").rename(ours / "a.csv")  # stands for a new file with the inode of one that was removed
    follower = Follower(tail, folder=ours)
    follower.look()
    with (ours / "a.csv").open("ab") as log:
        log.write(line(1))
    (theirs / "c.csv").write_bytes(HEADER + line(2))
    follower.look()
    other.look()
    assert tail.values(ours / "a.csv") == [line(1)]
    assert tail.values(theirs / "c.csv") == [line(2)]
    follower.drop()
    other.drop()


@pytest.mark.parametrize("again", [b"", line(7)[:40]], ids=["header", "another line"])
def test_what_was_destroyed_when_only_the_header_was_published_is_told(tail: Tail, again: bytes) -> None:
    """The claim says how much there was and how it began."""
    path = tail.folder / "a.csv"
    path.write_bytes(HEADER + line(1)[:40])
    follower = Follower(tail)
    follower.look()
    follower.drop()
    path.write_bytes(HEADER + again)
    follower = Follower(tail)
    (loss,) = follower.settle()
    assert (loss.path, loss.position, loss.known) == (str(path), len(HEADER), 40)
    follower.drop()


def test_what_was_written_anew_and_removed_between_two_looks_is_read(tail: Tail) -> None:
    """It is at no path any more, but in a file that is open still; of what was there before all was read."""
    path, new = tail.folder / "a.csv", tail.folder / ".new"
    path.write_bytes(HEADER + line(1))
    follower = Follower(tail)
    follower.look()
    path.write_bytes(HEADER + line(2))
    new.write_bytes(HEADER + line(3))
    new.replace(path)
    losses = follower.settle()
    follower.drop()
    assert [(loss.position, loss.known) for loss in losses] == [(len(HEADER + line(1)), 0)]
    assert sorted(tail.values(path)) == lines(1, 4)


def test_a_header_that_was_rotated_away_is_no_copy(tail: Tail) -> None:
    """What it would explain is a truncation, which destroyed what was written before it."""
    path = tail.folder / "a.csv"
    path.write_bytes(HEADER + line(1))
    follower = Follower(tail)
    follower.look()
    path.write_bytes(HEADER)
    follower.look()
    path.rename(tail.folder / "a.csv.1")
    losses = follower.settle()
    follower.drop()
    assert [(loss.position, loss.known) for loss in losses] == [(len(HEADER + line(1)), 0)]


def test_bytes_that_were_seen_and_are_in_no_copy_are_told(tail: Tail) -> None:
    path, copy = tail.folder / "a.csv", tail.folder / "a.csv.1"
    path.write_bytes(HEADER + b"".join(lines(0, 5)))
    follower = Follower(tail)
    follower.look()
    follower.drop()
    shutil.copy(path, copy)
    with path.open("ab") as log:
        log.write(line(5)[:50])
    follower = Follower(tail)
    follower.look()
    follower.drop()
    path.write_bytes(HEADER)
    follower = Follower(tail)
    losses = follower.settle()
    follower.drop()
    assert [(loss.position, loss.known) for loss in losses] == [
        (len(HEADER) + sum(map(len, lines(0, 5))), 50)
    ]
    assert tail.values(path, copy) == lines(0, 5)


def test_a_tailer_that_was_fenced_takes_nothing_back(tail: Tail) -> None:
    """It learns that it lost its name before it looks at any file."""
    path = tail.folder / "a.csv"
    path.write_bytes(HEADER + line(1))
    first = Follower(tail)
    first.look()
    second = Follower(tail, f"{tail.name[-50:]}-2")
    second.look()
    (tail.folder / "b.csv").write_bytes(HEADER + line(2))
    with pytest.raises(Problem, match="took over"):
        first.look()
    with path.open("ab") as log:
        log.write(line(3))
    second.look()
    first.drop()
    second.drop()
    assert tail.values(path, tail.folder / "b.csv") == [line(1), line(3), line(2)]


def test_a_tailer_that_comes_back_after_a_takeover_sees_whose_the_file_is(tail: Tail) -> None:
    """As a supervisor starts it again, before there is anything to publish."""
    path, other = tail.folder / "a.csv", f"{tail.name[-50:]}-2"
    path.write_bytes(HEADER + line(1))
    first = Follower(tail)
    first.look()
    second = Follower(tail, other)
    known = next(one for one in checkpoint.read(tail.kafka).files.values() if one.path == str(path))
    assert known.owner == other
    first.drop()
    first = Follower(tail)
    with path.open("ab") as log:
        log.write(line(2))
    first.look()
    with pytest.raises(Problem, match="took over"):
        second.look()
    first.drop()
    second.drop()
    assert tail.values(path) == lines(1, 3)


def test_a_tailer_that_comes_back_in_the_midst_of_a_takeover_fences_it(tail: Tail) -> None:
    path = tail.folder / "a.csv"
    path.write_bytes(HEADER + line(1))
    assert tail.once(path)[0] == 0
    taker, back = Publisher(tail.settings(name=f"{tail.name[-50:]}-2")), Publisher(tail.settings())
    taker.start()
    seen = []

    def theirs(state: State) -> list[Checkpoint]:
        if not seen:
            back.start()
        seen.append(state)
        return [known for known in state.files.values() if known.path == str(path)]

    taker.take_over(tail.name, theirs)
    assert len(seen) == 2
    with pytest.raises(Problem, match="took over"):
        back.check()
    taker.check()
