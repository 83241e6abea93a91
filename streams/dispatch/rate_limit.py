"""The RateLimit and RateLimit-Policy fields (IETF draft-ietf-httpapi-ratelimit-headers)."""

import math
from typing import Any, NamedTuple

import http_sf

from streams.dispatch.retry_after import CAP_S


class RateLimit(NamedTuple):
    """What an answer tells of the account's limit: the tightest of its quotas."""

    remaining: float  #: requests that are left for ``reset_s``; infinite: it did not say
    reset_s: float  #: seconds until the quota is whole again
    per_minute: float  #: the quota of a short window, scaled to a minute; infinite: it did not say


def read(limit: str, policy: str) -> RateLimit | None:
    """Read both fields (empty: not there); None when neither says anything that can be understood.

    A field that is malformed counts as absent, as RFC 9651 asks for. Quotas of anything but requests are
    passed over. So are the windows of those longer than :data:`.retry_after.CAP_S`: spread over a month, a
    monthly quota would leave minutes between two requests from its first day on. What is left of one counts.
    """
    policies = {name: given for name, given in _items(policy) if given.get("qu", "requests") == "requests"}
    quotas = [
        given["q"] * 60 / given["w"]
        for given in policies.values()
        if _positive(given, "q", "w") and given["w"] <= CAP_S
    ]
    lefts = [
        (given["r"], min(CAP_S, given["t"]))
        for name, given in _items(limit)
        if _count(given.get("r")) and _positive(given, "t") and (name in policies or not policies)
    ]
    if not quotas and not lefts:
        return None
    remaining, reset_s = min(lefts, key=lambda left: left[0] / left[1], default=(math.inf, 0.0))
    return RateLimit(remaining, reset_s, min(quotas, default=math.inf))


def _items(field: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        parsed: Any = http_sf.parse(field.encode(), tltype="list")
    except ValueError:
        return []
    return [(str(name), given) for name, given in parsed if not isinstance(name, list)]


def _positive(given: dict[str, Any], *names: str) -> bool:
    return all(_count(given.get(name)) and given[name] > 0 for name in names)


def _count(value: object) -> bool:
    return type(value) is int and value >= 0
