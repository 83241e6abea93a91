"""What a consumer gives, whichever consumer it is."""

from collections.abc import Sequence
from typing import Protocol


class Record(Protocol):
    """A record of a topic; its time stamp is in milliseconds since 1970."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Fetched(Record, Protocol):
    """A record as it was fetched, with all that lies beside it; headers as (name, value)."""

    @property
    def timestamp_type(self) -> int: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...
