"""Which batches a replay means: moments, spans of offsets, batches rebuilt."""

from datetime import UTC, datetime, timedelta

import exports
import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Source, Upload, runs
from schemas.errors import UsageError
from schemas.hashes import rejection_key
from schemas.rawkey import pack
from streams import moment
from streams.recovery.bookmark import Bookmark, Marks, _marks, _offset
from streams.recovery.rebuild import rebuild
from streams.recovery.replay import Arguments
from streams.recovery.span import Spans
from streams.validate.outcome import conclude
from streams.validate.panel import Seat, verdicts
from topics.connection import KafkaSettings

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FILE = exports.descriptor()
PANEL = {FILE.id: Seat.of(FILE)}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("1d", NOW - timedelta(days=1)),
        ("2026-11-24T06:00:00Z", NOW - timedelta(hours=6)),
        ("0001-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999w", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-11-24T06:00:00.5-05:00", NOW - timedelta(hours=1) + timedelta(seconds=0.5)),
    ],
)
def test_moments_are_read(text, meant):
    assert moment.parse(text, NOW, name="--since") == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-11-24", "2026-11-24T06:00:00", "06:00", "-2h", "2 h", "999999999w",
        "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00",
    ],
)  # fmt: skip
def test_what_is_no_moment_is_refused_with_the_forms(text):
    with pytest.raises(UsageError, match=r"--since.*2h"):
        moment.parse(text, NOW, name="--since")


@pytest.mark.parametrize("text", ["", "1", "1:", "1:5-3", "a:1-2", "1:-3", "-1:2-3", "1:2-3,5"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(UsageError, match="P:A-B"):
        Spans.parse([text])


def test_as_many_spans_are_taken_as_a_bookmark_holds():
    """Which is an offset's metadata: brokers take 4096 bytes of it (offset.metadata.max.bytes)."""
    longest = [f"3:{10**18 + number}-" for number in range(90)]
    marks = Bookmark(KafkaSettings(), "any").new(Spans.parse(longest))
    marks.places[3] = 10**18, "f" * 64
    assert len(_offset(marks, 3).metadata.encode()) <= 4096
    with pytest.raises(UsageError, match=r"--offsets: more than 90 spans of partition 3; .*several commands"):
        Arguments(offsets=(*longest, "2:1", "3:5")).check()


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"since": "1h", "offsets": ("0:1-2",)},
        {"offsets": ("0:1-2",), "until": "1h"},
        {"since": "1h", "until": "2h"},
        {"since": "soon", "until": "1h"},
        {"offsets": ("0:2-1",)},
    ],
)
def test_what_is_no_selection_is_refused(wrong):
    with pytest.raises(UsageError):
        Arguments(**wrong).check()


OFFSETS = st.sets(st.integers(0, 60), min_size=1)


@given(OFFSETS, st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 9)), max_size=4))
def test_a_batch_is_meant_if_a_record_of_it_is(offsets, spans):
    """Not by where its window lies: markers and rejected records in it are not in the batch."""
    ordered = sorted(offsets)
    source = Source(1, ordered[0], ordered[-1], len(ordered), runs(ordered, ordered[0]))
    found = Spans.parse(f"{partition}:{first}-{first + more}" for partition, first, more in spans)
    wanted = {
        at for partition, first, more in spans if partition == 1 for at in range(first, first + more + 1)
    }
    assert found.hold(source) == bool(wanted & offsets)


def test_an_open_span_has_no_end():
    assert Spans.parse(["0:5-"]).hold(Source(0, 10**12, 10**12, 1, "0"))
    assert not Spans.parse(["0:5"]).hold(Source(0, 6, 6, 1, "0"))


def test_marks_are_read_as_they_were_committed():
    marks = Marks("0123@2026-11-24T12:00:00.000Z", Spans.parse(["0:5-9", "0:20-", "3:0-7"]))
    marks.places[0] = 20, "ab" * 32
    marks.refused[0] = 4
    assert _marks(_offset(marks, partition) for partition in marks.spans.wanted) == marks
    assert marks.refused.total() == 4


