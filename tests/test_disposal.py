"""What becomes of a published file that somebody still writes to."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tailing import HEADER, Memory, Reader, line, lines

from streams.tail.sources import Loss


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """A file of 100 lines in a folder of its own."""
    path = tmp_path / "in" / "log.csv"
    path.parent.mkdir()
    path.write_bytes(HEADER + b"".join(lines(0, 100)))
    return path


def meanwhile(monkeypatch: pytest.MonkeyPatch, what: Callable[[], None]) -> None:
    """The next copy takes so long that ``what`` happens before it ends."""
    copy = shutil.copy2

    def slow(source: Path, target: Path) -> None:
        copy(source, target)
        monkeypatch.undo()
        what()

    monkeypatch.setattr(shutil, "copy2", slow)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as log:
        log.write(data)


def test_what_is_appended_while_it_is_copied_is_read_and_moved(
    incoming: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(Memory(), incoming.parent, once=True, done=elsewhere)
    meanwhile(monkeypatch, lambda: append(incoming, line(100)))
    assert reader.look() == lines(0, 100)
    assert (incoming.exists(), list(elsewhere.iterdir()), reader.sources.scan_due) == (True, [], True)
    assert reader.look() == [line(100)]
    assert not incoming.exists()
    assert (elsewhere / "log.csv").read_bytes() == HEADER + b"".join(lines(0, 101))
    assert not reader.sources.losses


def test_what_takes_its_place_while_it_is_copied_is_read(
    incoming: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        incoming.rename(incoming.with_name("log.csv.1"))
        incoming.write_bytes(HEADER + line(200))

    reader = Reader(Memory(), incoming.parent, once=True, done=elsewhere)
    meanwhile(monkeypatch, replace)
    assert reader.look() == lines(0, 100)
    assert (incoming.exists(), list(elsewhere.iterdir())) == (True, [])
    assert reader.look() == [line(200)]
    assert not list(incoming.parent.iterdir())
    moved = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    assert moved == {"log.csv": HEADER + line(200), "log.csv.1": HEADER + b"".join(lines(0, 100))}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("copied", [False, True], ids=["deleted", "moved"])
def test_what_is_appended_as_it_is_removed_is_told(
    incoming: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, copied: bool, packed: bool
) -> None:
    """Nobody can lock out who writes between a last look and the removal."""
    position, late = incoming.stat().st_size, line(100)
    if packed:
        incoming.write_bytes(gzip.compress(incoming.read_bytes()))
        late = gzip.compress(late)
    unlink = Path.unlink

    def after_it_grew(path: Path) -> None:
        append(path, late)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", after_it_grew)
    given = {"done": elsewhere} if copied else {"delete": True}
    reader = Reader(Memory(), incoming.parent, once=True, **given)
    assert reader.look() == lines(0, 100)
    known = 0 if packed else len(late)
    assert reader.sources.losses == [
        Loss(str(incoming), position, known, "written when it was being removed")
    ]
