"""Copies that take their time: what a rotation writes while the file that it copies is still there."""

import gzip
from itertools import pairwise

import pytest
from tailing import HEADER, Follower, Tail, line, lines

from schemas.errors import Problem

pytestmark = pytest.mark.broker

_MANY = lines(0, 4000)  # far more than a checkpoint keeps


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("original", ["followed", "finished", "finished and restarted"])
def test_a_copy_that_is_written_slowly_is_none_of_its_own(tail: Tail, original: str, packed: bool) -> None:
    """Compressed where it lies, as gzip and logrotate do, with rests while its original is there."""
    path = tail.folder / "a.csv"
    data = HEADER + b"".join(_MANY)
    path.write_bytes(data)
    follower = Follower(tail)
    follower.look()
    if original != "followed":
        path.rename(path := tail.folder / "a.csv.1")
        follower.settle()
        assert not follower.sources.open
    if original.endswith("restarted"):
        follower.drop()
        follower = Follower(tail)
    copy = path.with_name(path.name + (".gz" if packed else ".copy"))
    whole = gzip.compress(data) if packed else data
    first = len(HEADER) + 400  # hardly more than a header, also of what is inside
    ends = [150 if packed else first, len(whole) // 3, len(whole) * 2 // 3, len(whole)]
    with copy.open("wb", buffering=0) as stream:
        for begin, end in pairwise([0, *ends]):
            stream.write(whole[begin:end])
            follower.rest(0.6)
    path.unlink()
    follower.settle()
    follower.drop()
    assert sorted(tail.values(tail.folder / "a.csv", path, copy)) == _MANY


@pytest.mark.parametrize(
    ("seen", "appended"),
    [(line(1)[:30], []), (b"", lines(0, 20))],
    ids=["has begun a record", "has the header"],
)
def test_a_compressed_copy_is_taken_from_a_tailer(tail: Tail, seen: bytes, appended: list[bytes]) -> None:
    """That one still reads what was removed, and would publish it as well."""
    path, packed = tail.folder / "a.csv", tail.folder / "a.csv.1.gz"
    path.write_bytes(HEADER + seen)
    first = Follower(tail)
    first.look()
    with path.open("ab") as log:
        log.write(b"".join(appended))
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    second = Follower(tail, f"{tail.name[-50:]}-2")
    second.settle()
    with pytest.raises(Problem, match="took over"):
        first.settle()
    first.drop()
    second.drop()
    assert tail.values(path, packed) == (appended or [seen])
