"""Dead letters on their way back: records judged anew, and how their letters end. No broker."""

import exports
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import parts
from schemas.batch import Upload, build, source_of
from schemas.codec import Codec
from schemas.errors import Problem, UsageError
from schemas.hashes import rejection_key
from schemas.letter import DeadLetter, Exchange, Place, Reason
from schemas.rawkey import pack
from schemas.records import KINDS
from streams.cli import main
from streams.dispatch.answer import Booked, Unavailable
from streams.dispatch.delivery import Delivered
from streams.dispatch.halving import Ended
from streams.dispatch.message import Message, RawOriginal
from streams.dispatch.settlement import settle
from streams.recovery.letters import Stored, pick, whole
from streams.recovery.redrive import Wanted, _as_it_was, _why_not
from streams.recovery.remake import remake
from streams.validate.panel import Seat

FILE = exports.descriptor()
PANEL = {FILE.id: Seat.of(FILE)}
CODECS = {kind: Codec(kind, 7) for kind in KINDS}
AT = "2026-11-24T06:00:00.000Z"
EXCHANGE = Exchange(method="POST", url="http://avstar", request_headers={}, status=207)
GOOD = exports.line(
    {
        "record_type": "AVAIL", "station": "WABC", "broadcast_date": "11/24/2026", "avail_id": "A-1",
        "break_id": "B-1", "window_start": "12:00:00", "window_end": "12:05:00", "duration_s": "30",
        "units_total": "3", "units_sold": "1", "floor_rate": "10.00",
    }
)  # fmt: skip
BAD = GOOD.replace(b"11/24/2026", b"2026-11-24")


def letter(number, value=GOOD, **more):
    """Of a record at raw offset ``10 * number`` of partition 3."""
    place = Place(
        descriptor=FILE.id.hex(),
        path=FILE.path,
        offset=number * 100,
        number=number,
        partition=3,
        raw_offset=number * 10,
    )
    given = {"kind": "record", "stage": "validate", "reason": "invalid", "original": value, "place": place}
    return DeadLetter(**given | {"first_failure": "t1", "last_failure": "t1"} | more)


def letters(*values, **more):
    found = [letter(number, value, **more) for number, value in enumerate(values, 1)]
    return {rejection_key(FILE.id, one.place.offset, one.original): one for one in found}


def good(number):
    return GOOD.replace(b"A-1", b"A-%d" % number)


def message(sending):
    return Message.read(sending.batch.key.encode(), sending.batch.body, dict(sending.headers))


def booked(*rejected):
    named = [{"index": index, "code": "c", "message": "m"} for index in rejected]
    return Ended(Delivered(Booked(EXCHANGE, 1, 207, 9, 0, named), 2, "", "", "closed"))


GAVE_UP = Ended(Delivered(Unavailable(EXCHANGE, 1, "500"), 3, "t2", "t3", "closed"))


def test_what_is_right_now_is_batched_in_its_order_and_the_rest_stays_with_its_reasons():
    found = letters(good(1), BAD, good(3))
    keys = list(found)
    made = remake({key: found[key] for key in reversed(keys)}, PANEL, CODECS, Upload(), AT)
    assert made.left.keys() == {keys[1]}
    assert "broadcast_date" in made.left[keys[1]]
    sent = message(made.sending)
    assert sent.source == source_of(dict(made.sending.headers))
    assert sent.source.expand() == [10, 30]
    assert sent.redrives == [keys[0], keys[2]]
    assert sent.from_letters
    assert made.sending.partition == sent.source.partition == 3
    assert [len(block.messages) for block in made.sending.validated.values()] == [2]
    for key in sent.redrives:
        marked = made.sending.letters[key]
        assert (marked.under_way, marked.original, marked.record_type) == (AT, found[key].original, "avail")


def test_a_record_that_was_validated_before_is_not_published_again_unless_it_is_edited():
    found = letters(good(1))
    first = remake(found, PANEL, CODECS, Upload(), AT).sending
    again = remake(first.letters, PANEL, CODECS, Upload(), AT).sending
    assert again.batch.key != first.batch.key
    assert again.validated == {}
    edited = remake(first.letters, PANEL, CODECS, Upload(), AT, edited=good(9)).sending
    assert edited.batch.key != first.batch.key
    assert sum(len(block.messages) for block in edited.validated.values()) == 1
    assert [one.original for one in edited.letters.values()] == [good(1)]


