"""What describes a file once and for all: written to ``avion.files`` with its first record."""

from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict

from schemas.profile import Profile


def _known(encoding: str) -> str:
    try:
        "x".encode(encoding)  # of nothing Python looks up no encoding
    except LookupError:
        raise ValueError("no encoding of text") from None
    return encoding


#: The name of an encoding that Python has.
Encoding = Annotated[str, AfterValidator(_known)]


@lru_cache(maxsize=64)
def _shared(profile: bytes) -> Profile:
    """One for all files that have it: it is nine tenths of a descriptor."""
    return Profile.model_validate_json(profile)


class Descriptor(BaseModel):
    """A file as its first reader saw it; a worker needs nothing else to parse any of its records.

    The whole mapping profile travels along, so a worker on another machine needs no profile files and a
    replay next week maps as today. ``header`` is the heading row as it was split, empty for formats without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str  #: absolute; of a feed ``feed:NAME``
    identity: str  #: the file's identity, hex, which survives renames; of a feed ``feed:NAME``
    format: Literal["csv", "tsv", "fixed", "xml"]  #: of its records
    encoding: Encoding  #: as Python names it
    header: tuple[str, ...] = ()  #: the headings, in order
    profile: Profile  #: the whole mapping profile

    def dump(self) -> bytes:
        """Canonical JSON, the value on ``avion.files``."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @property
    def id(self) -> bytes:
        """16 bytes: the start of the SHA-256 of :meth:`dump`; key on ``avion.files``, in every raw key."""
        return sha256(self.dump()).digest()[:16]

    @classmethod
    def load(cls, value: bytes) -> "Descriptor":
        """Read a descriptor back; raises pydantic's ``ValidationError`` (a ``ValueError``)."""
        fields: Any = orjson.loads(value)
        if isinstance(fields, dict) and isinstance(fields.get("profile"), dict):
            fields["profile"] = _shared(orjson.dumps(fields["profile"], option=orjson.OPT_SORT_KEYS))
        return cls.model_validate(fields)

    @classmethod
    def read(cls, key: bytes, value: bytes) -> "Descriptor":
        """A message of ``avion.files``; raises ``ValueError`` when it is not one of ours.

        The key is a hash of the value, so nobody can put another description under a file's key.
        """
        if sha256(value).digest()[:16] != key:
            raise ValueError("its key is not its value's")
        return cls.load(value)
