"""How a batch ends on the topics: from its message to a receipt and dead letters."""

from hashlib import sha256

import orjson
import pytest
from prometheus_client import REGISTRY

from schemas import rawkey
from schemas.batch import Source, build, source_of
from schemas.hashes import idempotency_key, placement_hash, rejection_key
from schemas.letter import DeadLetter, Exchange
from streams.dispatch.answer import Booked, Refused, Unavailable
from streams.dispatch.delivery import Delivered
from streams.dispatch.halving import Ended
from streams.dispatch.lane import _count
from streams.dispatch.message import Message, RawOriginal
from streams.dispatch.settlement import malformed, settle
from topics.catalogue import RECEIPTS

EXCHANGE = Exchange(method="POST", url="http://avstar/v2/ingest", status=207, request_headers={})
#: Records 10, 11 and 14 of the raw partition 5; 12 was rejected before, 13 is a transaction's marker.
SOURCE = Source(5, 10, 14, 4, "0-1,4")
BODIES = [b'{"avail_id":"A-%d","record_type":"avail"}' % number for number in range(3)]
HASHES = [placement_hash(body) for body in BODIES]
BATCH = build(list(zip(HASHES, BODIES, strict=True)))
HEADERS = dict(BATCH.headers(SOURCE, ["ab" * 16], ["avail"], 1_700_000_000_000))


KEY = BATCH.key.encode()


def read(key=KEY, **changed):
    return Message.read(key, BATCH.body, {k: v for k, v in (HEADERS | changed).items() if v != b"-"})


def ended(answer, attempts=1, failures=("", "")):
    return Ended(Delivered(answer, attempts, *failures, "closed"), [], {})


def booked(*rejected, duplicates=0):
    rejections = [{"index": index, "code": "no_contract", "message": "none"} for index in rejected]
    status = 207 if rejected else 200
    return Booked(
        EXCHANGE | {"status": status}, 12, status, 3 - duplicates - len(rejected), duplicates, rejections
    )


def test_a_message_is_read_as_it_was_written():
    """Request, source range and headers come back from the topic."""
    message = read()
    assert message.batch == BATCH
    assert message.source == source_of(HEADERS) == SOURCE
    assert message.headers == {name: value.decode() for name, value in HEADERS.items()}


@pytest.mark.parametrize(
    "changed",
    [
        {"records": b"-"},
        {"records": b"three"},
        {"records": b"4"},
        {"records": None},
        {"source-offsets": b"0-x"},
        {"source-offsets": b"0-99999999999"},
        {"batch-id": b"\xff"},
        {"content-type": b"application/json\r\nX-Evil: 1"},
    ],
)
def test_a_stranger_on_the_topic_of_batches_is_told_apart(changed):
    """Whatever would fail in or after the request is found before."""
    with pytest.raises(ValueError):  # noqa: PT011 - only the type is promised
        read(**changed)


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"short", b"A" * 64, KEY + b"\n"])
def test_a_key_that_is_no_hash_is_told_apart(key):
    """It could not be sent as an idempotency key."""
    with pytest.raises(ValueError, match="key"):
        read(key=key)


def test_a_stranger_becomes_a_letter_with_its_bytes():
    """No receipt: there is no batch that it could account for."""
    settlement = malformed(b"k", b"\x00\xff", "no header 'records'")
    assert settlement.receipt is None
    ((key, letter),) = settlement.letters
    assert (letter.original, letter.reason, letter.kind) == (b"\x00\xff", "malformed", "batch")
    assert letter.records == 0
    assert letter.reasons[0]["rule"] == "no header 'records'"
    assert letter.idempotency_key == "k"
    assert key == sha256(b"k" + bytes(8) + b"\x00\xff").hexdigest()


def test_a_stranger_s_letter_takes_nobody_else_s_place():
    """A damaged message has the key of a batch that may be a dead letter itself: its body would be lost."""
    strange = [
        (KEY, None),
        (KEY, b""),
        (KEY, b"x"),
        (KEY + b"x", b""),
        (b"\xff", b"x"),
        (b"\xfe", b"x"),
        (None, b"x"),
    ]
    keys = [malformed(key, value, "why").letters[0][0] for key, value in strange]
    assert BATCH.key not in keys
    assert keys[0] == keys[1]
    assert len(set(keys[1:])) == len(strange) - 1
    assert keys == [malformed(key, value, "another").letters[0][0] for key, value in strange]


def test_a_booked_batch_has_a_receipt_and_no_letters():
    """What the audit and people need: counts, attempts, latency, where the records came from."""
    settlement = settle(read(), ended(booked(duplicates=1), 3, ("t1", "t2")), {})
    assert settlement.key == BATCH.key
    assert settlement.letters == []
    assert settlement.gone == []
    receipt = settlement.receipt
    assert (receipt.status, receipt.http_status, receipt.attempts, receipt.latency_ms) == (
        "delivered", 200, 3, 12,
    )  # fmt: skip
    assert (receipt.accepted, receipt.duplicates, receipt.rejected, receipt.dlq) == (2, 1, [], [])
    assert (receipt.batch_id, receipt.source, receipt.records) == (BATCH.batch_id, SOURCE, 3)