@given(st.integers(1, 12), st.integers(0, 6))
@settings(max_examples=30)
def test_a_set_that_failed_has_another_key_and_still_says_whose_is_which(records, times):
    """The key of the set that failed is answered from what Avstar stored."""
    found = letters(*map(good, range(records)), retry_count=times)
    sending = remake(found, PANEL, CODECS, Upload(), AT).sending
    before = remake(
        letters(*map(good, range(records)), retry_count=times + 1), PANEL, CODECS, Upload(), AT
    ).sending
    assert sending.batch.key != before.batch.key
    assert sending.batch.records == records + times
    sent = message(sending)
    assert [found[key].place.raw_offset for key in sent.redrives] == sent.source.expand()


@given(st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=20)
def test_every_time_that_a_set_is_sent_it_has_a_key_of_its_own(records, times):
    """Those of a batch that was rejected record by record, too: Avstar knows its key."""
    sent = remake(letters(*map(good, range(records))), PANEL, CODECS, Upload(), AT).sending
    refused = [sent.batch.key]
    found = letters(*map(good, range(records)), stage="dispatch", idempotency_key=sent.batch.key)
    for _ in range(times):
        sent = remake(found, PANEL, CODECS, Upload(), AT).sending
        assert sent.batch.key not in refused
        refused.append(sent.batch.key)
        rejected = booked(*range(sent.batch.records))
        found = dict(settle(message(sent), rejected, {}, dict(sent.letters)).letters)


def test_booked_letters_are_gone_and_refused_ones_renewed():
    found = letters(good(1), good(2), good(3))
    keys = list(found)
    sending = remake(found, PANEL, CODECS, Upload(), AT).sending
    settled = settle(message(sending), booked(1), {}, dict(sending.letters))
    assert settled.gone == [keys[0], keys[2]]
    ((key, renewed),) = settled.letters
    assert key == keys[1]
    assert (renewed.stage, renewed.reason, renewed.retry_count) == ("dispatch", "rejected", 1)
    assert (renewed.under_way, renewed.original, renewed.attempts) == ("", good(2), 2)
    assert renewed.reasons == [Reason(field="", value="c", rule="m")]
    assert (settled.receipt.status, settled.receipt.from_letters) == ("redriven", True)


def test_a_record_that_was_sent_twice_and_refused_twice_has_one_letter():
    found = letters(good(1), retry_count=1)
    sending = remake(found, PANEL, CODECS, Upload(), AT).sending
    settled = settle(message(sending), booked(0, 1), {}, dict(sending.letters))
    assert [(key, one.retry_count) for key, one in settled.letters] == [(key, 2) for key in found]
    assert settled.gone == []


def test_given_up_records_stay_rejected_each_with_its_letter():
    found = letters(good(1), good(2))
    sending = remake(found, PANEL, CODECS, Upload(), AT).sending
    settled = settle(message(sending), GAVE_UP, {}, dict(sending.letters))
    assert settled.gone == []
    assert [key for key, _ in settled.letters] == list(found)
    assert {(one.stage, one.reason, one.retry_count) for _, one in settled.letters} == {
        ("validate", "gave_up", 1)
    }
    assert settled.receipt.from_letters


def batch_letter(records=5):
    bodies = [(f"{n:064x}", b'{"n":%d,"record_type":"spot"}' % n) for n in range(records)]
    made = build(bodies)
    source = source_of(
        {
            "source-partition": b"1", "source-first": b"0", "source-last": b"4",
            "source-records": b"5", "source-offsets": b"0-4",
        }
    )  # fmt: skip
    headers = {name: value.decode() for name, value in made.headers(source, [], [], 0)}
    return DeadLetter(
        kind="batch", stage="dispatch", reason="gave_up", original=made.body, idempotency_key=made.key,
        source=source, records=5, first_failure="t1", last_failure="t1",
        headers=headers | {"replay": "r", "rejected-before": "1"},
    )  # fmt: skip


def test_a_batch_goes_back_as_it_was_and_all_its_messages_end():
    dead = batch_letter()
    key = dead.idempotency_key
    stored = Stored(key, dead.model_dump(), {f"{key} {n}/2".encode(): (0, n) for n in (1, 2)})
    sending = _as_it_was(stored, dead)
    sent = message(sending)
    assert (sent.batch.body, sent.batch.key) == (dead.original, key)
    assert (sent.replay, sent.rejected_before, sent.from_letters) == ("", [], False)
    assert sending.gone == list(stored.messages)  # marked, it is one message
    assert settle(sent, booked(), {}).gone == [key]
    failed = settle(sent, GAVE_UP, {}, sending.letters)
    assert failed.gone == []
    ((renewed_key, renewed),) = failed.letters
    assert renewed_key == key
    assert (renewed.retry_count, renewed.under_way, renewed.attempts) == (1, "", 3)


