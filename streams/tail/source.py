"""Sources: the files that are being read, each from its checkpoint on."""

import copy
import errno
import os
import stat
from pathlib import Path
from time import monotonic
from uuid import uuid4

from schemas.descriptor import Descriptor
from schemas.errors import UsageError
from schemas.letter import now
from schemas.profile import Profile
from streams.formats.framers import framer
from streams.formats.framing import Framed
from streams.formats.gzipped import MAGIC, START, Gunzip, Member
from streams.settings import TailSettings
from streams.tail import chain
from streams.tail.chain import GRID
from streams.tail.checkpoint import KEPT, PROOF, Checkpoint, Stretch, packed
from streams.tail.head import SIZE, Head, examine

#: Bytes kept of what was read last.
_NEAR = KEPT


#: More bytes than any file has.
_UNKNOWN = 1 << 62


#: Errors that only somebody ends who does something to the file or its folder.
_LASTING = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class PassingError(UsageError):
    """A file cannot be read now, but neither what it holds nor where it lies is why: it may be later."""


class _Compressed:
    """A gzip file's own bytes; none any more once those that were read are not there."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._first = self._near = b""  # of what was read, the first bytes and the last ones
        self._end = 0
        self._is_overwritten = False

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if offset + len(data) <= self._end:
            return data
        if self.is_overwritten():  # only after what is new was read does it tell of that, too
            return b""
        if offset <= len(self._first) < PROOF:
            self._first = (self._first[:offset] + data)[:PROOF]
        before = self._near if offset <= self._end else b""
        self._near = (before + data[max(0, self._end - offset) :])[-PROOF:]
        self._end = offset + len(data)
        return data

    def is_overwritten(self) -> bool:
        near = os.pread(self._fd, len(self._near), self._end - len(self._near))
        if near != self._near or os.pread(self._fd, len(self._first), 0) != self._first:
            self._is_overwritten = True
        return self._is_overwritten


def _is_text(path: str) -> bool:
    """Whether checkpoints and descriptors, which are JSON, can hold it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


class OpenFile:
    """A file open for reading; of a gzip file, what is inside.

    Raises :class:`UsageError` when it cannot be opened, is no regular file, or has a name that is no text;
    of that a :class:`PassingError` for want of descriptors, say.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not _is_text(path):
            shown = path.encode(errors="backslashreplace").decode()
            raise UsageError("its name is not UTF-8", where=shown, remedy="rename it")
        try:
            # Before it is opened: that alone does things to a pipe's writer, or to a device.
            if not stat.S_ISREG(Path(path).stat().st_mode):
                raise UsageError("not a regular file", where=path)
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageError("no such file", where=path) from None
        except OSError as error:
            raise _refusal(error, path) from None
        status = os.fstat(self._fd)
        self.device, self.inode = status.st_dev, status.st_ino
        #: When it had been written to last (``st_mtime_ns``) before it was read.
        self.modified = status.st_mtime_ns
        self._compressed = _Compressed(self._fd)
        self._gunzip: Gunzip | None = None

    def size(self) -> int:
        """In bytes, now; of a gzip file that has not been read to its end, more than any has."""
        size = os.fstat(self._fd).st_size
        if not self._gunzip:
            return size
        return self._gunzip.inside if self._gunzip.whole and self._gunzip.consumed >= size else _UNKNOWN

    def written(self) -> int:
        """When it was written to last, as :attr:`modified`."""
        return os.fstat(self._fd).st_mtime_ns

    @property
    def is_unlinked(self) -> bool:
        """Whether no path leads to it any more; False where that cannot be told."""
        try:
            return os.fstat(self._fd).st_nlink == 0
        except OSError:
            return False

    @property
    def is_gzip(self) -> bool:
        """Whether it is compressed; known once it has been read."""
        return self._gunzip is not None

    @property
    def is_being_compressed(self) -> bool:
        """Whether it is compressed and, as far as it was read, not to its end yet."""
        return self.is_gzip and self.size() == _UNKNOWN

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``; less only where the file ends, or cannot be inflated."""
        if self._gunzip:
            return self._gunzip.read(offset, size)
        data = os.pread(self._fd, size, offset)
        if not offset and data.startswith(MAGIC):
            self._gunzip = Gunzip(self._compressed)
            return self._gunzip.read(offset, size)
        return data

    def is_overwritten(self) -> bool:
        """Whether a gzip file does not hold what was read of it; what is inside may be told from memory."""
        return self.is_gzip and self._compressed.is_overwritten()

    def check(self, *, final: bool) -> None:
        """Raise ``DamagedError`` where what follows cannot be read; ``final``: the file does not grow."""
        if self._gunzip:
            self._gunzip.check(final=final)

    def member(self, inside: int) -> Member:
        """Where reading can go on from that is to begin at ``inside``; see :meth:`Gunzip.member`."""
        return self._gunzip.member(inside) if self._gunzip else START

    def know(self, member: Member) -> None:
        """See :meth:`Gunzip.know`."""
        if self._gunzip:
            self._gunzip.know(member)

    def is_at_end(self, position: int) -> bool:
        """Whether it has nothing from ``position`` on; False where that cannot be told."""
        try:
            return not self.read(position, 1)
        except OSError:
            return False

    def is_at(self, path: str) -> bool:
        """Whether ``path`` leads to it now."""
        try:
            there = os.stat(path)  # noqa: PTH116 - a thousand files are looked at again and again
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (self.device, self.inode)

    def examine(self, profile: Profile, *, final: bool) -> Head | None:
        """What its first bytes tell, see :func:`.head.examine`."""
        try:
            data = self.read(0, SIZE)
        except OSError as error:
            raise _refusal(error, self.path) from None
        return examine(data, profile, self.path, final=final)

    def again(self) -> "OpenFile":
        """Another one of the same file, which may be at no path any more."""
        other = copy.copy(self)
        other._fd, other._gunzip = os.dup(self._fd), None
        other._compressed = _Compressed(other._fd)
        return other

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def _refusal(error: OSError, path: str) -> UsageError:
    kind = UsageError if error.errno in _LASTING else PassingError
    return kind(f"cannot be read: {error.strerror}", where=path)


