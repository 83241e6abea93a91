"""Benchmarks' results as one picture: rates with their spread, latency by percentile, curves of scaling."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import Problem, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What is ours and what it is compared with, apart in black and white, too.
_OURS, _OTHERS = "#1f5f8b", "#b8c4cc"

_WIDTH_IN, _MOST_ROWS = 10, 24


def check(path: Path) -> None:
    """Raise :class:`UsageError` unless :func:`plot` can write ``path``: before hours are spent on it."""
    where = f"--plot {path}"
    if find_spec("matplotlib") is None:
        raise UsageError(
            "matplotlib is not installed", where=where, remedy="install spotstream with its extra bench"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError("its folder does not exist", where=where)
    if path.is_dir():
        raise UsageError("is a folder", where=where, remedy="give a file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError("may not be written", where=where)
    known = _figure(1).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise UsageError("no such kind of picture", where=where, remedy=f"there are {', '.join(known)}")


def plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw ``results``, as ``bench --json`` prints them, one below the other; the suffix tells the form.

    Raises :class:`Problem` when ``path`` cannot be written.
    """
    heights = [1.2 + 0.3 * min(_MOST_ROWS, len(_rows(result))) for result in results]
    figure = _figure(sum(heights))
    parts = figure.subfigures(len(results), height_ratios=heights, squeeze=False)[:, 0]
    for part, result in zip(parts, results, strict=True):
        part.suptitle(f"{result['name']}: {result['work']}", x=0.01, ha="left", fontsize=10)
        _drawing(result)(part, _rows(result))
    # Without a date, and with names that are counted: the same results give the same file.
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise Problem(f"cannot be written: {error.strerror}", where=str(path)) from None


def _figure(height_in: float) -> "Figure":
    # An extra, which takes half a second and is needed by nothing else.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams |= {"svg.hashsalt": "spotstream", "svg.fonttype": "none"}
    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def _rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "contenders" in result:
        return [row for row in result["contenders"] if "skipped" not in row]
    return list(result["rows"])


def _drawing(result: Mapping[str, Any]) -> Callable[[Any, list[dict[str, Any]]], None]:
    if "contenders" in result:
        return _rates
    return _curves if "varied" in result["rows"][0] else _percentiles


def _rates(part: Any, rows: list[dict[str, Any]]) -> None:
    """A bar for each contender, the subject first; its error bar goes from the lowest to the highest."""
    axes: Axes = part.subplots()
    rates = [row["records_per_second"] for row in rows]
    spread = [
        [row["records_per_second"] - row["lowest"] for row in rows],
        [row["highest"] - row["records_per_second"] for row in rows],
    ]
    colours = [_OURS, *[_OTHERS] * (len(rows) - 1)]
    axes.barh([row["name"] for row in rows], rates, xerr=spread, color=colours, capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel("records/s")
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _percentiles(part: Any, rows: list[dict[str, Any]]) -> None:
    """A line for each row, with its percentiles on it; logarithmic, for they lie far apart."""
    axes: Axes = part.subplots()
    figures = [name for name in rows[0] if name.endswith(" ms")]
    labels = [_label(row, figures) for row in rows]
    lowest, highest = ([pick(row[name] for name in figures) for row in rows] for pick in (min, max))
    axes.hlines(labels, lowest, highest, color=_OTHERS, linewidth=4)
    for name, marker in zip(figures, "o^sD", strict=False):
        axes.plot([row[name] for row in rows], labels, marker, color=_OURS, label=name.removesuffix(" ms"))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    part.legend(loc="upper right", ncols=len(figures), fontsize=8, frameon=False)


def _label(row: Mapping[str, Any], figures: Sequence[str]) -> str:
    texts = [
        str(value) if isinstance(value, str) else f"{value:,} {name}"
        for name, value in row.items()
        if name not in figures
    ]
    return ", ".join(texts) or "all"


def _curves(part: Any, rows: list[dict[str, Any]]) -> None:
    """For each thing that was varied, the rate over it."""
    curves = [(name, list(group)) for name, group in groupby(rows, key=lambda row: str(row["varied"]))]
    top = 1.1 * max(row["records/s"] for row in rows)
    for axes, (name, points) in zip(part.subplots(1, len(curves), sharey=True), curves, strict=True):
        at = [point[name] for point in points]
        axes.plot(at, [point["records/s"] for point in points], "o-", color=_OURS)
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [f"{value:,}" for value in at], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel(name)
        axes.set_ylim(0, top)
        axes.yaxis.set_major_formatter("{x:,.0f}")
    part.axes[0].set_ylabel("records/s")
