"""What reads the topics takes whatever a stranger writes: thousands of messages, without a broker."""

import random
from contextlib import suppress
from datetime import UTC, datetime

import exports
import orjson
import pytest
import strangers
from strangers import Strange

from schemas.batch import Source, build
from schemas.errors import Problem
from schemas.letter import DeadLetter, Exchange, Place, Reason, Receipt
from schemas.records import Kind
from streams.dispatch import halving
from streams.dispatch.answer import Booked, Refused
from streams.dispatch.delivery import Delivered
from streams.dispatch.message import Message, RawOriginal
from streams.dispatch.settlement import malformed, settle
from streams.recovery import deadletters, redrive
from streams.recovery.letters import Stored, told
from streams.status.bookings import Bookings
from streams.status.files import Files
from streams.status.letters import Letters
from streams.tail import checkpoint
from streams.tail.checkpoint import Checkpoint, Stretch
from streams.validate.panel import Seat
from topics.catalogue import BATCHES, CHECKPOINTS, DLQ, FILES, RECEIPTS

AT = "2026-11-24T06:00:00.000Z"
FILE = exports.descriptor()
EXCHANGE = Exchange(method="POST", url="http://avstar", request_headers={}, status=422)


def genuine() -> list[Strange]:
    """A message or more of each topic that is read back, as the flow writes them."""
    bodies = [(f"{n:064x}", b'{"n":%d,"record_type":"spot"}' % n) for n in range(5)]
    found = []
    for upload in (None, "multipart"):
        made = build(bodies, *([halving.Upload("multipart")] if upload else []))
        source = Source(1, 10, 14, 5, "0-4")
        headers = made.headers(source, [FILE.id.hex()], ["spot"], 1_700_000_000_000, ["2026-03-01T11"])
        found.append(Strange(BATCHES.name, made.key.encode(), made.body, headers))
        dead = DeadLetter(
            kind="batch", stage="dispatch", reason="gave_up", original=made.body, idempotency_key=made.key,
            source=source, records=5, first_failure=AT, last_failure=AT, exchange=EXCHANGE,
            headers={name: value.decode() for name, value in headers},
        )  # fmt: skip
        found.append(Strange(DLQ.name, made.key.encode(), dead.dump()))
        receipt = Receipt(
            status="delivered", batch_id=made.batch_id, source=source, records=5, accepted=4, at=AT,
            rejected=[{"index": 0, "code": "c", "message": "m"}], dlq=["k"],
        )  # fmt: skip
        found.append(Strange(RECEIPTS.name, made.key.encode(), receipt.dump()))
    place = Place(descriptor=FILE.id.hex(), path="log.csv", offset=9, number=2, partition=1, raw_offset=11)
    reasons = [Reason(field="rate", value="x", rule="is money")]
    record = DeadLetter(
        kind="record", stage="validate", reason="invalid", reasons=reasons, original=b"a,b\n", place=place,
        first_failure=AT, last_failure=AT, headers={"airs": "2026-03-01T11=1"}, under_way=AT, retry_count=1,
    )  # fmt: skip
    found.append(Strange(DLQ.name, b"a" * 64, record.dump()))
    found.append(Strange(DLQ.name, b"b" * 64 + b" 1/2", record.model_copy(update={"part": "1/2"}).dump()))
    proof = Stretch(length=0, sha256="")
    known = Checkpoint(
        identity="i", path="/p", device=1, inode=2, descriptor=FILE.id.hex(), partition=1, position=9,
        records=1,
        skipped=0, pending=0, head=proof, recent=proof, owner="tail", at=AT,
    )  # fmt: skip
    found.append(Strange(CHECKPOINTS.name, b"i", checkpoint.message(known)["value"]))
    found.append(Strange(CHECKPOINTS.name, b"tailer:tail", checkpoint.claim("tail", "x")["value"]))
    found.append(Strange(FILES.name, FILE.id, FILE.dump()))
    return found


def of(topic: str, count: int, seed: int = 1) -> list[Strange]:
    return strangers.messages([one for one in genuine() if one.topic == topic], count, seed)


def test_the_page_shows_what_is_left() -> None:
    letters, bookings, files = Letters(5), Bookings(), Files()
    for number, (_, key, value, _, _) in enumerate(of(DLQ.name, 2000)):
        letters.take(key or b"", value, (0, number))
    for message in of(RECEIPTS.name, 1000):
        bookings.take(message.value)
    for message in of(CHECKPOINTS.name, 1000):
        files.take(message.key or b"", message.value)
    for message in of(FILES.name, 500):
        files.describe(message.key or b"", message.value)
    seen = [
        letters.records,
        [cause._asdict() for cause, _, _ in letters.causes(100)],
        letters.airing(),
        [one._replace(messages={})._asdict() for one in letters.all()],
    ]
    orjson.dumps(
        [
            *seen,
            tuple(bookings.booked(datetime.now(UTC))),
            bookings.batch_records,
            tuple(files.published()),
            files.paths,
        ]
    )


