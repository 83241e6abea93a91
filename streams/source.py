"""Sources: the files that are being read, each from its checkpoint on."""

import os
import stat
from pathlib import Path
from uuid import uuid4

from schemas.descriptor import Descriptor
from schemas.errors import UsageError
from schemas.letter import now
from schemas.profile import Profile
from streams.checkpoint import PROOF, Checkpoint, Stretch
from streams.framing import Framed, Framer
from streams.head import SIZE, Head, examine
from streams.settings import TailSettings


class OpenFile:
    """A file open for reading. Raises :class:`UsageError` when it cannot be opened or is no regular file."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # Without blocking: a pipe would wait for its writer.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageError("no such file", where=path) from None
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=path) from None
        status = os.fstat(self._fd)
        self.device, self.inode = status.st_dev, status.st_ino
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise UsageError("not a regular file", where=path)

    def size(self) -> int:
        """In bytes, now."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``; less only where the file ends."""
        return os.pread(self._fd, size, offset)

    def examine(self, profile: Profile, *, final: bool) -> Head | None:
        """What its first bytes tell, see :func:`streams.head.examine`."""
        try:
            data = self.read(0, SIZE)
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=self.path) from None
        return examine(data, profile, self.path, final=final)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


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
        #: Of the raw topic. From the descriptor, so that files spread; kept when there come to be more.
        self.partition = known.partition if known else int.from_bytes(self.descriptor_id[:8]) % partitions
        self._finished = known.finished if known else False
        self._over = False
        self._oversized = known.oversized if known else 0
        self._skipped = known.skipped if known else head.start
        self._framer = Framer(
            head.dialect,
            settings.max_record_bytes,
            position=known.position if known else head.start,
            number=known.records if known else 0,
            pending=known.pending if known else head.start,
        )

    @property
    def position(self) -> int:
        """Offset up to which every record has been given out."""
        return self._framer.position

    @property
    def held(self) -> int:
        """Bytes read beyond that, of a record that has not ended."""
        return self._framer.held

    def read(self, *, final: bool) -> Framed | None:
        """The records that the next block completes; None when there is nothing new.

        ``final`` takes the end of the file, once reached, for the end of its last record and of reading.
        """
        begin = self.position
        block = b"" if self._over else self.file.read(begin + self.held, self._settings.block_bytes)
        if not block and (self._over or self._finished or not final):
            return None
        self._finished = self._over = final and begin + self.held + len(block) >= self.file.size()
        framed = self._framer.feed(block, final=self._over)
        self._oversized += len(framed.oversized)
        self._skipped += self.position - begin - sum(map(len, framed.records))
        if self._settings.partitioning == "block":
            self.partition = (self.partition + 1) % self._partitions
        return framed

    def checkpoint(self) -> Checkpoint:
        """Where reading stands now."""
        position = self.position
        near = min(PROOF, position)
        return Checkpoint(
            identity=self.identity,
            path=self.file.path,
            device=self.file.device,
            inode=self.file.inode,
            descriptor=self.descriptor_id.hex(),
            partition=self.partition,
            position=position,
            records=self._framer.number,
            oversized=self._oversized,
            skipped=self._skipped,
            pending=self._framer.pending,
            head=Stretch.of(self.file.read(0, near)),
            recent=Stretch.of(self.file.read(position - near, near)),
            finished=self._finished,
            owner=self._settings.name,
            at=now(),
        )

    def lost(self) -> str:
        """Why the path does not lead to this file any more, or not to what was read of it; else empty."""
        try:
            there = Path(self.file.path).stat()
        except OSError as error:
            return f"the path is gone: {error.strerror}"
        if (there.st_dev, there.st_ino) != (self.file.device, self.file.inode):
            return "another file has taken its place"
        if there.st_size < self.position + self.held:
            return f"truncated to {there.st_size} bytes, of which {self.position + self.held} had been read"
        return ""
