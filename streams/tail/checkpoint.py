"""Checkpoints: how far each file is published, committed with the records themselves."""

from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import uuid4

import orjson
from pydantic import BaseModel, ConfigDict

from schemas.letter import now
from streams.formats.gzipped import START, Member
from streams.tail import chain
from topics.catalogue import CHECKPOINTS
from topics.connection import KafkaSettings
from topics.reader import read_compacted

#: Bytes at the start of a file and before its position that prove that it is the file of a checkpoint.
PROOF = 1024

#: What the keys of claims begin with; a file's key is its identity alone.
_CLAIM = b"tailer:"


class File(Protocol):
    """An open file, as far as it is compared with checkpoints."""

    path: str
    device: int
    inode: int

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
    record, ``skipped`` in all. ``device`` and ``inode`` are hints; ``head``, ``recent``, and for a copy
    ``digest``, are the proof. The first checkpoint has no records: it claims the file.

    Completion is ``finished``: the file ends here, ``records``, ``position`` and ``digest`` are of the whole
    of it. ``gone`` says that it was destroyed before its end was seen.
    """

    model_config = ConfigDict(frozen=True)

    identity: str
    path: str
    device: int
    inode: int
    descriptor: str  #: id, 32 hex digits, of the last record's; empty before the first record
    partition: int  #: of the raw topic; with ``tail.partitioning = "block"`` the last block's
    position: int
    records: int
    oversized: int = 0
    skipped: int
    pending: int
    head: Stretch  #: the first bytes of the file
    recent: Stretch  #: the bytes before ``position``
    size: int = 0  #: bytes that had been seen of the file
    member: Member = START  #: of a gzip file: where reading can go on from
    link: str = ""  #: see :class:`.chain.Chain`; hex
    digest: str = ""  #: of everything before ``position``; hex
    rotated: bool = False  #: whether its path has led to another file since
    finished: bool = False  #: whether the end of the file was taken for its last record's end
    gone: bool = False
    owner: str  #: name of the tailer that reads it
    at: str

    def proves(self, file: File) -> bool:
        """Whether ``file`` still holds what was published."""
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

    def for_copy(self, file: File, size: int) -> "Checkpoint":
        """Of a file that is a copy of the beginning of this one: nothing of it is to be published."""
        near = min(PROOF, size)
        copied = chain.resumed("", size, file.read)
        link, digest = copied.state()
        update = {
            "identity": uuid4().hex,
            "path": file.path,
            "device": file.device,
            "inode": file.inode,
            "descriptor": "",
            "position": size,
            "records": 0,
            "oversized": 0,
            "skipped": size,
            "pending": size,
            "head": Stretch.of(file.read(0, near)),
            "recent": Stretch.of(file.read(size - near, near)),
            "size": size,
            "link": link,
            "digest": digest,
            "rotated": True,
            "finished": True,
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

    def of(self, file: File, taken: Collection[str] = ()) -> Checkpoint | None:
        """The checkpoint of an open file: same inode or same path, and the same content as published.

        ``taken`` are the identities of files that are being read already.
        """
        return next((known for known in self.near(file, taken) if known.proves(file)), None)

    def near(self, file: File, taken: Collection[str] = ()) -> list[Checkpoint]:
        """The checkpoints with the inode or the path of an open file, whatever its content; newest first."""
        free = [known for known in self.files.values() if known.identity not in taken]
        inode = [known for known in free if known.is_of(file)]
        path = [known for known in free if known.path == file.path and known not in inode]
        return sorted(inode, key=_at, reverse=True) + sorted(path, key=_at, reverse=True)

    def copied(self, file: File, owners: Collection[str]) -> Iterator[Checkpoint]:
        """The checkpoints of files that this one is a copy of, by every byte that was published of them."""
        return (
            known for known in self.alike(file, owners) if known.proves(file) and known.proves_whole(file)
        )

    def alike(self, file: File, owners: Collection[str]) -> Iterator[Checkpoint]:
        """The checkpoints of files that began as this one, newest first.

        Only those of ``owners`` or of the same folder: what others read elsewhere may be equal by chance.
        """
        heads: dict[int, Stretch] = {}
        folder = Path(file.path).parent
        near = (
            known
            for known in self.files.values()
            if Path(known.path).parent == folder or known.owner in owners
        )
        begun = (known for known in near if known.records or known.finished)
        for known in sorted(begun, key=_at, reverse=True):
            length = known.head.length
            if length not in heads:
                heads[length] = Stretch.of(file.read(0, length))
            if heads[length] == known.head:
                yield known

    def earlier(self, identity: str) -> Iterator[Checkpoint]:
        """Those of files that were claimed before the one of ``identity``, the latest first."""
        identities = list(self.files)
        return (self.files[other] for other in reversed(identities[: identities.index(identity)]))


def _at(checkpoint: Checkpoint) -> str:
    return checkpoint.at


def claim(name: str, instance: str) -> dict[str, bytes]:
    """The message by which a process takes over a tailer's name."""
    return {"key": _CLAIM + name.encode(), "value": orjson.dumps({"instance": instance, "at": now()})}


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
    return state(read_compacted(kafka, CHECKPOINTS.name))


def state(latest: dict[bytes, bytes]) -> State:
    """From the latest value of every key, in the order in which the keys appeared."""
    told = State({}, {})
    for key, value in latest.items():
        if key.startswith(_CLAIM):
            told.claims[key[len(_CLAIM) :].decode()] = orjson.loads(value)["instance"]
        else:
            told.files[key.decode()] = Checkpoint.model_validate_json(value)
    return told