def test_letters_are_listed_shown_and_redriven_or_left() -> None:
    good = 0
    for message in of(DLQ.name, 2000):
        if message.value is None:
            continue
        said = told(message.value)
        stored = Stored("k", said, {b"k": (0, 0)})
        summary = deadletters._summary(stored, {FILE.id.hex(): "log.csv"})
        assert deadletters.Filter(older="1d", newer="2000-01-01T00:00:00Z").of([summary]) is not None
        orjson.dumps(summary._asdict())
        why = redrive._why_not(stored, 5)
        if not said:
            assert why
            continue
        good += 1
        letter = DeadLetter.load(message.value)
        assert deadletters.facts("k", letter)
        deadletters.cells(letter, FILE)
        deadletters.original(letter, FILE)
        if not why:
            redrive._partition(stored)
            if letter.kind == "batch":
                redrive._as_it_was(stored, letter)
    assert good > 100


async def test_batches_are_settled_or_malformed() -> None:
    """Whatever Avstar says to them."""
    choose = random.Random(2)

    class Avstar:
        async def deliver(self, batch: halving.Batch) -> Delivered:
            return Delivered(choose.choice(answers(batch.records)), 1, AT, AT, "closed")

    sent = 0
    for message in of(BATCHES.name, 2000):
        try:
            read = Message.read(message.key, message.value, dict(message.headers))
        except ValueError as error:
            _, _, ((_, letter),), _, _ = malformed(message.key, message.value, str(error))
            assert DeadLetter.load(letter.dump()) == letter
            continue
        sent += 1
        ended = await halving.deliver(Avstar(), read.batch)
        originals = dict.fromkeys(read.source.expand(), RawOriginal(message.key or b"", b"x"))
        settled = settle(read, ended, choose.choice([originals, {}]))
        assert settled.receipt
        assert Receipt.load(settled.receipt.dump())
        for _, letter in settled.letters:
            assert DeadLetter.load(letter.dump()) == letter
    assert sent > 100


def answers(records: int) -> list[Booked | Refused]:
    rejected = [{"index": 0, "code": "c", "message": "m"}] if records else []
    return [
        Booked(EXCHANGE, 1, 200, records, 0, []),
        Booked(EXCHANGE, 1, 207, max(records - 1, 0), 0, rejected),  # type: ignore[arg-type]
        Refused(EXCHANGE, 1, 422, "no"),
        Refused(EXCHANGE, 1, 422, "no", rejected),  # type: ignore[arg-type]
        Refused(EXCHANGE, 1, 413, "too large"),
    ]


def test_a_description_cannot_be_put_under_another_file_s_key() -> None:
    """The key is a hash of it: else whoever may write could have a file's records mapped otherwise."""
    for message in of(FILES.name, 1000):
        try:
            found = type(FILE).read(message.key or b"", message.value or b"")
        except ValueError:
            continue
        assert found == FILE
    assert type(FILE).read(FILE.id, FILE.dump()) == FILE


def test_a_strange_description_under_its_own_key_costs_its_records_only() -> None:
    made = 0
    for message in of(FILES.name, 700):
        try:
            found = type(FILE).load(message.value or b"")
        except ValueError:
            continue
        made += 1
        seat = Seat.of(found)
        if not isinstance(seat.judge, tuple):
            assert len(seat.judge.judge([b"a,b\n", b"\xff", b"", b"\0" * 99])) == 4
    assert made


def state_of(key: bytes, value: bytes) -> checkpoint.State:
    return checkpoint.state({key: checkpoint.parsed(key, value)})


def test_a_strange_checkpoint_is_told() -> None:
    for message in of(CHECKPOINTS.name, 1000):
        with suppress(Problem):  # and nothing else
            state_of(message.key or b"", message.value or b"")
    with pytest.raises(Problem, match="is no checkpoint of spotstream's"):
        state_of(b"i", b"{}")


@pytest.mark.parametrize("kind", ["spot"])
def test_a_body_that_grows_without_end_is_no_batch(kind: Kind) -> None:
    bomb = halving.build([("0" * 64, b'{"record_type":"%b","x":"%b"}' % (kind.encode(), b"x" * 140_000_000))])
    assert len(bomb.body) < 3_000_000
    with pytest.raises(ValueError, match="more than"):
        halving.records_of(bomb)
