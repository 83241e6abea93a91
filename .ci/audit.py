"""Known vulnerabilities of what the lock installs: exit status 1 when there are any.

Where the service that knows them cannot be reached within a minute, or knows none of the packages, that is
said and is no failure: a machine without the internet has to pass, too.
"""

import json
import subprocess
import sys
from typing import Any

_PATIENCE_S = 60
_COMMAND = [
    sys.executable, "-m", "pip_audit", "--requirement", "requirements.lock", "--require-hashes",
    "--disable-pip", "--progress-spinner", "off", "--timeout", "10", "--format", "json",
]  # fmt: skip


def verdict(report: dict[str, Any]) -> tuple[int, str]:
    """Exit status and what to say of pip-audit's report."""
    known = [package for package in report["dependencies"] if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in known
        for vulnerability in package["vulns"]
    ]
    if found:
        return 1, "\n".join(found)
    if not known:
        return 0, "skipped: the service knows none of the packages"
    return 0, f"{len(known)} of {len(report['dependencies'])} packages are known, none of them as vulnerable"


def main() -> int:
    """Ask, and print what was said."""
    try:
        done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        status, line = verdict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        status, line = 0, f"skipped: no answer within {_PATIENCE_S} s"
    except ValueError:  # no report: what it prints instead ends with the error
        why = (done.stderr.strip().splitlines() or ["no report"])[-1]
        status, line = 0, f"skipped: {why[:200]}"
    print(f"audit of dependencies: {line}")
    return status


if __name__ == "__main__":
    sys.exit(main())