class OverwrittenError(Exception):
    """The file does not hold what was read of it any more: it was truncated, or written anew in place."""


class Source:
    """A file being read: where reading stands, and the checkpoint that says so.

    A ``known`` file goes on from its checkpoint; another begins, under a new identity.
    """

    def __init__(
        self,
        file: OpenFile,
        head: Head,
        profile: Profile,
        settings: TailSettings,
        *,
        partitions: int,
        known: Checkpoint | None,
    ) -> None:
        self.file = file
        self.real_path = os.path.realpath(file.path)
        self._settings, self._partitions = settings, partitions
        self.identity = known.identity if known else uuid4().hex
        self.descriptor = Descriptor(
            path=file.path,
            identity=self.identity,
            format=profile.format,
            encoding=head.encoding,
            header=head.header,
            profile=profile,
        )
        self.descriptor_id = self.descriptor.id
        #: Whether the descriptor is on ``avion.files``; a renamed file or an edited profile makes a new one.
        self.described = known is not None and known.descriptor == self.descriptor_id.hex()
        self._described_before = known.descriptor if known else ""
        #: Of the raw topic. From the descriptor, so that files spread; kept when there come to be more.
        self.partition = known.partition if known else int.from_bytes(self.descriptor_id[:8]) % partitions
        self.finished = known.finished if known else False
        #: Where it was written, whether it was moved away from there, and when it last grew (``monotonic``).
        self.home = (known.rotated_from or known.path) if known else file.path
        self.rotated = False
        self.grown_at = monotonic()
        #: Whether its end was destroyed before it could be read.
        self.gone = False
        #: Whether it is to be finished.
        self.ending = False
        self._over = False
        self._oversized = known.oversized if known else 0
        self._skipped = known.skipped if known else head.start
        self._framer = framer(
            profile,
            head.encoding,
            settings.max_record_bytes,
            position=known.position if known else head.start,
            number=known.records if known else 0,
            pending=known.pending if known else head.start,
        )
        begin = self._framer.position
        self._chain = chain.resumed(known.link if known else "", begin, file.read)
        # The file may be overwritten at any time; what proves it has to be what was read.
        self._first = file.read(0, max(known.head.length, min(PROOF, begin)) if known else PROOF)
        self._near = file.read(max(0, begin - _NEAR), min(_NEAR, begin))
        self._recent = self._near[-KEPT:]
        self._ahead = b""
        #: Bytes that the file was seen to have.
        self.seen = max(begin, 0 if file.is_gzip else file.size())

    @property
    def position(self) -> int:
        """Offset up to which every record has been given out."""
        return self._framer.position

    @property
    def held(self) -> int:
        """Bytes read beyond that, of a record that has not ended."""
        return self._framer.held

    @property
    def end(self) -> int:
        """Offset up to which it has been read."""
        return self.position + self.held

    def read(self, *, final: bool) -> Framed | None:
        """The records that the next block completes; None when there is nothing new.

        ``final`` takes the end of the file, once reached, for the end of its last record and of reading.
        Raises ``OSError``, and :class:`OverwrittenError` when the bytes before are not what they were.
        """
        block = b"" if self._over else self._next_block()
        if not block and not self._over:
            self.file.check(final=final)
        if not block and (self._over or self.finished or not final):
            return None
        return self._frame(block, final=final and self.end + len(block) >= self.file.size())

    def finish(self) -> Framed:
        """The records that are left when nothing follows what was read."""
        return self._frame(b"", final=True)

    def is_overwritten(self) -> bool:
        """Whether the file does not hold any more what was read last, or is shorter than it was."""
        near = self._near[-PROOF:]
        try:
            if self.file.is_overwritten() or self.file.size() < self.seen or not self._begins_as_seen():
                return True
            return self.file.read(self.end - len(near), len(near)) != near
        except OSError:
            return False

    def _begins_as_seen(self) -> bool:
        """Whether what was seen of it before it was read is still there."""
        return self.end >= len(self._first) or self.file.read(0, len(self._first)) == self._first

    def _next_block(self) -> bytes:
        if not self._begins_as_seen():
            raise OverwrittenError(self.file.path)
        near, written = self._near[-PROOF:], self.file.written()
        data = self.file.read(self.end - len(near), len(near) + self._settings.block_bytes)
        if not data.startswith(near) or self.file.is_overwritten():
            raise OverwrittenError(self.file.path)
        if len(data) == len(near):
            return b""
        self._near = (self._near + data[len(near) :])[-_NEAR:] if len(data) < _NEAR else data[-_NEAR:]
        self.grown_at, self.file.modified = monotonic(), written
        self.seen = max(
            self.seen, self.end + len(data) - len(near), 0 if self.file.is_gzip else self.file.size()
        )
        return data[len(near) :]

    def _frame(self, block: bytes, *, final: bool) -> Framed:
        begin = self.position
        framed = self._framer.feed(block, final=final)
        self.finished = self._over = final
        self._oversized += len(framed.oversized)
        self._skipped += self.position - begin - framed.size
        self._lengthen(block)
        if self._settings.partitioning == "block":
            self.partition = (self.partition + 1) % self._partitions
        return framed

    def _lengthen(self, block: bytes) -> None:
        """Bring chain and proof to the position. What was read beyond is kept, but not a line without end."""
        ahead = self._ahead + block
        is_long = self.held > self._settings.max_record_bytes + GRID
        if self._chain.end + len(ahead) != self.end:
            while missing := self.file.read(self._chain.end, min(GRID, self.position - self._chain.end)):
                self._prove(missing)
            ahead = b"" if is_long else self.file.read(self.position, self.held)
        done = self.position - self._chain.end
        self._prove(memoryview(ahead)[:done])
        self._ahead = b"" if is_long else ahead[done:]

    def _prove(self, data: bytes | memoryview) -> None:
        self._chain.feed(data)
        missing = self._chain.end - len(self._first)
        if missing > 0 and len(self._first) < PROOF:
            self._first = (self._first + bytes(data[-missing:]))[:PROOF]
        self._recent = (self._recent + bytes(data[-KEPT:]))[-KEPT:]

    def checkpoint(self) -> Checkpoint:
        """Where reading stands now."""
        link, digest = self._chain.state()
        # Of what was rotated away and has ended there is a whole copy before it goes.
        kept = b"" if self.finished and self.rotated else self._recent
        return Checkpoint(
            identity=self.identity,
            path=self.file.path,
            device=self.file.device,
            inode=self.file.inode,
            modified=self.file.modified,
            descriptor=self.descriptor_id.hex() if self.described else self._described_before,
            partition=self.partition,
            position=self.position,
            records=self._framer.number,
            oversized=self._oversized,
            skipped=self._skipped,
            pending=self._framer.pending,
            head=Stretch.of(self._first),
            recent=Stretch.of(self._recent[-PROOF:]),
            kept=packed(kept),
            size=max(self.end, self.seen),
            member=self.file.member(max(0, min(chain.start(self.position), self.position - _NEAR))),
            link=link,
            digest=digest,
            rotated_from=self.home if self.rotated else "",
            finished=self.finished,
            gone=self.gone,
            owner=self._settings.name,
            at=now(),
        )

    @property
    def records(self) -> int:
        """Records framed so far."""
        return self._framer.number

    def near_end(self, end: int) -> bytes:
        """Of what was read last, the bytes before offset ``end``, at least some of them; else none."""
        begin = self.end - len(self._near)
        return self._near[: end - begin] if begin < end <= self.end else b""
