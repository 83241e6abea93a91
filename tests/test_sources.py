"""What is found of files, and what of those that are gone before they can be opened."""

import errno
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hostile
import pytest
from structlog.testing import capture_logs
from tailing import HEADER, Memory, Reader, line, lines

from schemas import profile
from schemas.profile import load
from streams.settings import TailSettings
from streams.tail.checkpoint import KEPT, Checkpoint, unpacked
from streams.tail.recognition import begins_finished, is_intact
from streams.tail.source import OpenFile, Source
from streams.tail.sources import Sources


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_file_that_is_gone_before_it_is_opened(tmp_path: Path, given: str, once: bool) -> None:
    """Rotated away, it is looked for again; only what a run once names has to be there."""
    gone = tmp_path / "log.csv.1"
    sources = Sources([str(gone if given == "file" else tmp_path)], load("avion"), TailSettings(), once=once)
    sources.scan_due = False
    assert sources.examine(str(gone)) is None
    assert (str(gone) in sources.refused) == (once and given == "file")
    assert sources.scan_due == (str(gone) not in sources.refused)


def test_a_line_without_end_is_read_twice_and_held_nowhere(tmp_path: Path) -> None:
    """Once to find its end, once more for the digest; not again with every block."""
    size = 50_000_000
    path = tmp_path / "log.csv"
    hostile.with_a_line(path, HEADER, size, line(1))
    file = OpenFile(str(path))
    taken: list[int] = []
    read = file.read

    def counting(offset: int, wanted: int) -> bytes:
        data = read(offset, wanted)
        taken.append(len(data))
        return data

    file.read = counting  # type: ignore[method-assign]
    avion = profile.load("avion")
    head = file.examine(avion, final=False)
    assert head
    source = Source(file, head, avion, TailSettings(max_record_bytes=4096), partitions=1, known=None)
    found = []
    while framed := source.read(final=False):
        found += [len(framed.oversized), framed.count]
    assert (sum(found), source.position) == (2, file.size())
    assert max(taken) < 3_000_000
    assert sum(taken) < 2.2 * size
    assert source.checkpoint().proves_whole(file)


def test_a_tailer_does_without_what_reads_records() -> None:
    """Arrow alone would be a seventh of the memory that it may have."""
    names = "{'pyarrow', 'pandas', 'fastavro', 'aiohttp', 'faust'}"
    told = f"import sys, streams.tail.tailer; print(*{names} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES], ids=os.strerror)
def test_a_file_that_cannot_be_opened_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It never changes, so it is tried again; for want of a permission only once that may have come."""
    passes = number != errno.EACCES
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + line(1))
    tried: list[int] = []

    def failing(*_: object) -> int:
        tried.append(number)
        raise OSError(number, os.strerror(number))

    reader = Reader(Memory(), tmp_path)
    with monkeypatch.context() as patch, capture_logs() as said:
        patch.setattr(os, "open", failing)
        assert [reader.look() for _ in range(3)] == [[], [], []]
    assert (len(tried), len(said)) == (3 if passes else 1, 1)
    assert list(reader.sources.refused) == [str(path)]
    if not passes:
        assert reader.look() == []
        os.chown(path, os.getuid(), os.getgid())
    assert reader.look() == [line(1)]
    assert not reader.sources.refused
    reader.sources.close()


def test_an_original_that_cannot_be_opened_just_now_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its copy would go on in its place, and it would be published again as a new file."""
    path, memory = tmp_path / "log.csv", Memory()
    path.write_bytes(HEADER + line(1))
    Reader(memory, tmp_path, once=True).look()
    (known,) = memory.files.values()

    def failing(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    (copy := tmp_path / "log.csv.1").write_bytes(path.read_bytes())
    found = Reader(memory, tmp_path).sources.examine(str(copy))
    assert found
    monkeypatch.setattr(os, "open", failing)
    assert is_intact(known)
    assert begins_finished(found, known)
    path.unlink()
    assert not is_intact(known)
    assert not begins_finished(found, known)


def test_a_copy_of_a_copy_in_the_making_is_known(tmp_path: Path) -> None:
    """Of one that its original has overtaken, and that is being compressed, nothing is to be published."""
    path, memory = tmp_path / "log.csv", Memory()
    path.write_bytes(HEADER + line(1) + line(2))
    Reader(memory, tmp_path, once=True).look()
    (known,) = memory.files.values()
    (copy := tmp_path / "log.csv.1").write_bytes(HEADER + line(1))
    sources = Reader(memory, tmp_path).sources
    overtaken = sources.examine(str(copy))
    assert overtaken
    of_copy = known.for_copy(overtaken.file, overtaken.file.size())
    (packed := tmp_path / "log.csv.1.gz").write_bytes(gzip.compress(copy.read_bytes())[:-9])
    found = sources.examine(str(packed))
    assert found
    path.unlink()
    assert begins_finished(found, of_copy)
    copy.unlink()
    assert not begins_finished(found, of_copy)


def test_what_is_appended_while_a_file_ends_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + line(1))
    reader = Reader(Memory(), tmp_path, complete_after_s=0.001)
    end = Sources.end

    def late(sources: Sources, file: OpenFile, position: int) -> None:
        monkeypatch.undo()
        with path.open("ab") as log:
            log.write(line(2))
        end(sources, file, position)

    monkeypatch.setattr(Sources, "end", late)
    assert reader.look() == [line(1)]
    time.sleep(0.01)
    assert reader.look() == []
    assert reader.look() == [line(2)]
    reader.sources.close()


