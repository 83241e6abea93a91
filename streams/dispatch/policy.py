"""What each HTTP status means for a batch: one table, which the setting ``dispatch.policy`` can change.

200 and 207 are not in it: they say what became of each record, or are an answer that nobody can read.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import StringConstraints

Action = Literal[
    "retry",  # booked or not, nobody knows: send again under the same key, with full jitter; the API's error
    "again",  # the same, but nobody's error
    "pause",  # the account's limit: the whole worker waits, for Retry-After if it is there; nobody's error
    "unauthorized",  # the credentials are at fault and the data is not: the whole worker waits
    "refuse",  # the data is at fault, and would be again: dead letters
]

#: A status, or all of a class.
Status = Annotated[str, StringConstraints(pattern=r"^([1345][0-9]{2}|20[1-689]|2[1-9][0-9]|[1-5]xx)$")]

#: What is not named here is retried: a status that we do not know says nothing about the data.
POLICY: Mapping[Status, Action] = {
    "400": "refuse",  # malformed
    "401": "unauthorized",  # expired, revoked or unknown credentials
    "403": "unauthorized",  # they are known, but may not do this
    "408": "again",  # the API gave up waiting for our body
    "409": "again",  # a request under this key is in flight: one of ours that we gave up on
    "413": "refuse",  # too large
    "422": "refuse",  # the key with other records, or records that mean nothing to Avstar
    "425": "again",  # too early
    "429": "pause",  # too many requests
}


def action(status: int, policy: Mapping[Status, Action]) -> Action:
    """What to do about ``status``; ``policy`` goes before :data:`POLICY`, a status before its class."""
    name, kind = str(status), f"{status // 100}xx"
    for table in (policy, POLICY):
        for entry in (name, kind):
            if entry in table:
                return table[entry]
    return "retry"
