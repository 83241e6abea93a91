"""The tailer on a real broker: every format, plain and gzip, growing, killed, damaged."""

import gzip
import time
import zlib
from typing import get_args

import pytest
from tailing import Tail, until, whole

from streams.lab.generate import generate
from streams.lab.spelling import Format

pytestmark = pytest.mark.broker


def profile(form: Format) -> str:
    return "avion" if form == "csv" else f"avion-{form}"


def document(form: Format, records: int) -> tuple[bytes, list[bytes]]:
    """A log and its records."""
    lines = list(generate(records, 6, 0.05, form))
    found = [line.data for line in lines if line.number]
    return b"".join(line.data for line in lines), found


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("form", get_args(Format))
def test_a_log_is_published_whole(tail: Tail, form: Format, packed: bool) -> None:
    data, records = document(form, 2000)
    path = tail.folder / "log"
    path.write_bytes(gzip.compress(data) if packed else data)
    status, said = tail.once(path, "--profile", profile(form))
    assert status == 0, said
    published = tail.published(path)
    assert len(published) == len(records)
    assert whole(published, size=data.rindex(b"</Record>") + 9 if form == "xml" else len(data))
    if form != "xml":
        assert [value for _, value in published] == records


@pytest.mark.parametrize("form", ["csv", "xml"])
def test_a_growing_gzip_file_survives_kills(tail: Tail, form: Format) -> None:
    """Each line is flushed by itself, the tailer killed again and again; then a member is begun anew."""
    data, records = document(form, 900)
    path = tail.folder / "log.gz"
    parts = [data[at : at + 9000] for at in range(0, len(data), 9000)]
    compress = zlib.compressobj(6, zlib.DEFLATED, 31)
    with path.open("wb") as log:
        for index, part in enumerate(parts):
            log.write(compress.compress(part) + compress.flush(zlib.Z_SYNC_FLUSH))
            if index % 7 == 6:
                log.write(compress.flush())
                compress = zlib.compressobj(6, zlib.DEFLATED, 31)
            log.flush()
            if index % 5 == 0:
                process = tail.start(path, "--profile", profile(form))
                time.sleep(0.7)
                process.kill()
                process.wait()
        log.write(compress.flush())
    tail.start(path, "--profile", profile(form))
    until(lambda: len(tail.published(path)) >= len(records))
    published = tail.published(path)
    assert len(published) == len(records)
    assert whole(published, size=data.rindex(b"</Record>") + 9 if form == "xml" else len(data))


@pytest.mark.parametrize("once", [True, False], ids=["once", "followed"])
def test_a_damaged_gzip_file_is_read_as_far_as_it_goes_and_told(tail: Tail, once: bool) -> None:
    data, records = document("csv", 3000)
    packed = gzip.compress(data)
    bad, good = tail.folder / "bad.gz", tail.folder / "good.gz"
    bad.write_bytes(packed[:-9000] + b"\xff" * 50 + packed[-8950:])
    good.write_bytes(packed)
    if once:
        status, said = tail.once(tail.folder)
        assert status == 1
    else:
        process = tail.start(tail.folder)
        until(lambda: len(tail.published(good)) == len(records) and len(tail.published(bad)) > 1000)
        time.sleep(2)  # it must not be begun with again and again
        process.terminate()
        _, said = process.communicate(timeout=10)
        assert process.returncode == 1
    assert 1 <= said.count("gzip: corrupt at byte") <= 3, said
    found = tail.values(bad)
    assert 1000 < len(found) < len(records)
    assert found == records[: len(found)]
    assert tail.values(good) == records


def test_a_file_that_ends_in_the_middle_of_a_member_is_told_and_goes_on(tail: Tail) -> None:
    data, records = document("csv", 2000)
    packed = gzip.compress(data)
    path = tail.folder / "log.gz"
    path.write_bytes(packed[:-3000])
    status, said = tail.once(path)
    assert status == 1
    assert "it ends in the middle of a member" in said
    before = tail.values(path)
    assert before == records[: len(before)]
    path.write_bytes(packed)
    status, said = tail.once(path)
    assert status == 0, said
    assert tail.values(path) == records


def test_a_gzip_file_that_was_rotated_away_in_the_middle_of_a_member_is_told(tail: Tail) -> None:
    data, records = document("csv", 2000)
    path = tail.folder / "log.gz"
    path.write_bytes(gzip.compress(data)[:-3000])
    process = tail.start(path, TAIL__ROTATED_AFTER_S="1")
    until(lambda: len(tail.published(path)) > 1000)
    path.rename(tail.folder / "log.gz.1")
    assert process.stderr
    said = ""
    while "it ends in the middle of a member" not in said:
        said = process.stderr.readline()
        assert said
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 1
    found = tail.values(path)
    assert found == records[: len(found)]
