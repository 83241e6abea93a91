"""Gzip as if it were plain: any reads, growing, members one after the other, damage."""

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import gzipped
from streams.gzipped import START, DamagedError, Gunzip, Member


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


@settings(max_examples=30, deadline=None)
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


@settings(max_examples=30, deadline=None)
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
