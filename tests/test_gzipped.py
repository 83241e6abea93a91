"""Gzip as if it were plain: any reads, growing, members one after the other, damage."""

import gzip
import random
import tracemalloc
import zlib
from pathlib import Path

import pytest
from exports import AVION
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.formats import gzipped
from streams.formats.framing import Framed
from streams.formats.gzipped import START, DamagedError, Gunzip, Member
from streams.lab.generate import generate
from streams.settings import TailSettings
from streams.tail.checkpoint import Checkpoint
from streams.tail.source import OpenFile, Source


class Held:
    """A compressed file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.given = 0  # bytes read of it

    def read(self, offset: int, size: int) -> bytes:
        found = self.data[offset : offset + size]
        self.given += len(found)
        return found


def deflate(data: bytes, level: int = 6) -> bytes:
    return gzip.compress(data, level, mtime=0)


def noise(size: int, seed: int = 0) -> bytes:
    """What compresses by half."""
    return random.Random(seed).randbytes(size // 2).hex().encode()


def all_of(file: Gunzip, size: int = 1000) -> bytes:
    found = b""
    while piece := file.read(len(found), size):
        found += piece
    return found


@settings(max_examples=30)
@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 5000)), max_size=12),
    st.integers(0, 5),
)
def test_any_read_gives_what_is_inside(
    members: list[bytes], reads: list[tuple[int, int]], padding: int
) -> None:
    whole = b"".join(members)
    file = Gunzip(Held(b"".join(map(deflate, members)) + bytes(padding)))
    for offset, size in reads:
        assert file.read(offset, size) == whole[offset : offset + size]
    assert all_of(file) == whole
    file.check(final=True)


def test_it_may_grow_in_the_middle_of_a_member() -> None:
    whole = noise(20_000)
    held = Held(b"")
    file, packed, found = Gunzip(held), deflate(whole[:9000]) + deflate(whole[9000:]), b""
    for size in range(0, len(packed), 37):
        held.data = packed[:size]
        found += file.read(len(found), 100_000)
        file.check(final=False)
        if size not in (0, len(deflate(whole[:9000]))):
            with pytest.raises(DamagedError, match="in the middle of a member"):
                file.check(final=True)
    held.data = packed
    assert found + file.read(len(found), 100_000) == whole
    file.check(final=True)


def test_reading_goes_on_from_a_member_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "_APART", 1000)
    members = [noise(200_000, seed) for seed in range(10)]
    held = Held(b"".join(map(deflate, members)))
    file = Gunzip(held)
    whole = all_of(file, 50_000)
    member = file.member(1_500_000)
    assert member == Member(1_400_000, sum(len(deflate(part)) for part in members[:7]))
    later = Gunzip(held)
    later.know(member)
    held.given = 0
    assert later.read(1_500_000, 1000) == whole[1_500_000:1_501_000]
    assert held.given < 300_000
    assert later.read(0, 2_000_000) == whole


@pytest.mark.parametrize("member", [Member(500, 7), Member(100_000, 60_000), Member(500, 10**9)])
def test_a_member_that_is_none_costs_time_and_nothing_else(member: Member) -> None:
    whole = noise(200_000)
    file = Gunzip(Held(deflate(whole)))
    file.know(member)
    assert file.read(150_000, 100) in (whole[150_000:150_100], b"")
    file.know(START)
    assert file.read(0, 200_000) == whole


def test_a_record_that_is_held_does_not_inflate_the_file_again_and_again() -> None:
    held = Held(deflate(noise(30_000_000)))
    file = Gunzip(held)
    for end in range(1_000_000, 30_000_000, 1_000_000):
        assert file.read(end - 500_000, 1_500_000)
    assert held.given < 3 * len(held.data)


@settings(max_examples=30)
@given(st.integers(20, 60_000), st.integers(1, 255), st.sampled_from([700, 5000, 200_000]))
def test_all_before_a_corrupt_byte_is_given_out(place: int, change: int, size: int) -> None:
    """Python's zlib, fed one byte at a time, tells what can be read of it."""
    whole = noise(130_000)
    packed = bytearray(deflate(whole[:60_000]) + deflate(whole[60_000:]))
    packed[place % len(packed)] ^= change
    expected, decoder, broken = b"", zlib.decompressobj(31), False
    for at in range(len(packed)):
        try:
            expected += decoder.decompress(packed[at : at + 1])
        except zlib.error:
            broken = True
            break
        if decoder.eof:
            decoder = zlib.decompressobj(31)
    file = Gunzip(Held(bytes(packed)))
    found = all_of(file, size)
    if not broken:
        assert found == expected  # a time stamp or a name in a member's header
        return
    # The two notice it within a few symbols of each other.
    assert abs(len(found) - len(expected)) <= 258
    shorter = min(len(found), len(expected))
    assert found[:shorter] == expected[:shorter]
    with pytest.raises(DamagedError, match=r"gzip: (corrupt at byte \d+|it ends in the middle)"):
        file.check(final=True)


