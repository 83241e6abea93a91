"""Checkpoints: how far each file is published, committed with the records themselves."""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, Protocol
from uuid import uuid4

import orjson
from isal import isal_zlib
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import Problem
from schemas.letter import now
from streams.formats.gzipped import START, Member
from streams.tail import chain
from topics.catalogue import CHECKPOINTS
from topics.connection import KafkaSettings
from topics.reader import read_compacted

#: Bytes at the start of a file and before its position that prove that it is the file of a checkpoint.
PROOF = 1024

#: Bytes before its position that are kept themselves. What is appended to a file between its copy and its
#: truncation has to fit, or a tailer that dies meanwhile cannot prove that the copy holds nothing new.
KEPT = 16_384

#: What the keys of claims begin with; a file's key is its identity alone.
CLAIM = b"tailer:"


class File(Protocol):
    """An open file, as far as it is compared with checkpoints."""

    path: str
    device: int
    inode: int
    modified: int

    def read(self, offset: int, size: int) -> bytes: ...

    def know(self, member: Member) -> None: ...


class Stretch(BaseModel):
    """The SHA-256 of a stretch of a file, and its length."""

    model_config = ConfigDict(frozen=True)

    length: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> "Stretch":
        """Of these bytes."""
        return cls(length=len(data), sha256=sha256(data).hexdigest())


class Checkpoint(BaseModel):
    """The value on ``avion.tail.checkpoints`` (JSON); its key is ``identity``.

    ``position`` is the byte offset of everything published or skipped, ``records`` how many records lie
    before it, of which ``oversized`` went to the dead letters. ``pending`` bytes were skipped since the last
    record, ``skipped`` in all. ``device``, ``inode`` and ``modified`` are hints; ``head``, ``recent``, and
    ``digest`` of what may be another file, are the proof: with ``kept`` also for a copy that ends before the
    position. The first checkpoint has no records: it claims the file.

    Completion is ``finished``: the file ends here, ``records``, ``position`` and ``digest`` are of the whole
    of it. ``gone`` says that it was destroyed before its end was seen. ``copy_of`` names the file of which
    this one holds the beginning: as long as it does not grow nothing of it is to be published.
    """

    model_config = ConfigDict(frozen=True)

    identity: str
    path: str
    device: int
    inode: int
    modified: int = 0  #: ``st_mtime_ns`` before it was read the last time; 0 from an earlier release
    descriptor: str  #: id, 32 hex digits, of the last record's; empty before the first record
    partition: int  #: of the raw topic; with ``tail.partitioning = "block"`` the last block's
    position: int = Field(ge=0, le=1 << 53)
    records: int = Field(ge=0, le=1 << 53)
    oversized: int = 0
    skipped: int
    pending: int
    head: Stretch  #: the first bytes of the file
    recent: Stretch  #: the bytes before ``position``
    #: Those bytes themselves, up to :data:`KEPT`, deflated, base 64; none once it was rotated away and ended.
    kept: str = ""
    size: int = Field(0, ge=0, le=1 << 53)  #: bytes that had been seen of the file
    member: Member = START  #: of a gzip file: where reading can go on from
    link: str = ""  #: see :class:`.chain.Chain`; hex
    digest: str = ""  #: of everything before ``position``; hex
    #: The path that it was rotated away from; empty: it was not. An earlier release also took for rotated,
    #: under another key, what was merely given by another path, so its word is not taken.
    rotated_from: str = ""
    finished: bool = False  #: whether the end of the file was taken for its last record's end
    gone: bool = False
    copy_of: str = ""  #: identity
    owner: str  #: name of the tailer that reads it
    at: str

    @property
    def is_claim(self) -> bool:
        """Whether nothing of its file has been published: with its header alone it proves hardly anything."""
        return not (self.records or self.copy_of)

    def proves(self, file: File) -> bool:
        """Whether ``file`` still holds what was published, as far as its head and what was read last tell."""
        if Stretch.of(file.read(0, self.head.length)) != self.head:
            return False
        file.know(self.member)
        recent = file.read(self.position - self.recent.length, self.recent.length)
        if Stretch.of(recent) != self.recent:
            file.know(START)
            return False
        return True

    def proves_whole(self, file: File) -> bool:
        """Whether ``file`` holds every byte that was published. Reads them all."""
        return bool(self.digest) and chain.digest(self.position, file.read) == self.digest

    def still_holds(self, file: File, *, suspect: bool = False) -> bool:
        """As :meth:`proves`; but a re-export may differ in the middle alone, so all is read of what was
        written to since, is another file, or ``suspect``.
        """
        # The device may have another number after each mount, and in each container.
        untouched = self.inode == file.inode and self.modified in (0, file.modified) and not suspect
        return self.proves(file) and (untouched or self.proves_whole(file))

    def proves_beginning(self, file: File, size: int) -> bool:
        """Whether the ``size`` bytes of ``file``, fewer than were published, are the first of those.

        Completed by what is kept they have to give the digest. False when that does not reach back so far.
        """
        kept = unpacked(self.kept)
        begin = self.position - len(kept)
        if not begin <= size < self.position or file.read(begin, size - begin) != kept[: size - begin]:
            return False
        copied = chain.resumed("", size, file.read)
        copied.feed(kept[size - begin :])
        return bool(self.digest) and copied.state()[1] == self.digest

    def for_copy(self, file: File, size: int) -> "Checkpoint":
        """Of a file whose ``size`` bytes are the first of this one."""
        near = min(PROOF, size)
        update = {
            "identity": uuid4().hex,
            "path": file.path,
            "device": file.device,
            "inode": file.inode,
            "modified": file.modified,
            "descriptor": "",
            "position": size,
            "records": 0,
            "oversized": 0,
            "skipped": size,
            "pending": size,
            "head": Stretch.of(file.read(0, near)),
            "recent": Stretch.of(file.read(size - near, near)),
            "kept": "",
            "size": size,
            "member": START,
            "link": "",
            "digest": chain.digest(size, file.read),
            "rotated_from": self.path,
            "finished": True,
            "gone": False,
            "copy_of": self.identity,
            "at": now(),
        }
        return self.model_copy(update=update)

    def is_of(self, file: File) -> bool:
        """Whether ``file`` is the one that was read, as the file system tells; see :meth:`proves`."""
        return (self.device, self.inode) == (file.device, file.inode)