def test_a_replay_s_records_count_as_known():
    """Avstar answers a key that it knows as it did the first time: it says that it accepted them."""
    for headers, counts in (({}, {"new": 2, "known": 1}), ({"replay": b"r"}, {"new": 0, "known": 3})):
        before = {state: booked_records(state) for state in counts}
        _count(settle(read(**headers), ended(booked(duplicates=1)), {}), 0.1)
        assert {state: booked_records(state) - before[state] for state in counts} == counts


def booked_records(state):
    return REGISTRY.get_sample_value("spotstream_booked_records_total", {"state": state})


def test_rejected_records_become_letters_of_their_own():
    """Each with the raw record that it was, and named on the receipt by its index."""
    raw = {
        offset: RawOriginal(rawkey.pack(b"f" * 16, offset * 7, offset, 0), b"raw %d\r\n" % offset)
        for offset in (11, 14)
    }
    settlement = settle(read(), ended(booked(1, 2)), raw)
    assert [rejection["index"] for rejection in settlement.receipt.rejected] == [1, 2]
    assert settlement.receipt.accepted == 1
    assert settlement.receipt.status == "delivered"
    assert settlement.receipt.dlq == [key for key, _ in settlement.letters]
    for (key, letter), offset, index in zip(settlement.letters, (11, 14), (1, 2), strict=True):
        assert letter.original == b"raw %d\r\n" % offset
        assert key == rejection_key(b"f" * 16, offset * 7, letter.original)
        place = letter.place
        assert (place.partition, place.raw_offset, place.offset, place.number) == (
            5, offset, offset * 7, offset,
        )  # fmt: skip
        assert place.descriptor == (b"f" * 16).hex()
        assert (letter.kind, letter.stage, letter.reason) == ("record", "dispatch", "rejected")
        assert (letter.placement_hash, letter.idempotency_key) == (HASHES[index], BATCH.key)
        assert letter.reasons == [{"field": "", "value": "no_contract", "rule": "none"}]
        assert letter.exchange == EXCHANGE


@pytest.mark.parametrize("text", ["x", '"', "\0", "é", "\U0001f4a9"])
def test_the_receipt_of_ten_thousand_rejections_fits_into_its_topic(text):
    """Whatever Avstar says, however long: a receipt that a broker refuses would be tried again for ever."""
    bodies = [b'{"avail_id":"A-%d","record_type":"avail"}' % number for number in range(10_000)]
    batch = build([(placement_hash(body), body) for body in bodies])
    rejected = [{"index": index, "code": text * 2000, "message": text * 2000} for index in range(10_000)]
    source = Source(5, 10, 10_009, 10_000, "0-9999")
    answer = Booked(EXCHANGE, 12, 207, 0, 0, rejected)
    receipt = settle(Message(batch, source, {}), ended(answer), {}).receipt
    assert len(receipt.dlq) == len(receipt.rejected) == 10_000
    assert len(receipt.dump()) < RECEIPTS.max_message_bytes
    if text.isprintable():
        assert receipt.rejected[0]["code"].startswith(text * 16)


def test_a_rejected_record_whose_raw_one_is_gone_keeps_what_was_sent():
    """Retention may have taken it; the letter still says what was refused."""
    ((_, letter),) = settle(read(), ended(booked(0)), {}).letters
    assert orjson.loads(letter.original)["avail_id"] == "A-0"
    assert letter.place.raw_offset == 10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Refused(EXCHANGE | {"status": 422}, 5, 422, "422 what is this"), "refused"),
        (Unavailable(EXCHANGE | {"status": 503}, 5, "503"), "gave_up"),
    ],
)
def test_a_dead_batch_is_kept_as_it_was_sent(answer, reason):
    """Body and headers are all that a redrive needs to send the same request again."""
    settlement = settle(read(), ended(answer, 2, ("t1", "t2")), {})
    ((key, letter),) = settlement.letters
    assert key == letter.idempotency_key == BATCH.key
    assert (letter.kind, letter.stage, letter.reason) == ("batch", "dispatch", reason)
    assert (letter.original, letter.records, letter.source) == (BATCH.body, 3, SOURCE)
    assert (letter.first_failure, letter.last_failure, letter.attempts) == ("t1", "t2", 2)
    headers = {name: text.encode() for name, text in letter.headers.items()}
    again = Message.read(key.encode(), letter.original, headers)
    assert again.batch == BATCH
    assert again.batch.key == idempotency_key(HASHES)
    assert settlement.receipt.status == "dead_lettered"
    assert settlement.receipt.dlq == [key]
    assert settlement.receipt.records == 3


def test_letters_survive_the_topic():
    """What is dumped is read back, bytes and all; Kafka Connect's headers point to the source."""
    ((_, letter),) = malformed(b"k", bytes(range(256)), "why").letters
    assert DeadLetter.model_validate_json(letter.dump()) == letter
    ((_, letter),) = settle(read(), ended(booked(2)), {}).letters
    headers = dict(letter.connect_headers("avion.raw"))
    assert headers["__connect.errors.partition"] == b"5"
    assert headers["__connect.errors.offset"] == b"14"
    assert b"none" in headers["__connect.errors.exception.message"]
