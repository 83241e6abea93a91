"""What is found of files, and what of those that are gone before they can be opened."""

import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from tailing import HEADER, line

from schemas import profile
from schemas.profile import load
from streams.settings import TailSettings
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