def test_a_replay_ends_no_redriven_letters_but_those_of_records_that_it_booked():
    dead = batch_letter()
    sending = _as_it_was(Stored(dead.idempotency_key, {}, {dead.idempotency_key.encode(): (0, 0)}), dead)
    headers = dict(sending.headers) | {"replay": b"r", "rejected-before": b"1,3"}
    sent = Message.read(sending.batch.key.encode(), sending.batch.body, headers)
    originals = {n: RawOriginal(pack(bytes(16), n * 10, n + 1, 0), b"raw %d" % n) for n in range(5)}
    settled = settle(sent, booked(3, 4), originals)
    assert settled.gone == [rejection_key(bytes(16), 10, b"raw 1")]
    assert [key for key, _ in settled.letters] == [rejection_key(bytes(16), 40, b"raw 4")]
    assert (settled.receipt.status, settled.receipt.replay) == ("delivered", "r")


@given(st.binary(max_size=3000), st.integers(700, 5000))
@settings(max_examples=60)
def test_parts_fit_and_join_to_the_whole(original, most):
    dead = batch_letter().model_copy(update={"original": original, "headers": {}})
    pieces = parts.split("k", dead, most)
    assert all(len(piece.dump()) <= most for _, piece in pieces)
    assert {parts.whole(key) for key, _ in pieces} == {"k"}
    assert parts.join(piece for _, piece in reversed(pieces)) == dead
    if len(pieces) > 1:
        assert parts.join(piece for _, piece in pieces[1:]) is None


def test_a_letter_whose_context_alone_is_too_large_is_an_error():
    with pytest.raises(ValueError, match="context"):
        parts.split("k", batch_letter(), 100)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"under_way": "2026-11-24T00:00:00.000Z"}, ""),  # longer ago than a batch is kept
        ({"under_way": "2999-11-24T00:00:00.000Z"}, "under way"),
        ({"retry_count": 5}, "5 times already"),
        ({"stage": "tail"}, "only its beginning"),
        ({"reason": "malformed"}, "discard it"),
    ],
)
def test_why_a_letter_is_left_alone(changed, why):
    if changed.get("under_way", "").startswith("2026"):
        changed = {"under_way": "2020-01-01T00:00:00.000Z"}
    found = _why_not(Stored("k", letter(1).model_dump(mode="json") | changed, {}), 5)
    assert why in found
    assert bool(why) == bool(found)


def test_letters_are_wanted_by_key_or_reason_or_all():
    stored = [Stored(key, {"reason": reason}, {}) for key, reason in (("aa1", "x"), ("ab2", "y"))]
    assert Wanted(keys=["AA", "aa1"]).pick(stored) == stored[:1]
    assert Wanted(reason="y").pick(stored) == stored[1:]
    assert Wanted(everything=True).pick(stored) == stored
    for wrong in (Wanted(), Wanted(keys=["a"], everything=True)):
        with pytest.raises(UsageError):
            wrong.check()


def test_a_letter_is_found_under_any_key_as_it_is_shown():
    """Ours also as typed off in capitals; a stranger's as it stands, bytes that are no text included."""
    stored = [Stored(whole(key), {}, {key: (0, 0)}) for key in (b"abc1", b"ABCD", b"ABC", b"\xff\xfe")]
    for typed, found in (("abc", 0), ("ABC1", 0), ("ABCD", 1), ("ABC", 2), (r"\xff", 3), (r"\xff\xfe", 3)):
        assert pick(stored, typed) is stored[found]
    with pytest.raises(Problem, match="3 dead letters begin so"):
        pick(stored, "AB")


def test_a_batch_that_is_named_is_not_judged_another_way():
    """It would go as it was, as if no --edit or --profile had been given."""
    stored = [Stored("aa1", {"kind": "batch"}, {})]
    with pytest.raises(UsageError, match="aa1: a batch is sent as it was; --edit and --profile are for"):
        Wanted(keys=["aa"]).check_unnamed(stored)
    Wanted(keys=["bb"]).check_unnamed([])
    Wanted(everything=True).check_unnamed(stored)


@pytest.mark.parametrize("key", ["", " "])
@pytest.mark.parametrize(
    "command",
    [("show",), ("redrive",), ("redrive", "aa1"), ("discard", "--why", "a variable that was not set")],
)
def test_an_empty_key_is_no_beginning_of_the_only_letter(command, key, monkeypatch, capsys):
    """All keys begin with it; no broker is asked, and no pen taken from a redrive that runs."""
    monkeypatch.setattr("sys.argv", ["spotstream", "dlq", *command, key])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "the KEY is empty; give a key" in capsys.readouterr().err
    with pytest.raises(UsageError):
        pick([Stored("aa1", {}, {})], key)
