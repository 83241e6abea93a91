"""What is found of files, and what of those that are gone before they can be opened."""

from pathlib import Path

import pytest

from schemas.profile import load
from streams.settings import TailSettings
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