def test_the_checkpoint_of_a_rotated_file_that_ended_is_small(tmp_path: Path) -> None:
    """It is kept for ever, on the topic and in the memory of each tailer."""
    path, memory = tmp_path / "log.csv", Memory()
    path.write_bytes(HEADER + b"".join(lines(0, 500)))
    reader = Reader(memory, tmp_path, rotated_after_s=0.001)
    reader.look()
    (known,) = memory.files.values()
    assert len(unpacked(known.kept)) == KEPT
    path.rename(tmp_path / "log.csv.1")
    reader.look()
    time.sleep(0.01)
    reader.look()
    (known,) = memory.files.values()
    assert (known.finished, known.kept) == (True, "")
    assert len(known.model_dump_json()) < 1500


def test_a_claim_that_was_not_withdrawn_in_time_is_no_loss(tmp_path: Path) -> None:
    """Who saw a file second may die before it takes its claim back; the file is read under the first one."""
    path, memory = tmp_path / "log.csv", Memory()
    path.write_bytes(HEADER)
    Reader(memory, tmp_path).look()
    (known,) = memory.files.values()
    memory.commit([known.model_copy(update={"identity": "other"})])
    path.write_bytes(HEADER + line(1))
    reader = Reader(memory, tmp_path)
    assert reader.look() == [line(1)]
    assert reader.sources.losses == []


def corrected(records: list[bytes], number: int = 50) -> list[bytes]:
    """These lines, one in the middle with another rate of the same length."""
    return [*records[:number], records[number].replace(b",10.00,", b",12.00,"), *records[number + 1 :]]


def exported(path: Path, records: list[bytes], how: str) -> None:
    """Write an export: over what is there, or beside it and then in its place."""
    data = HEADER + b"".join(records)
    if how == "over it":
        path.write_bytes(data)
    else:
        path.with_name(".new").write_bytes(data)
        path.with_name(".new").replace(path)


@pytest.mark.parametrize("how", ["over it", "in its place"])
@pytest.mark.parametrize("more", [0, 1], ids=["as long", "longer"])
@pytest.mark.parametrize("once", [True, False], ids=["finished", "followed"])
def test_a_re_export_that_differs_in_the_middle_is_read(
    tmp_path: Path, how: str, more: int, once: bool
) -> None:
    """Its first and last bytes are those of what was published before the tailer ended."""
    path, memory = tmp_path / "log.csv", Memory()
    exported(path, lines(0, 100), how)
    first = Reader(memory, tmp_path, once=once)
    assert first.look() == lines(0, 100)
    first.sources.close()
    again = corrected(lines(0, 100)) + lines(100, 100 + more)
    exported(path, again, how)
    second = Reader(memory, tmp_path)
    assert second.look() == again
    # Of what was still followed nobody can tell whether it had more.
    assert bool(second.sources.losses) == (not once)
    second.sources.close()


def test_a_re_export_that_is_written_while_it_is_looked_at(tmp_path: Path) -> None:
    path, memory = tmp_path / "log.csv", Memory()
    exported(path, lines(0, 100), "over it")
    reader = Reader(memory, tmp_path)
    reader.look()
    path.write_bytes(b"")
    assert reader.look() == []
    exported(path, corrected(lines(0, 100)), "over it")
    assert reader.look() == corrected(lines(0, 100))
    reader.sources.close()


def compressed(records: list[bytes]) -> bytes:
    return gzip.compress(HEADER + b"".join(records), mtime=0)