class State(NamedTuple):
    """What the topic says: checkpoints by identity, and by each tailer's name who runs under it."""

    files: dict[str, Checkpoint]
    claims: dict[str, str]

    def earlier(self, identity: str) -> Iterator[Checkpoint]:
        """Those of files that were claimed before the one of ``identity``, the latest first."""
        identities = list(self.files)
        return (self.files[other] for other in reversed(identities[: identities.index(identity)]))


def packed(data: bytes) -> str:
    """As :attr:`Checkpoint.kept` holds it."""
    return b64encode(isal_zlib.compress(data, 1)).decode() if data else ""


@lru_cache(512)
def unpacked(kept: str) -> bytes:
    """What :func:`packed` was given."""
    return isal_zlib.decompress(b64decode(kept)) if kept else b""


def claim(name: str, instance: str) -> dict[str, bytes]:
    """The message by which a process takes over a tailer's name."""
    return {"key": CLAIM + name.encode(), "value": orjson.dumps({"instance": instance, "at": now()})}


def message(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The message that moves a file's checkpoint."""
    return {"key": checkpoint.identity.encode(), "value": checkpoint.model_dump_json().encode()}


def withdrawal(identity: str) -> dict[str, bytes | None]:
    """The message that takes back the claim to a file that turned out to be another tailer's."""
    return {"key": identity.encode(), "value": None}


def read(kafka: KafkaSettings) -> State:
    """Read every checkpoint there is, up to the high watermark: what ``read_committed`` shows may be older.

    Raises :class:`Unreachable`, and :class:`Problem` when a transaction that hides some stays open.
    """
    latest = read_compacted(kafka, CHECKPOINTS.name)
    return state({key: parsed(key, value) for key, value in latest.items()})


def parsed(key: bytes, value: bytes) -> Checkpoint | str | None:
    """A file's checkpoint, or who runs under a tailer's name; None where a message tells neither."""
    try:
        key.decode()
        if key.startswith(CLAIM):
            return str(orjson.loads(value)["instance"])
        return Checkpoint.model_validate_json(value)
    except (ValueError, LookupError, TypeError):
        return None


def state(latest: dict[bytes, Checkpoint | str | None]) -> State:
    """From what is :func:`parsed` of the latest value of every key, in the order in which they appeared.

    Raises :class:`Problem`.
    """
    told = State({}, {})
    for key, found in latest.items():
        if found is None:
            # To pass it over could publish a file again: perhaps it hides the checkpoint of one.
            raise Problem(
                f"what stands under the key {key!r} is no checkpoint of spotstream's",
                where=CHECKPOINTS.name,
                remedy="find out who wrote it; a message without a value under that key ends it",
            )
        if isinstance(found, str):
            told.claims[key[len(CLAIM) :].decode()] = found
        else:
            told.files[key.decode()] = found
    return told