def test_what_follows_the_last_member_has_to_be_gzip() -> None:
    file = Gunzip(Held(deflate(b"a\n") + b"b,c,d,e,f,g\n" * 3))
    assert all_of(file) == b"a\n"
    with pytest.raises(DamagedError, match="corrupt at byte"):
        file.check(final=False)


def test_a_bomb_takes_no_memory() -> None:
    zeros = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(zeros.compress(bytes(1_000_000)) for _ in range(300)) + zeros.flush()
    assert len(packed) < 400_000
    file = Gunzip(Held(packed))
    tracemalloc.start()
    try:
        assert file.read(299_000_000, 1_000_000) == bytes(1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def source(path: Path, known: Checkpoint | None = None) -> Source:
    file = OpenFile(str(path))
    head = file.examine(AVION, final=False)
    assert head
    if known:
        assert known.proves(file)
    return Source(file, head, AVION, TailSettings(block_bytes=10_000), partitions=1, known=known)


def lines(records: int) -> list[bytes]:
    return [line.data for line in generate(records, 3)]


def test_a_file_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "_APART", 20_000)
    path = tmp_path / "log.csv.gz"
    data = b"".join(lines(20_000))
    path.write_bytes(b"".join(deflate(data[at : at + 30_000]) for at in range(0, len(data), 30_000)))
    found: list[bytes] = []
    reading = source(path)
    while (framed := reading.read(final=True)) is not None:
        found += framed.records
        if reading.position > len(data) * 9 // 10:
            break
    known = Checkpoint.model_validate_json(reading.checkpoint().model_dump_json())
    reading.file.close()
    assert known.member.inside > known.position - 1_200_000 > 0
    later = source(path, known)
    while (framed := later.read(final=True)) is not None:
        found += framed.records
    assert later.position == len(data) == later.file.size()
    assert found == [line.data for line in generate(20_000, 3) if line.number]
    other = tmp_path / "other.gz"
    other.write_bytes(deflate(data[:-9] + b"#\n" + data[-9:-2]))
    assert known.proves(OpenFile(str(other)))
    other.write_bytes(deflate(data.replace(b"2026", b"2025")))
    with pytest.raises(AssertionError):
        source(other, known)


def test_what_is_readable_of_a_damaged_file_is_read_and_the_rest_told(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    data = b"".join(lines(3000))
    packed = deflate(data)
    for broken, why in (
        (packed[:-5000], "in the middle of a member, at byte"),
        (packed[:-5000] + b"\xff" * 40 + packed[-4960:], "corrupt at byte"),
        (packed[:-8] + bytes(8), "corrupt at byte"),
    ):
        path.write_bytes(broken)
        reading = source(path)
        found: list[Framed] = []
        with pytest.raises(DamagedError, match=why):
            found.extend(iter(lambda: reading.read(final=True), None))  # noqa: B023 - it is used up at once
        assert data[reading.position - 20 : reading.position].endswith(b"\n")
        assert len(data) - reading.position < 60_000
        records = [record for part in found for record in part.records]
        expected = [line.data for line in generate(3000, 3) if line.number]
        assert records == expected[: len(records)]
        assert len(records) > 2000
        reading.file.close()


def test_a_growing_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    compress = zlib.compressobj(6, zlib.DEFLATED, 31)
    with path.open("wb") as log:
        head, *rest = lines(50)
        log.write(compress.compress(head) + compress.flush(zlib.Z_SYNC_FLUSH))
        log.flush()
        reading = source(path)
        for line in rest:
            log.write(compress.compress(line) + compress.flush(zlib.Z_SYNC_FLUSH))
            log.flush()
            framed = reading.read(final=False)
            assert framed
            assert framed.records == [line]
        assert reading.read(final=False) is None
        log.write(compress.flush())
    assert reading.read(final=True) is not None
    assert reading.finished
    reading.file.close()
