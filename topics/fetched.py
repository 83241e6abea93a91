"""What aiokafka makes of a fetch: records as its C code reads them, not too many bytes of them at a time."""

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.structs import TopicPartition

#: What is given out of a partition at a time, as it is unpacked, and one record more: two megabytes may hold
#: hundreds.
POLLED_BYTES = 4_194_304


class Memory(MemoryRecords):  # type: ignore[misc] # a C type
    """A partition's part of a fetch; keeps its bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        super().__init__(data)


class _Text(bytearray):
    """Bytes that can be decoded, whatever they are."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Text(found) if isinstance(key, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:  # noqa: ARG002
        return super().decode(encoding, "replace")


class _TolerantBatch(_DefaultRecordBatchPy):  # type: ignore[misc] # final, says its stub
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        if not isinstance(self._buffer, _Text):
            self._buffer = _Text(self._buffer)


class _TolerantMemory(_MemoryRecordsPy):  # type: ignore[misc]
    """The same from the batch that holds ``begin``, read in Python, whatever headers are called."""

    def __init__(self, data: bytes, begin: int) -> None:
        super().__init__(data)
        while self.has_next() and _TolerantBatch(self._next_slice).next_offset <= begin:
            super().next_batch()

    def next_batch(self, *_: Any) -> Any:
        at_hand = self._next_slice
        return super().next_batch() and _TolerantBatch(at_hand)


class Records(fetcher.PartitionRecords):  # type: ignore[misc]
    """What was fetched of a partition, each record as aiokafka's C code has read it.

    A header's name that is no UTF-8 makes it raise, for ever at the same offset: the rest is read in Python.
    """

    def __init__(
        self, partition: TopicPartition, memory: Memory, aborted: Any, offset: int, *more: Any
    ) -> None:
        super().__init__(partition, memory, aborted, offset, *more)
        self._data = memory.data

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            # What is known of transactions that were aborted stays as it is at this batch.
            self._records = _TolerantMemory(self._data, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()
            return super().__next__()

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:  # noqa: ARG002
        return record  # a ConsumerRecord with the same attributes takes three times as long as all else here


class Result(fetcher.FetchResult):  # type: ignore[misc]
    """A fetch of a partition that is given out by the bytes, too."""

    _partition_records: Records | None

    def getall(self, max_records: int | None = None) -> list[Any]:
        """The next records; see :data:`POLLED_BYTES`."""
        found: list[Any] = []
        if not self.check_assignment(self._topic_partition) or self._partition_records is None:
            return found
        left = POLLED_BYTES
        for record in self._partition_records:
            found.append(record)
            left -= len(record.value or b"")
            if left <= 0 or len(found) == max_records:
                self._update_position()
                break
        else:
            self._update_position()
            self._partition_records = None
        return found


def install() -> None:
    """Have aiokafka's consumers fetch like this."""
    fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = Memory, Records, Result
