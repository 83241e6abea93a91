"""A dead letter too large for one message: parts of it under the keys ``<key> n/m``, each a letter too.

Every part carries all of the context and a piece of ``original``, so one alone still tells what happened.
"""

from collections.abc import Iterable

from schemas.letter import DeadLetter

#: Of a message on ``avstar.dlq``, key and headers aside; the topic takes 24 MiB.
MOST_BYTES = 22 * 1_048_576


def split(key: str, letter: DeadLetter, most_bytes: int = MOST_BYTES) -> list[tuple[str, DeadLetter]]:
    """``letter`` under ``key``, or its parts under theirs when its JSON has more than ``most_bytes``.

    Raises ``ValueError`` when the context alone has more.
    """
    letter = letter.model_copy(update={"part": ""})
    size = len(letter.dump())
    if size <= most_bytes:
        return [(key, letter)]
    around = size - len(letter.original) * 4 // 3 + 64  # the part's number, and base64's last group
    piece = (most_bytes - around) // 4 * 3
    if piece <= 0:
        raise ValueError(f"a dead letter's context alone has {around} bytes")
    pieces = [letter.original[at : at + piece] for at in range(0, len(letter.original), piece)]
    numbers = [f"{number}/{len(pieces)}" for number in range(1, len(pieces) + 1)]
    return [
        (f"{key} {number}", letter.model_copy(update={"part": number, "original": original}))
        for number, original in zip(numbers, pieces, strict=True)
    ]


def whole(key: str) -> str:
    """The letter's key, of a part's or of its own."""
    return key.partition(" ")[0]


def join(parts: Iterable[DeadLetter]) -> DeadLetter | None:
    """The letter of which these are all parts, in any order; None while some are missing."""
    found = sorted(parts, key=lambda part: int(part.part.partition("/")[0] or 0))
    first = found[0]
    if not first.part:
        return first
    of = first.part.partition("/")[2]
    if [part.part for part in found] != [f"{number}/{of}" for number in range(1, int(of) + 1)]:
        return None
    return first.model_copy(update={"part": "", "original": b"".join(part.original for part in found)})
