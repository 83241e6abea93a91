"""How secrets are kept out of what people see."""

import json
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus

HIDDEN = "***"
_SHORTEST = 4  # to hide a letter would spoil every text, and it is no secret


def hide(text: str, secrets: Iterable[str]) -> str:
    """``text`` without ``secrets``, as they are or as JSON and URLs would write them."""
    return hider(secrets)(text)


def hider(secrets: Iterable[str]) -> Callable[[str], str]:
    """:func:`hide` for many texts."""
    found = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
    forms = sorted(found, key=len, reverse=True)

    def hidden(text: str) -> str:
        for form in forms:
            text = text.replace(form, HIDDEN)
        return text

    return hidden


def _forms(secret: str) -> tuple[str, ...]:
    return secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret)
