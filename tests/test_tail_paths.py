"""The tailer and what file systems are like: moves that are cut short, links, pipes, devices, permissions."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tailing import HEADER, Tail, lines, stop, until
from test_tail_kills import killed

from streams.tail import checkpoint

pytestmark = pytest.mark.broker


@pytest.fixture
def incoming(tail: Tail) -> Path:
    """A file of 500 lines in a folder of its own."""
    path = tail.folder / "in" / "log.csv"
    path.parent.mkdir()
    path.write_bytes(HEADER + b"".join(lines(0, 500)))
    return path


def again(tail: Tail, path: Path, *arguments: str | Path) -> list[bytes]:
    """The tailer runs again if the file is still there, until it is not; what is published of it."""
    if path.exists():
        assert tail.once(path.parent, *arguments)[0] == 0
    assert not path.exists()
    return tail.values(path)


@pytest.mark.parametrize("step", ["before rename", "after rename"])
def test_killed_between_commit_and_move(tail: Tail, incoming: Path, step: str) -> None:
    content, done = incoming.read_bytes(), tail.folder / "done"
    done.mkdir()
    killed(tail, incoming.parent, step, 1, "--done-dir", done)
    assert incoming.exists() == (step == "before rename")
    assert again(tail, incoming, "--done-dir", done) == lines(0, 500)
    assert [(one.name, one.read_bytes()) for one in done.iterdir()] == [("log.csv", content)]


@pytest.mark.parametrize("step", ["before unlink", "after unlink"])
def test_killed_between_commit_and_deletion(tail: Tail, incoming: Path, step: str) -> None:
    killed(tail, incoming.parent, step, 1, "--delete")
    assert incoming.exists() == (step == "before unlink")
    assert again(tail, incoming, "--delete") == lines(0, 500)


@pytest.mark.parametrize("step", ["before rename", "before unlink", "after unlink"])
def test_killed_while_moving_to_another_file_system(
    tail: Tail, incoming: Path, elsewhere: Path, step: str
) -> None:
    """It may be there twice then, but whole, and it is published once."""
    content = incoming.read_bytes()
    killed(tail, incoming.parent, step, 1, "--done-dir", elsewhere)
    assert again(tail, incoming, "--done-dir", elsewhere) == lines(0, 500)
    moved = [one for one in sorted(elsewhere.iterdir()) if not one.name.startswith(".")]
    assert moved[0].name == "log.csv"
    assert {one.read_bytes() for one in moved} == {content}


def test_links_in_a_folder(tail: Tail, incoming: Path) -> None:
    """A file is read once under however many names; links that lead nowhere are no files."""
    folder, other = incoming.parent, tail.folder / "other.csv"
    other.write_bytes(HEADER + b"".join(lines(500, 600)))
    (folder / "again.csv").symlink_to("log.csv")
    (folder / "hard.csv").hardlink_to(incoming)
    (folder / "outside.csv").symlink_to(other)
    (folder / "circle.csv").symlink_to("circle.csv")
    (folder / "nowhere.csv").symlink_to("missing.csv")
    (folder / "folder.csv").mkdir()
    status, said = tail.once(folder, other)
    assert status == 0, said
    assert sorted(tail.values(*folder.iterdir(), other)) == lines(0, 600)


def test_what_is_no_file_in_a_folder(tail: Tail, incoming: Path) -> None:
    """A pipe without a writer would hold up whoever opens it."""
    folder = incoming.parent
    os.mkfifo(folder / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.csv"))
        if os.geteuid() == 0:
            os.mknod(folder / "zero.csv", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        process = tail.start(folder)
        until(lambda: tail.values(incoming) == lines(0, 500))
        stop(process)


@pytest.mark.parametrize("given", ["/dev/null", "/dev/zero"])
def test_a_device_is_a_usage_error(tail: Tail, given: str) -> None:
    status, said = tail.once(Path(given))
    assert (status, f"{given}: not a regular file" in said) == (2, True), said


#: Names that a file system takes: what terminals obey, what shells and globs mean, what is no UTF-8.
NAMES = [
    b"new\nline.csv",
    b"\x1b[2Jred.csv",
    b"*?[a].csv",
    b"-rf.csv",
    "\u202egnp.csv".encode(),
    b"x" * 250 + b".csv",
]


@pytest.mark.parametrize("once", [True, False])
def test_strange_names(tail: Tail, incoming: Path, once: bool) -> None:
    """Each is read, but for what is no text: that is told, and costs the others nothing."""
    folder = incoming.parent
    for number, name in enumerate(NAMES, 1):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(
            HEADER + lines(500 * number, 500 * number + 1)[0]
        )
    odd = Path(os.fsdecode(bytes(folder) + b"/\xdcber.csv"))
    odd.write_bytes(HEADER + lines(9000, 9001)[0])
    process = tail.start(*(["--once"] if once else []), folder)
    there = [one for one in folder.iterdir() if one != odd]
    until(lambda: len(tail.values(*there)) == 500 + len(NAMES))
    if once:
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1, said
    else:
        said = stop(process, status=1)
    assert "its name is not UTF-8" in said
    assert "Traceback" not in said
    assert "unexpected" not in said
    odd.rename(folder / "über.csv")
    status, said = tail.once(folder)
    assert status == 0, said
    assert len(tail.values(*folder.iterdir())) == 501 + len(NAMES)


def test_a_link_that_leads_elsewhere_meanwhile(tail: Tail, incoming: Path) -> None:
    """To another file, to a folder, in a circle, to nothing, and back: what it led to is read once."""
    other = tail.folder / "other.csv"
    other.write_bytes(HEADER + b"".join(lines(500, 600)))
    folder = tail.folder / "links"
    folder.mkdir()
    link = folder / "log.csv"
    link.symlink_to(incoming)
    process = tail.start(folder, TAIL__ROTATED_AFTER_S="0.5")
    until(lambda: len(tail.values(link)) == 500)
    for target in (folder, link, tail.folder / "nowhere", Path("/dev/zero"), other):
        new = folder / ".new"
        new.symlink_to(target)
        new.rename(link)
        time.sleep(0.7)
    until(lambda: len(tail.values(link)) == 600)
    link.unlink()
    link.symlink_to(incoming)
    with incoming.open("ab") as log:
        log.write(b"".join(lines(600, 610)))
    until(lambda: len(tail.values(link, incoming)) == 610)
    stop(process)
    assert sorted(tail.values(link, incoming)) == lines(0, 610)


def test_a_folder_replaced_by_a_file_and_back(tail: Tail, incoming: Path) -> None:
    folder = incoming.parent
    process = tail.start(folder, TAIL__WATCH="poll", TAIL__ROTATED_AFTER_S="0.5")
    until(lambda: len(tail.values(incoming)) == 500)
    aside = folder.rename(tail.folder / "aside")
    folder.write_bytes(b"no folder")
    time.sleep(1.5)
    folder.unlink()
    aside.rename(folder)
    with incoming.open("ab") as log:
        log.write(b"".join(lines(500, 510)))
    until(lambda: len(tail.values(incoming)) == 510)
    stop(process)
    assert tail.values(incoming) == lines(0, 510)


def test_a_file_that_becomes_a_pipe_and_a_file_again(tail: Tail, incoming: Path) -> None:
    process = tail.start(incoming.parent, TAIL__ROTATED_AFTER_S="0.5")
    until(lambda: len(tail.values(incoming)) == 500)
    incoming.unlink()
    os.mkfifo(incoming)
    time.sleep(1.5)
    incoming.unlink()
    incoming.write_bytes(HEADER + b"".join(lines(500, 600)))
    until(lambda: len(tail.values(incoming)) == 600)
    stop(process)
    assert sorted(tail.values(incoming)) == lines(0, 600)


def bound_by_permissions(tail: Tail, folder: Path) -> subprocess.Popen[str]:
    """A tailer that permissions mean something to, even when root runs the tests."""
    given = {"KAFKA__BOOTSTRAP_SERVERS": tail.kafka.bootstrap_servers, "TAIL__NAME": tail.name}
    less = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.Popen(
        [*less, sys.executable, "-m", "streams.cli", "tail", str(folder)],
        env=os.environ | {f"SPOTSTREAM_{name}": value for name, value in given.items()},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may do everything")
def test_permissions_that_come_and_go(tail: Tail) -> None:
    """What is open stays open; what cannot be opened is taken when it can be."""
    folder = tail.folder
    late, early = folder / "late.csv", folder / "early.csv"
    early.write_bytes(HEADER + b"".join(lines(0, 5)))
    process = bound_by_permissions(tail, folder)
    try:
        until(lambda: tail.values(early) == lines(0, 5))
        with early.open("ab", buffering=0) as log:
            early.chmod(0)
            log.write(b"".join(lines(5, 9)))
        until(lambda: tail.values(early) == lines(0, 9))
        late.touch(mode=0)
        late.chmod(0o200)
        late.write_bytes(HEADER + b"".join(lines(9, 12)))
        assert process.stderr
        assert "Permission denied" in next(said for said in process.stderr if "late.csv" in said)
        late.chmod(0o644)
        until(lambda: tail.values(late) == lines(9, 12))
        stop(process)
    finally:
        process.kill()


@pytest.mark.parametrize("attempt", range(3))
def test_two_tailers_that_see_a_new_file_at_once(tail: Tail, attempt: int) -> None:
    """Both claim it; one of them has it then, and each line is there once."""
    folder, path = tail.folder / "in", tail.folder / "in" / "log.csv"
    folder.mkdir()
    names = [f"{tail.name[-50:]}-{name}" for name in "ab"]
    both = [tail.start(folder, TAIL__NAME=name) for name in names]
    until(lambda: checkpoint.read(tail.kafka).claims.keys() >= set(names))
    (tail.folder / "new").write_bytes(HEADER + b"".join(lines(0, 50)))
    (tail.folder / "new").rename(path)
    until(lambda: len(tail.values(path)) >= 50)
    with path.open("ab", buffering=0) as log:
        for start in range(50, 150, 10):
            log.write(b"".join(lines(start, start + 10)))
            time.sleep(0.05)
    until(lambda: len(tail.values(path)) >= 150)
    for process in both:
        process.terminate()
    said = [process.communicate(timeout=15)[1] for process in both]
    assert tail.values(path) == lines(0, 150), said
    assert 0 in [process.returncode for process in both], said


def test_polling_where_there_are_no_notices(tail: Tail, incoming: Path) -> None:
    process = tail.start(incoming.parent, TAIL__WATCH="poll", TAIL__ROTATED_AFTER_S="0.5")
    until(lambda: len(tail.values(incoming)) == 500)
    with incoming.open("ab") as log:
        log.write(b"".join(lines(500, 505)))
    until(lambda: len(tail.values(incoming)) == 505)
    rotated = incoming.rename(incoming.with_suffix(".1"))
    with rotated.open("ab") as log:
        log.write(b"".join(lines(505, 510)))
    incoming.write_bytes(HEADER + b"".join(lines(510, 515)))
    until(lambda: len(tail.values(incoming, rotated)) == 515)
    stop(process)
    assert sorted(tail.values(incoming, rotated)) == lines(0, 515)
