"""What is made of a fetch, of bytes as a broker sends them."""

import struct

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c_py
from aiokafka.structs import TopicPartition

from topics import fetched

#: Of the batch's head, from where on the checksum counts, and where it stands.
_COUNTED, _CHECKSUM = 21, slice(17, 21)


def batch(base: int, names: list[bytes]) -> bytes:
    """A record batch, a record for each name of a header."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=100_000,
    )  # fmt: skip
    stand_ins = [f"<{number}>" for number in range(len(names))]
    for number, name in enumerate(stand_ins):
        builder.append(number, timestamp=1, key=b"k", value=b"%d" % (base + number), headers=[(name, b"1")])
    made = bytearray(builder.build())
    for stand_in, name in zip(stand_ins, names, strict=True):
        place = made.index(stand_in.encode())
        made[place : place + len(name)] = name
    made[:8] = struct.pack(">q", base)
    made[_CHECKSUM] = struct.pack(">I", calc_crc32c_py(memoryview(made)[_COUNTED:]))
    return bytes(made)


def test_a_header_whose_name_is_no_text_stops_nothing():
    """kcat and Go write such names; aiokafka's C code raises at them, whenever it comes by."""
    data = batch(0, [b"one", b"two"]) + batch(2, [b"abc", b"\xff\xfe\xfd", b"xyz"]) + batch(5, [b"end"])
    records = fetched.Records(TopicPartition("any", 0), fetched.Memory(data), None, 1, None, None, True, 1)
    found = [(record.offset, record.value, record.headers[0][0]) for record in records]
    odd = "\ufffd\ufffd\ufffd"
    assert found == [(1, b"1", "two"), (2, b"2", "abc"), (3, b"3", odd), (4, b"4", "xyz"), (5, b"5", "end")]
    assert records.next_fetch_offset == 6
