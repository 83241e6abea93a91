"""Debian's logrotate turns a log over while it is written and tailed: each line once, in order.

With ``copytruncate`` logrotate destroys what is written between its copy and its truncation before anybody
can have read it; so the writer rests meanwhile. With ``create`` nothing rests.
"""

import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tailing import Tail, lines, stop, until

from schemas.descriptor import Descriptor
from topics.catalogue import FILES, RAW
from topics.reader import read_all

LOGROTATE = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin") or ""

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(not LOGROTATE, reason="logrotate is not installed: apt-get install logrotate"),
]

_WRITER = Path(__file__).with_name("logwriter.py")
_ROTATIONS = 6

_CONFIGURATION = """\
{log} {{
    rotate 1000
    {options}
    prerotate
        {before}
    endscript
    postrotate
        {after}
    endscript
}}
"""

#: What logrotate has the writer do before and after it turns a log over: a signal, and the note it waits for.
_ASK = "rm -f {notes}/{note}; kill -{name} {pid}; until [ -e {notes}/{note} ]; do sleep 0.01; done"


class Rotated:
    """A log that a daemon writes and logrotate turns over; ``folder`` has it and what becomes of it."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder, self._notes = folder / "logs", folder / "notes"
        self.folder.mkdir(mode=0o755)
        self._notes.mkdir()
        self.log = self.folder / "log.csv"
        self._writer = subprocess.Popen(
            [sys.executable, str(_WRITER), str(self.log), str(self._notes)], stdout=subprocess.PIPE, text=True
        )
        before, after = "", self._ask("HUP", "reopened")
        if "copytruncate" in options:
            before, after = self._ask("USR1", "resting"), f"kill -USR2 {self._writer.pid}"
        self._configuration = folder / "logrotate.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(log=self.log, options=options, before=before, after=after)
        )
        self._configuration.chmod(0o644)
        self._state = folder / "logrotate.state"
        until(lambda: self.log.exists() and self.log.stat().st_size > 0)

    def _ask(self, name: str, note: str) -> str:
        return _ASK.format(notes=self._notes, name=name, note=note, pid=self._writer.pid)

    def turn_over(self) -> None:
        subprocess.run(
            [LOGROTATE, "--force", "--state", str(self._state), str(self._configuration)],
            check=True,
            timeout=30,
        )

    def end(self) -> list[bytes]:
        """All that was written."""
        self._writer.terminate()
        said, _ = self._writer.communicate(timeout=10)
        return lines(0, int(said))


@pytest.fixture
def rotated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rotated]:
    log = Rotated(tmp_path, request.param)
    yield log
    log._writer.kill()
    log._writer.wait()


def by_file(tail: Tail, folder: Path) -> list[list[bytes]]:
    """What is committed of each file that was in ``folder``, as it lies on the topic."""
    described = ((m.key(), Descriptor.load(m.value())) for m in read_all(tail.kafka, FILES.name))
    ours = {key: file.identity for key, file in described if Path(file.path).parent == folder}
    found = defaultdict(list)
    for message in read_all(tail.kafka, RAW.name):
        if identity := ours.get(message.key()[:16]):
            found[identity].append(message.value())
    return sorted(found.values())


@pytest.mark.parametrize("given", ["folder", "glob"])
@pytest.mark.parametrize(
    "rotated",
    [
        "create",
        "create\n compress\n delaycompress",
        "create\n compress",
        "copytruncate",
        "copytruncate\n compress\n delaycompress",
        "copytruncate\n compress",
    ],
    ids=lambda options: " ".join(options.split()),
    indirect=True,
)
def test_logrotate_under_continuous_writing(tail: Tail, rotated: Rotated, given: str) -> None:
    path = rotated.folder if given == "folder" else rotated.folder / "log.csv*"
    process = tail.start(path, TAIL__ROTATED_AFTER_S="1")
    for _ in range(_ROTATIONS):
        time.sleep(0.4)
        rotated.turn_over()
    time.sleep(0.2)
    written = rotated.end()
    until(lambda: sum(map(len, by_file(tail, rotated.folder))) >= len(written))
    files = by_file(tail, rotated.folder)
    assert [line for file in files for line in file] == written
    assert len(files) > 1, "nothing was turned over"
    stop(process)
