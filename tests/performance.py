"""The figures of README.md and docs/scaling.md: ``python tests/performance.py RESULTS.json…``.

The files are what ``spotstream bench --json`` printed. Their results take the places of those in
docs/performance.json that have the same names, and the pages' tables and pictures are made of that.
``make figures`` measures them first.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from streams.lab.bench.contest import told
from streams.lab.bench.plot import plot

_ROOT = Path(__file__).parent.parent
RESULTS = _ROOT / "docs" / "performance.json"
PAGES = (_ROOT / "README.md", _ROOT / "docs" / "scaling.md")

_Result = dict[str, Any]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; all but the first columns are numbers."""
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rates(results: Sequence[_Result]) -> str:
    rows = []
    for result in results:
        present = [row for row in result["contenders"] if "skipped" not in row]
        for number, row in enumerate(present):
            rate, lowest, highest = (f"{row[name]:,}" for name in ("records_per_second", "lowest", "highest"))
            times = f"{row['subject_is_times_as_fast']:.2f}" if number else ""
            name = row["name"] if number else f"**{row['name']}**"
            rows.append([name, rate, f"{lowest} to {highest}", times])
    return table(["", "records/s", "lowest to highest", "spotstream is … times as fast"], rows)


def rows_of(rows: Sequence[dict[str, Any]]) -> str:
    """A table of rows that are alike."""
    texts = [[value if isinstance(value, str) else f"{value:,}" for value in row.values()] for row in rows]
    return table(list(rows[0]), texts)


def parts(results: Sequence[_Result]) -> Iterator[tuple[str, str]]:
    """Name and text of each part that a page may have between ``<!-- name -->`` and ``<!-- /name -->``."""
    for result in results:
        runs = f"Median of {result['runs']}. " if result["runs"] > 1 else ""
        text = _rates([result]) if "contenders" in result else rows_of(result["rows"])
        if overhead := result.get("overhead"):
            text += f"\n\n{told(overhead)}"
        work = result["work"]
        yield result["name"], f"{runs}{work[:1].upper()}{work[1:]}.\n\n{text}"


def fill(text: str, parts: Iterable[tuple[str, str]]) -> str:
    """``text`` with these between its marks."""
    for name, made in parts:
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n\n{made}\n\n{end}{rest.partition(end)[2]}"
    return text


def main(paths: Sequence[str]) -> None:
    """Take over these results, and make all that is made of them."""
    read = [result for path in (RESULTS, *paths) for result in orjson.loads(Path(path).read_bytes())]
    results = list({result["name"]: result for result in read}.values())
    RESULTS.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    for path in PAGES:
        path.write_text(fill(path.read_text(encoding="utf-8"), parts(results)), encoding="utf-8")
    scale = [result for result in results if result["name"] == "scale"]
    others = [result for result in results if result["name"] != "scale"]
    for drawn, name in ((others, "performance.svg"), (scale, "scaling.svg")):
        if drawn:
            plot(drawn, RESULTS.with_name(name))


if __name__ == "__main__":
    main(sys.argv[1:])