def test_marks_that_count_nothing_are_read():
    """Before, none counted what was refused. Where a replay has ended, and where none was, there are none."""
    name = "0123@2026-11-24T12:00:00.000Z"
    found = _marks(
        [
            TopicPartition("avion.raw", 0, 20, metadata=f"{name} 5-9,20-30 {'ab' * 32}"),
            TopicPartition("avion.raw", 1, 0, metadata=f"{name} 7-8 "),
            TopicPartition("avion.raw", 2, OFFSET_INVALID),
        ]
    )
    assert found == Marks(name, Spans.parse(["0:5-9", "0:20-30", "1:7-8"]), {0: (20, "ab" * 32)})
    assert not found.refused.total()
    assert _marks([TopicPartition("avion.raw", 0, 0, metadata="ended")]) is None


class Kept:
    """A raw record as the consumer gives it."""

    def __init__(self, offset, key, value):
        self.offset, self._key, self._value = offset, key, value

    def key(self):
        return self._key

    def value(self):
        return self._value

    def timestamp(self):
        return 1, 1_700_000_000_000 + self.offset


class Raw:
    def __init__(self, kept):
        self.offset, self.key, self.value, self.timestamp = (
            kept.offset,
            kept.key(),
            kept.value(),
            kept.timestamp()[1],
        )


def line(number):
    return exports.line(
        {
            "record_type": "AVAIL", "station": "WABC", "broadcast_date": "11/24/2026",
            "avail_id": f"A-{number}", "break_id": "B-1", "window_start": "12:00:00",
            "window_end": "12:05:00", "duration_s": "30",
            "units_total": "3", "units_sold": "1", "floor_rate": "10.00",
        }
    )  # fmt: skip


@pytest.fixture
def built():
    """What validation made of records 20 to 29, of which 25 was rejected; and the raw records."""
    from schemas.codec import Codec
    from schemas.records import KINDS

    found = {
        offset: Kept(
            offset, pack(FILE.id, offset * 10, offset, 0), line(offset) if offset != 25 else b"bad\n"
        )
        for offset in range(20, 30)
    }
    window = [Raw(kept) for kept in found.values()]
    codecs = {kind: Codec(kind, 1) for kind in KINDS}
    return conclude(window, verdicts(window, PANEL), 4, codecs, {FILE.id: FILE}), found


def test_a_rebuilt_batch_is_the_one_that_validation_made(built):
    outcome, found = built
    source = Source(4, 20, 29, 10, "0-4,6-9")
    again = rebuild(outcome.batch.key, source, found, PANEL, Upload(), from_letters=False)
    assert again.batch == outcome.batch
    assert again.headers == outcome.headers


def test_a_rebuilt_redrive_names_the_letters_of_its_records(built):
    outcome, found = built
    again = rebuild(
        outcome.batch.key, Source(4, 20, 29, 10, "0-4,6-9"), found, PANEL, Upload(), from_letters=True
    )
    letters = dict(again.headers)["redrive-of"].decode().split(",")
    assert letters[0] == rejection_key(FILE.id, 200, found[20].value())
    assert len(letters) == 9


def test_what_cannot_be_rebuilt_is_told_apart(built):
    outcome, found = built
    key, upload = outcome.batch.key, Upload()
    whole = Source(4, 20, 29, 10, "0-9")
    assert "4:25 would be rejected now" in rebuild(key, whole, found, PANEL, upload, from_letters=False)
    gone = {offset: kept for offset, kept in found.items() if offset != 27}
    source = Source(4, 20, 29, 10, "0-4,6-9")
    assert "4:27 is no longer kept" in rebuild(key, source, gone, PANEL, upload, from_letters=False)
    assert "another key" in rebuild("ff" * 32, source, found, PANEL, upload, from_letters=False)
