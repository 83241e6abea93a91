"""Plots of benchmarks' results: written from small ones of each form, and what cannot be written is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import UsageError
from streams.lab.bench.plot import check, plot

_RATES = {
    "name": "validate",
    "work": "10,000 records",
    "runs": 3,
    "contenders": [
        {
            "name": "spotstream", "records_per_second": 50, "lowest": 40, "highest": 55,
            "subject_is_times_as_fast": 1.0,
        },
        {
            "name": "a loop", "records_per_second": 30, "lowest": 29, "highest": 41,
            "subject_is_times_as_fast": 1.67,
        },
        {"name": "kcat", "skipped": "kcat is not installed"},
    ],
}  # fmt: skip
_LATENCY = {
    "name": "latency",
    "work": "one log",
    "runs": 1,
    "rows": [
        {"records/s": 100, "windows": "early", "until": "booked", "p50 ms": 9, "p99 ms": 40, "p99.9 ms": 90},
        {"records/s": 1000, "windows": "early", "until": "booked", "p50 ms": 8, "p99 ms": 50, "p99.9 ms": 99},
    ],
}  # fmt: skip
_DELAY = {
    "name": "tail-delay",
    "work": "lines",
    "runs": 1,
    "rows": [{"p50 ms": 2.5, "p99 ms": 9.1, "highest ms": 20.0}],
}  # fmt: skip
_SCALE = {
    "name": "scale",
    "work": "the whole flow",
    "runs": 1,
    "rows": [
        {"varied": "workers", "workers": 1, "partitions": 8, "records/s": 20_000},
        {"varied": "workers", "workers": 2, "partitions": 8, "records/s": 30_000},
        {"varied": "partitions", "workers": 1, "partitions": 1, "records/s": 21_000},
        {"varied": "partitions", "workers": 1, "partitions": 64, "records/s": 19_000},
    ],
}  # fmt: skip


def test_a_plot_shows_every_result_with_its_figures_names(tmp_path: Path) -> None:
    path = tmp_path / "all.svg"
    plot([_RATES, _LATENCY, _DELAY, _SCALE], path)
    drawn = path.read_text()
    for text in ("validate: 10,000 records", "a loop", "100 records/s, early, booked", "p99.9",
                 "highest", "workers", "partitions", "64"):  # fmt: skip
        assert f">{text}</text>" in drawn, text
    assert "kcat" not in drawn


def test_the_same_results_give_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "1.svg", tmp_path / "2.svg"
    plot([_RATES], first)
    plot([_RATES], second)
    assert first.read_bytes() == second.read_bytes()


def test_a_png_is_one(tmp_path: Path) -> None:
    path = tmp_path / "rates.png"
    check(path)
    plot([_RATES], path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "what"), [("rates.txt", "no such kind of picture"), ("nowhere/rates.png", "does not exist")]
)
def test_what_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, name: str, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        check(tmp_path / name)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="its extra bench"):
        check(tmp_path / "rates.png")


def test_bench_refuses_a_picture_that_it_could_not_draw(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streams.cli", "bench", "tail", "--plot", str(tmp_path / "tail.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (UsageError.exit_status, "")
    assert "no such kind of picture" in done.stderr
