"""What the sandbox booked: one append-only file that outlives a SIGKILL, and the set of hashes in memory.

An entry is on its way to the disk (handed to the operating system) before the request it belongs to is
answered. Layout of an entry, big-endian::

    magic     4 bytes  AVL1
    crc32     4 bytes  of everything after it
    lengths  12 bytes  of the three parts, 4 bytes each
    meta               JSON: idempotency key, fingerprint, batch id, the answer; empty for a bare request
    hashes             32 bytes for each record that this request booked
    records            those records, a JSON array, gzip
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, NamedTuple, TypedDict

import orjson
from isal import igzip, isal_zlib

from schemas.errors import Problem, UsageError
from schemas.letter import RecordRejection

_MAGIC = b"AVL1"
_START = Struct(">4sI")
_LENGTHS = Struct(">III")
_HEAD = _START.size + _LENGTHS.size
HASH_BYTES = 32


class Totals(TypedDict):
    """What ``GET /sandbox/ledger`` answers."""

    requests: int  #: to /v2/ingest, whatever became of them
    batches: int  #: idempotency keys that have a stored result
    records: int  #: booked
    unique_records: int  #: different hashes among them
    duplicates_booked: int  #: records booked although their hash already was


class Stored(NamedTuple):
    """The result that belongs to a key: fingerprint of its record hashes (hex), HTTP status, answer."""

    fingerprint: str
    status: int
    answer: dict[str, Any]


class Booking(NamedTuple):
    """A request to book: ``hashes`` stand beside ``records``; those at a rejected index are left out."""

    key: str
    fingerprint: str
    batch_id: str
    records: Sequence[Any]
    hashes: Sequence[bytes]
    rejected: Sequence[RecordRejection]


class Ledger:
    """The account's book. Not safe for use from several threads; each call is one step for the event loop."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the ledger in ``folder`` and read it back; None keeps it in a file that goes with the process.

        Raises ``UsageError`` when another sandbox has the folder or nothing can be kept there, ``Problem``
        when the file is damaged.
        """
        self._file: BinaryIO = _open(folder) if folder else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._end = 0
        self._requests = 0
        self._records = 0
        self._hashes: set[bytes] = set()
        self._results: dict[str, tuple[int, int]] = {}  # key → position and length of its meta
        try:
            self._replay()
        except Problem:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back; the ledger is of no use afterwards."""
        self._file.close()

    def totals(self) -> Totals:
        """The counts; ``duplicates_booked`` comes from what was booked, not from deduplication."""
        return {
            "requests": self._requests,
            "batches": len(self._results),
            "records": self._records,
            "unique_records": len(self._hashes),
            "duplicates_booked": self._records - len(self._hashes),
        }

    def count_request(self) -> None:
        """Note that a request arrived."""
        self._append(b"", b"", b"")
        self._requests += 1

    def result(self, key: str) -> Stored | None:
        """The stored result of ``key``, None for a new one."""
        place = self._results.get(key)
        if place is None:
            return None
        meta = orjson.loads(os.pread(self._file.fileno(), place[1], place[0]))
        return Stored(meta["fingerprint"], meta["status"], meta["answer"])

    def booked(self, record_hash: bytes) -> bool:
        """Whether a record of this hash is booked."""
        return record_hash in self._hashes

    def book(self, booking: Booking, *, dedupe: bool = True) -> Stored:
        """Book what was never booked and store the answer under the key; ``OSError`` leaves all as it was.

        Without ``dedupe`` everything is booked, which a ledger that can be trusted has to be able to show.
        """
        fresh, duplicates = self._sort(booking, dedupe=dedupe)
        answer: dict[str, Any] = {"accepted": len(fresh), "duplicates": duplicates}
        if booking.rejected:
            answer["rejected"] = list(booking.rejected)
        stored = Stored(booking.fingerprint, 207 if booking.rejected else 200, answer)
        hashes = [booking.hashes[index] for index in fresh]
        records = [booking.records[index] for index in fresh]
        meta = orjson.dumps({"key": booking.key, "batch_id": booking.batch_id, **stored._asdict()})
        start = self._append(meta, b"".join(hashes), igzip.compress(orjson.dumps(records), 1, mtime=0))
        self._results[booking.key] = start + _HEAD, len(meta)
        self._hashes.update(hashes)
        self._records += len(hashes)
        return stored

    def _sort(self, booking: Booking, *, dedupe: bool) -> tuple[list[int], int]:
        """Indexes of the records to book, and how many are there already (in the batch itself, too)."""
        refused = {rejection["index"] for rejection in booking.rejected}
        hashes = booking.hashes
        wanted = [i for i in range(len(hashes)) if i not in refused] if refused else range(len(hashes))
        if not dedupe:
            return list(wanted), 0
        # Setting the same hash twice keeps the first place in a dict and the last index: so go backwards.
        first = {hashes[i]: i for i in reversed(wanted)}
        fresh = sorted(index for record_hash, index in first.items() if record_hash not in self._hashes)
        return fresh, len(wanted) - len(fresh)

    def records(self) -> Iterator[bytes]:
        """NDJSON of what is booked now, in order, one piece for each request."""
        descriptor, at, end = self._file.fileno(), 0, self._end
        while at < end:
            head = os.pread(descriptor, _HEAD, at)
            meta, hashes, body = _LENGTHS.unpack_from(head, _START.size)
            if hashes:
                packed = os.pread(descriptor, body, at + _HEAD + meta + hashes)
                booked = orjson.loads(igzip.decompress(packed))
                yield b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in booked)
            at += _HEAD + meta + hashes + body

    def _append(self, meta: bytes, hashes: bytes, records: bytes) -> int:
        """Write an entry and say where it starts."""
        body = b"".join((_LENGTHS.pack(len(meta), len(hashes), len(records)), meta, hashes, records))
        entry = memoryview(_START.pack(_MAGIC, isal_zlib.crc32(body)) + body)
        start, written = self._end, 0
        try:
            while written < len(entry):
                written += os.pwrite(self._file.fileno(), entry[written:], start + written)
        except OSError:
            os.ftruncate(self._file.fileno(), start)
            raise
        self._end += written
        return start

    def _replay(self) -> None:
        """Read all entries; an unfinished one at the end was never answered, and is cut off."""
        size = os.fstat(self._file.fileno()).st_size
        with open(self._file.fileno(), "rb", closefd=False) as file:
            while (head := file.read(_HEAD)) and len(head) == _HEAD:
                magic, crc = _START.unpack_from(head)
                lengths = _LENGTHS.unpack_from(head, _START.size)
                if magic == _MAGIC and self._end + _HEAD + sum(lengths) > size:
                    break
                body = file.read(sum(lengths))
                if magic != _MAGIC or isal_zlib.crc32(body, isal_zlib.crc32(head[_START.size :])) != crc:
                    raise Problem(
                        "the sandbox's ledger is damaged", where=f"byte {self._end} of {self._file.name}"
                    )
                self._remember(lengths, body)
                self._end += _HEAD + len(body)
        os.ftruncate(self._file.fileno(), self._end)

    def _remember(self, lengths: tuple[int, ...], body: bytes) -> None:
        meta, hashes, _ = lengths
        if not meta:
            self._requests += 1
            return
        self._results[orjson.loads(body[:meta])["key"]] = self._end + _HEAD, meta
        self._hashes.update(body[at : at + HASH_BYTES] for at in range(meta, meta + hashes, HASH_BYTES))
        self._records += hashes // HASH_BYTES


def _open(folder: Path) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "ledger", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"is no folder to keep a ledger in: {error.strerror}", where=str(folder)) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError("another sandbox uses this data folder", where=str(folder)) from None
    return os.fdopen(descriptor, "r+b", buffering=0)