@pytest.mark.parametrize("seen", [True, False], ids=["seen empty", "at once"])
@pytest.mark.parametrize("again", [lines(200, 250), lines(200, 400), lines(0, 150)], ids=len)
def test_a_compressed_export_written_over_the_last_one_is_read(
    tmp_path: Path, again: list[bytes], seen: bool
) -> None:
    """As ``gzip -c`` into the same file does each night. What is inside is in memory; the file tells."""
    path = tmp_path / "log.csv.gz"
    path.write_bytes(compressed(lines(0, 100)))
    reader = Reader(Memory(), tmp_path)
    assert reader.look() == lines(0, 100)
    if seen:
        path.write_bytes(b"")
        reader.look()
    path.write_bytes(compressed(again))
    reader.look()
    assert reader.look() == []
    assert reader.records[100:] == [record for record in again if record not in lines(0, 100)]
    reader.sources.close()


def test_a_compressed_file_that_was_cut_and_is_written_over_is_let_go_of(tmp_path: Path) -> None:
    path, memory = tmp_path / "log.csv.gz", Memory()
    path.write_bytes(compressed(lines(0, 4000))[:-50])
    reader = Reader(memory, tmp_path)
    begun = reader.look()
    assert 0 < len(begun) < 4000
    path.write_bytes(compressed(lines(5000, 9000)))
    assert reader.look() == lines(5000, 9000)
    reader.look()
    assert not reader.sources.unsettled
    (loss,) = reader.sources.losses
    (gone,) = (known for known in memory.files.values() if known.gone)
    assert loss.why == "truncated or overwritten"
    assert (loss.position, gone.position) == (gone.size, len(HEADER) + len(b"".join(begun)))
    reader.sources.close()


@pytest.mark.parametrize("how", ["over it", "in its place"])
def test_nothing_is_deleted_that_was_not_published(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither after it was read, nor while that is being committed."""
    path, memory = tmp_path / "log.csv", Memory()
    versions = [lines(0, 100), corrected(lines(0, 100)), corrected(lines(0, 100), 40)]
    exported(path, versions[0], how)
    Reader(memory, tmp_path, once=True).look()
    exported(path, versions[1], how)
    reader = Reader(memory, tmp_path, once=True, delete=True)
    commit = memory.commit

    def late(checkpoints: Sequence[Checkpoint]) -> None:
        commit(checkpoints)
        if checkpoints and checkpoints[0].finished:
            monkeypatch.undo()
            exported(path, versions[2], how)

    monkeypatch.setattr(memory, "commit", late)
    assert reader.look() == versions[1]
    assert path.exists()
    assert reader.look() == versions[2]
    assert not path.exists()


def test_a_file_that_nobody_wrote_to_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands may lie in a folder when a tailer starts."""
    path, memory = tmp_path / "log.csv", Memory()
    exported(path, lines(0, 100), "over it")
    Reader(memory, tmp_path, once=True).look()
    monkeypatch.setattr(Checkpoint, "proves_whole", None)
    (known,) = memory.files.values()
    for device in (known.device, known.device + 1):  # as after another mount
        memory.commit([known.model_copy(update={"device": device})])
        assert Reader(memory, tmp_path).look() == []
    assert list(memory.files) == [known.identity]


def in_utf_16(*records: bytes) -> bytes:
    return b"".join(record.decode().encode("utf-16-le") for record in records)


def test_a_file_in_utf_16_that_grows_after_its_end(tmp_path: Path) -> None:
    """In the midst of any letter: what is published is what it holds, each byte once."""
    head, records = b"\xff\xfe" + in_utf_16(HEADER), in_utf_16(line(0), line(1))
    for end in range(1, len(records), 2):
        path, memory = tmp_path / f"{end}.csv", Memory()
        path.write_bytes(head + records[:end])
        before = Reader(memory, path, once=True).look()
        path.write_bytes(head + records)
        assert b"".join(before + Reader(memory, path, once=True).look()) == records


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("cut", [0, 1])
def test_what_was_taken_without_its_line_end_is_told(tmp_path: Path, encoding: str, cut: int) -> None:
    path, memory = tmp_path / "log.csv", Memory()
    data = "".join(("\ufeff", *(part.decode() for part in (HEADER, line(0), line(1)))))
    path.write_bytes(data[: len(data) - cut].encode(encoding))
    Reader(memory, path, once=True).look()
    path.write_bytes((data + line(2).decode()).encode(encoding))
    with capture_logs() as said:
        Reader(memory, path, once=True).look()
    told = "the last record was taken without its line end and has grown since; its rest is another record"
    assert (told in [one["event"] for one in said]) == bool(cut)
