"""Which files count as rotated away: those end by silence, and may be removed then; others never."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tailing import HEADER, Memory, Reader, line

from streams.tail.checkpoint import Checkpoint

#: So soon a rotated file is at its end: with the next look.
SOON = {"rotated_after_s": 1e-9}

HALF, REST = line(2)[:30], line(2)[30:]


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A file in a folder of its own whose last line is half written."""
    path = tmp_path / "avion" / "today.csv"
    path.parent.mkdir()
    path.write_bytes(HEADER + line(1) + HALF)
    return path


def linked(folder: Path) -> Path:
    (other := folder.parent / "mnt").symlink_to(folder)
    return other


def spelled_otherwise(folder: Path) -> Path:
    return folder / ".." / folder.name


def moved(folder: Path) -> Path:
    return folder.rename(folder.parent / "srv")


def mounted_elsewhere(folder: Path) -> Path:
    """What it was mounted on is still there, and empty."""
    other = moved(folder)
    folder.mkdir()
    return other


def linked_beside(folder: Path) -> Path:
    (folder / "today.csv.also").hardlink_to(folder / "today.csv")
    return folder


ELSEWHERE = [linked, spelled_otherwise, moved, mounted_elsewhere, linked_beside]


@pytest.fixture
def memory() -> Memory:
    return Memory()


def is_written_on(memory: Memory, given: Path, path: Path) -> None:
    """Followed from its checkpoint, the file stays, and its last line is whole."""
    reader = Reader(memory, given, delete=True, **SOON)
    assert [reader.look() for _ in range(3)] == [[], [], []]
    with path.open("ab") as log:
        log.write(REST)
    assert reader.look() == [line(2)]
    assert [reader.look() for _ in range(3)] == [[], [], []]
    assert path.exists()
    reader.sources.close()


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=lambda how: how.__name__)
def test_a_file_that_is_given_by_another_path_is_written_on(
    memory: Memory, live: Path, elsewhere: Callable[[Path], Path]
) -> None:
    first = Reader(memory, live.parent)
    assert first.look() == [line(1)]
    first.sources.close()
    folder = elsewhere(live.parent)
    is_written_on(memory, folder, folder / "today.csv")


def test_a_link_that_comes_and_goes(memory: Memory, live: Path) -> None:
    """As a backup may make one. The file is found by the last of its names."""
    Reader(memory, live.parent).look()
    linked_beside(live.parent)
    reader = Reader(memory, live.parent, delete=True, **SOON)
    reader.look()
    (live.parent / "today.csv.also").unlink()
    assert [reader.look() for _ in range(3)] == [[], [], []]
    assert live.exists()
    reader.sources.close()


def test_the_word_of_an_earlier_release_is_not_taken(memory: Memory, live: Path) -> None:
    """It said so of each file that was given by another path, too."""
    Reader(memory, live.parent).look()
    (known,) = memory.files.values()
    memory.files[known.identity] = Checkpoint.model_validate(known.model_dump() | {"rotated": True})
    is_written_on(memory, live.parent, live)


def test_a_folder_that_moves_while_it_is_followed(live: Path) -> None:
    """What a glob finds in it is written on, until another file is where it was."""
    reader = Reader(Memory(), live.parents[1] / "*" / "*.csv", delete=True, **SOON)
    assert reader.look() == [line(1)]
    path = moved(live.parent) / live.name
    assert [reader.look() for _ in range(3)] == [[], [], []]
    live.parent.mkdir()
    live.write_bytes(HEADER + line(3))
    assert sorted(reader.look() + reader.look()) == sorted([HALF, line(3)])
    assert (path.exists(), live.exists()) == (False, True)
    reader.sources.close()


def test_a_folder_that_is_away_for_a_while(live: Path) -> None:
    """As a mount may be."""
    reader = Reader(Memory(), live.parent, delete=True, **SOON)
    assert reader.look() == [line(1)]
    away = moved(live.parent)
    assert [reader.look() for _ in range(3)] == [[], [], []]
    away.rename(live.parent)
    with live.open("ab") as log:
        log.write(REST)
    assert reader.look() == [line(2)]
    assert live.exists()
    reader.sources.close()


def renamed(path: Path) -> None:
    path.rename(path.with_name("today.csv.1"))


def replaced(path: Path) -> None:
    archived(path)
    path.write_bytes(b"")


def archived(path: Path) -> None:
    (path.parent.parent / "archive").mkdir()
    path.rename(path.parent.parent / "archive" / path.name)


def copied(path: Path) -> None:
    path.with_name("today.csv.1").write_bytes(path.read_bytes())
    os.truncate(path, 0)


@pytest.mark.parametrize("runs", [True, False], ids=["followed", "stopped meanwhile"])
@pytest.mark.parametrize("how", [renamed, replaced, archived, copied], ids=lambda how: how.__name__)
def test_what_was_rotated_away_ends_by_silence(
    memory: Memory, live: Path, how: Callable[[Path], None], runs: bool
) -> None:
    """However often the tailer is started anew meanwhile."""
    given = live.parents[1] / "*" / "*.csv*"
    reader = Reader(memory, given, **SOON)
    assert reader.look() == [line(1)]
    if not runs:
        reader.sources.close()
    how(live)
    if not runs:
        reader = Reader(memory, given)
    (away,) = (path for path in live.parents[1].glob("*/*") if path != live)
    assert reader.look() + reader.look() == ([HALF] if runs else [])
    with away.open("ab") as log:
        log.write(REST)
    assert reader.look() == [REST if runs else line(2)]
    reader.sources.close()
    last = Reader(memory, given, delete=True, **SOON)
    for _ in range(3):
        last.look()
    assert not away.exists()
    last.sources.close()


def test_what_was_removed_ends_by_silence(live: Path) -> None:
    reader = Reader(Memory(), live.parent, **SOON)
    assert reader.look() == [line(1)]
    live.unlink()
    live.parent.rmdir()
    assert reader.look() + reader.look() == [HALF]
    reader.sources.close()
