"""Fuzzes a framer with atheris: ``python tests/fuzz/framing.py NAME [libFuzzer's options]``; see `make fuzz`.

An input's first bytes choose the limit and where it is cut; the rest is the data, or names it token by token.
"""

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
with atheris.instrument_imports(include=["streams"]):
    from framers import MAKES, check, check_finished, tokens

    from streams.formats import framing, grammar, markup, wide

NAME = sys.argv.pop(1)
# So small that inputs of a few bytes reach them.
grammar.LINES, markup.NESTED, markup.MARGIN, wide._KEPT = 5, 3, 72, 80
framing.HEAD = markup.HEAD = wide.HEAD = 16


def one(given: bytes) -> None:
    """One input."""
    if len(given) < 6:
        return
    limit = (8, 24, 100, 10_000)[given[0] & 3]
    data = given[6:]
    if given[0] & 4:
        known = tokens(NAME)
        data = b"".join(known[byte % len(known)] for byte in data)
    cuts = [cut * (len(data) + 1) // 256 for cut in given[1 : 2 + (given[1] & 3)]]
    check(MAKES[NAME], data, cuts, limit)
    check_finished(MAKES[NAME], data, cuts, limit)


atheris.Setup(sys.argv, one)
atheris.Fuzz()
