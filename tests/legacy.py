"""A legacy system's export, what docs/examples make of it, and how they are run."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TextIO

_EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
BAD = 97  #: every so many rows have a billing code that nobody knows

_LEGACY_HEADER = "Art;Sender;Datum;SpotNr;Kampagne;Kunde;Motiv;Zeit;Dauer;Zone;Stand;Preis;Abrechnung\n"


def legacy(number: int) -> str:
    """A row as the legacy system exports it."""
    station, clearance = ("WABC", "KXYZ-TV")[number % 2], ("gesendet", "verdrängt")[number % 2]
    code = "??" if number % BAD == 1 else "CASH"
    return (
        f"SPOT;{station};{1 + number % 28:02}.11.2026;{number:06};C-{number % 50};Müller & Söhne, NA;;"
        f"{6 + number % 18:02}:00:{number % 60:02};{10 + number % 50} s;"
        f"EM;{clearance};1.{number % 1000:03},50;{code}\n"
    )


def cleaned(number: int) -> bytes:
    """The same as the profile wants it."""
    station, clearance = ("WABC", "KXYZ-TV")[number % 2], ("CLEARED", "PREEMPTED")[number % 2]
    code = "??" if number % BAD == 1 else "CASH"
    return (
        f'SPOT,{station},11/{1 + number % 28:02}/2026,{number:06},C-{number % 50},"Müller & Söhne, NA",,'
        f"{6 + number % 18:02}:00:{number % 60:02},{10 + number % 50},"
        f"EM,{clearance},1{number % 1000:03}.50,{code}\r\n"
    ).encode()


def export(path: Path, rows: int) -> Path:
    """Write so many rows."""
    with path.open("w", encoding="latin-1") as stream:
        write(stream, rows)
    return path


def write(stream: TextIO, rows: int) -> None:
    """Write the heading and so many rows."""
    stream.write(_LEGACY_HEADER)
    stream.writelines(map(legacy, range(rows)))
    stream.flush()


#: Runs a program and says the most memory it had, in kB.
_MEASURED = (
    "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
    "print(open('/proc/self/status').read())"
)


def example(bootstrap: str, name: str, *arguments: object) -> subprocess.Popen[str]:
    """Run an example of docs/feeding.md."""
    variables = {"SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS": bootstrap, "PYTHONPATH": str(_EXAMPLES)}
    return subprocess.Popen(
        [sys.executable, "-c", _MEASURED, str(_EXAMPLES / name), *map(str, arguments)],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
    )


def peak_mb(process: subprocess.Popen[str]) -> float:
    """Wait for its end, and give the most memory that it had."""
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found = re.search(r"VmHWM:\s+(\d+) kB", said)
    assert found
    return int(found[1]) / 1024
