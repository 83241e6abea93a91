"""A dead letter with all that it says, as the page shows it: what ``spotstream dlq show`` prints."""

from typing import Any

from schemas.errors import Problem
from streams.recovery import deadletters, letters
from streams.recovery.letters import Stored
from topics.connection import KafkaSettings

_SHOWN = 20_000  #: characters


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def exhibit(kafka: KafkaSettings, stored: Stored) -> dict[str, Any]:
    """Its facts, cells, faults that belong to no cell, original and HTTP exchange. Blocks.

    Raises :class:`Problem` when it is not one of ours, or gone, and :class:`Unreachable`.
    """
    letter = letters.load(kafka, [stored]).get(stored.key)
    if letter is None:
        what = "it has ended, parts of it are missing, or it is not a dead letter of spotstream's"
        raise Problem(what, where=stored.key)
    descriptor = deadletters.descriptor_of(kafka, letter)
    cells, faults = deadletters.cells(letter, descriptor) if letter.kind == "record" else ([], {})
    return {
        "key": stored.key,
        "facts": deadletters.facts(stored.key, letter),
        "reasons": letter.reasons,
        "cells": [cell._asdict() for cell in cells],
        "faults": faults,
        "original": _shortened(deadletters.original(letter, descriptor)),
        "exchange": letter.exchange,
        "traceback": letter.traceback,
    }
