"""What the status page is made of: letters, receipts, speed, the verdict, and who may see it."""

import contextlib
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import parts
from schemas.batch import Source
from schemas.errors import UsageError
from schemas.letter import DeadLetter, Place, Reason, Receipt
from streams.settings import Settings, WorkerSettings
from streams.status import access, lookout, peer
from streams.status.access import Access
from streams.status.bookings import Bookings
from streams.status.files import Files
from streams.status.letters import Letters, Wanted
from streams.status.trend import Sample, Speed, Trend, caught_up_in_s
from streams.status.verdict import spell, verdict
from streams.tail.checkpoint import Checkpoint, Stretch

ASSETS = Path(access.__file__).parent
TOKEN = "a token of some length"


def letter(number=0, fields=("spot_id",), **given):
    at = f"2026-03-01T06:{number // 60 % 60:02}:{number % 60:02}.000Z"
    reasons = [Reason(field=field, value="x", rule="is required") for field in fields]
    place = Place(descriptor="ab" * 16, number=number, partition=0, raw_offset=number)
    told = {"kind": "record", "stage": "validate", "reason": "invalid", "reasons": reasons} | {
        "original": b"x", "record_type": "spot", "place": place, "first_failure": at, "last_failure": at,
    }  # fmt: skip
    return DeadLetter(**told | given)


def key(number):
    return f"{number:064x}"


def taken(*messages, **options):
    letters = Letters(**{"max_redrives": 3} | options)
    for offset, (name, value) in enumerate(messages):
        letters.take(name.encode(), value.dump() if value else None, (0, offset))
    return letters


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", "a", "b", "ab"]))))
@settings(max_examples=100)
def test_letters_are_counted_as_they_come_change_and_end(steps):
    """What is counted is what is open: of each key the last message, an empty one ends it."""
    messages = [
        (key(n), letter(n, fields=tuple(fields), records=n) if fields else None) for n, fields in steps
    ]
    open_letters = {name: value for name, value in dict(messages).items() if value}
    letters = taken(*messages)
    assert {one.key for one in letters.all()} == open_letters.keys()
    expected = Counter(reason["field"] for value in open_letters.values() for reason in value.reasons)
    assert {cause.about: count for cause, count, _ in letters.causes(10)} == expected
    assert letters.records == sum(value.records for value in open_letters.values())
    assert [records for _, _, records in letters.causes(10)] == sorted(
        (
            sum(
                v.records
                for v in open_letters.values()
                if {"field": field, "value": "x", "rule": "is required"} in v.reasons
            )
            for field in expected
        ),
        reverse=True,
    )


def test_a_letter_in_parts_is_one():
    whole = letter(
        kind="batch", stage="dispatch", reason="gave_up", original=b"x" * 4000, place=None, records=9
    )
    pieces = parts.split(key(1), whole, 2500)
    assert len(pieces) > 1
    letters = taken(*pieces)
    assert len(letters) == 1
    assert letters.records == 9
    stored = letters.stored(key(1))
    assert stored.messages == {name.encode(): (0, offset) for offset, (name, _) in enumerate(pieces)}
    for name, _ in pieces:
        assert len(letters) == 1
        letters.take(name.encode(), None, (0, 9))
    assert letters.stored(key(1)) is None


def test_what_is_no_letter_is_shown_as_such():
    letters = Letters(3)
    for value in (b"x", b"[]", b"{}", b'"kind"'):
        letters.take(key(1).encode(), value, (0, 1))
        assert [(one.reason, one.stage) for one in letters.all()] == [("unreadable", "unknown")]


def test_of_too_many_letters_the_last_are_kept():
    letters = taken(*((key(n), letter(n)) for n in range(30)), most=20)
    assert [one.number for one in letters.all()] == list(range(10, 30))
    assert letters.forgotten == 10
    assert letters.records == 20


def test_filters():
    airs = {"airs": "2026-03-01T11=5"}
    letters = taken(
        (key(1), letter(1)),
        (key(2), letter(2, fields=("rate", "net"), record_type="billing")),
        (key(3), letter(3, stage="dispatch", reason="rejected", retry_count=1, headers=airs)),
        (key(4), letter(4, under_way="2026-03-02T06:00:00.000Z", headers=airs)),
        (key(5), letter(5, kind="batch", reason="gave_up", stage="dispatch", retry_count=3, place=None,
                        source=Source(7, 0, 1, 2, "0-1"), headers=airs)),
    )  # fmt: skip
    paths = {"ab" * 16: "/logs/avion.csv"}

    def found(**wanted):
        return [int(one.key, 16) for one in Wanted(**wanted).of(letters.all(), paths)]

    assert found() == [5, 4, 3, 2, 1]
    assert found(reason="invalid") == [4, 2, 1]
    assert found(about="net") == [2]
    assert found(stage="dispatch") == [5, 3]
    assert found(kind="batch") == [5]
    assert found(kind="billing") == [2]
    assert [found(state=state) for state in ("open", "under way", "failed again", "left alone")] == [
        [2, 1], [4], [3], [5],
    ]  # fmt: skip
    assert found(file="avion.csv") == found(file="/logs/avion.csv") == [4, 3, 2, 1]
    assert found(file="vion.csv") == []
    assert found(older="2026-03-01T06:00:03Z") == [2, 1]
    assert found(newer="2026-03-01T06:00:03Z") == [5, 4]
    with pytest.raises(UsageError):
        found(older="yesterday")
    # What a redrive has under way waits as a batch.
    assert letters.airing() == [(0, Counter({"2026-03-01T11": 5})), (7, Counter({"2026-03-01T11": 5}))]


def receipt(at, **given):
    told = {"status": "delivered", "batch_id": "x", "source": Source(0, 0, 9, 10, "0-9"), "records": 10}
    return Receipt(**told | given, at=at).dump()


def test_what_was_booked_in_a_day():
    bookings = Bookings()
    bookings.take(receipt("2026-03-01T05:59:00.000Z", accepted=99))
    bookings.take(receipt("2026-03-01T06:10:00.000Z", accepted=7, duplicates=2, rejected=[
        {"index": 1, "code": "x", "message": "y"}]))  # fmt: skip
    bookings.take(receipt("2026-03-02T05:00:00.000Z", accepted=10))
    bookings.take(receipt("2026-03-02T05:30:00.000Z", status="dead_lettered"))
    # A replay is answered as the first time was.
    bookings.take(receipt("2026-03-02T04:00:00.000Z", accepted=7, duplicates=2, replay="r"))
    bookings.take(b"no receipt")
    assert bookings.booked(datetime(2026, 3, 2, 6, 30, tzinfo=UTC)) == (17, 11, 1, 1)
    assert bookings.last == "2026-03-02T05:00:00.000Z"
    assert bookings.batch_records == 10


def test_what_was_published():
    files = Files()

    def checkpoint(name, **given):
        told = {"path": f"/{name}", "records": 10, "position": 100, "size": 100, "at": "2026-03-01T06:00:00Z"}
        proof = Stretch(length=0, sha256="")
        told |= dict.fromkeys(("device", "inode", "partition", "skipped", "pending"), 0)
        told |= {"identity": name.decode(), "descriptor": "", "owner": "t", "head": proof, "recent": proof}
        files.take(name, Checkpoint(**told | given).model_dump_json().encode())

    checkpoint(b"a", size=150)
    checkpoint(b"a", records=12, position=120, size=150, at="2026-03-01T06:00:09Z")
    checkpoint(b"b", size=150, gone=True)
    checkpoint(b"c", finished=True)
    checkpoint(b"d", copy_of="c")
    files.take(b"tailer:x", b'{"instance": "1"}')
    assert files.published() == (3, 1, 32, 30, 1, "2026-03-01T06:00:09Z")
    files.take(b"a", None)
    assert files.published().records == 20
    for value in (b"", b"x", b"[]", b"{}", b'{"path":"/e","records":"1","position":{}}'):
        files.take(b"e", value)
        files.describe(b"e", value)
    assert files.published().records == 20


def test_speed_is_that_of_the_last_half_minute():
    trend = Trend()
    assert trend.speed == Speed()
    for second in range(0, 200, 10):
        came = 100 * second + (4000 if second >= 180 else 0)
        done = 50 * second + (1000 if second >= 170 else 0)
        trend.learn(Sample(second, came, done, 0, 4 * second))
    # What came in the last ten seconds counts, so that a burst that has ended is over.
    assert trend.speed == pytest.approx((100, 50 + 1000 / 30, 2))
    trend.learn(Sample(210, 0, 0, 0, 0))
    assert trend.speed == Speed()


@pytest.mark.parametrize(
    ("records", "batches", "speed", "seconds"),
    [
        (0, 0, Speed(), 0),
        (1000, 0, Speed(0, 100, 1), 10),
        (0, 20, Speed(0, 0, 2), 10),
        (1000, 20, Speed(0, 100, 2), 15),  # the batches that validation makes have to be booked, too
        (1000, 0, Speed(100, 100, 2), None),
        (0, 20, Speed(), None),
    ],
)
def test_when_it_has_caught_up(records, batches, speed, seconds):
    assert caught_up_in_s(records, batches, 100, speed) == seconds


WELL = {
    "looked": "2026-03-01T06:00:00Z", "error": "", "files": {"behind": 0},
    "validate": {"waiting": 0, "oldest_s": None}, "dispatch": {"waiting": 0, "oldest_s": None},
    "caught_up_s": 0, "airing": [{"within": "1h", "waiting": 0, "dead": 0}], "rejected": {"letters": 0},
    "avstar": {"breaker": "closed"}, "roles": [{"role": "validate", "answers": True, "held": []}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "level", "title"),
    [
        ({}, "well", "Everything is in"),
        ({"looked": ""}, "unknown", "Looking"),
        ({"rejected": {"letters": 3}}, "well", "Everything is in"),
        ({"avstar": None}, "well", "Everything is in"),
        ({"validate": {"waiting": 5, "oldest_s": 1}, "caught_up_s": 90}, "busy", "caught up in about 90 s"),
        ({"dispatch": {"waiting": 5, "oldest_s": 1}, "caught_up_s": None}, "busy", "cannot be told yet"),
        ({"files": {"behind": 5}}, "busy", "Working"),
        ({"avstar": {"breaker": "half-open"}}, "trouble", "Avstar is down"),
        ({"error": "no broker"}, "trouble", "Kafka does not answer: no broker"),
        ({"airing": [{"within": "1h", "waiting": 1, "dead": 2}]}, "trouble", "3 spots that air in this hour"),
        ({"dispatch": {"waiting": 5, "oldest_s": 2000}}, "trouble", "has waited 33 min"),
        ({"roles": [{"role": "x", "answers": False, "held": []}]}, "trouble", "x does not answer"),
        ({"roles": [{"role": "x", "answers": True, "held": ["raw 3"]}]}, "trouble", "Nearly all of raw 3"),
    ],
)  # fmt: skip
def test_the_verdict(changed, level, title):
    found = verdict(WELL | changed)
    assert found.level == level
    assert title in found.title


def test_spans_of_time_as_people_say_them():
    assert [spell(s) for s in (1, 99.4, 240, 3600 * 3 + 600, 86400 * 2 + 3600 * 3)] == [
        "1 s", "99 s", "4 min", "3 h 10 min", "2 d 3 h",
    ]  # fmt: skip


def worker(**given):
    return WorkerSettings(**given)


def request(host="localhost:6066", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", "/status/", headers={"Host": host} | named)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "worker.example"])
def test_nobody_serves_strangers_without_a_token(host):
    with pytest.raises(UsageError, match=r"worker\.web_host"):
        Access(worker(web_host=host))
    assert Access(worker(web_host=host, web_token=TOKEN)).token


def test_a_short_token_is_refused_and_not_shown():
    with pytest.raises(UsageError) as refused:
        Access(worker(web_token="short-secret"))
    assert "short-secret" not in str(refused.value)


def test_without_a_token_only_this_machine_is_answered():
    """By its own name: a stranger's page may have a name of its own lead here."""
    here = Access(worker())
    for host in ("localhost:6066", "127.0.0.1", "[::1]:6066"):
        assert here.refuses(request(host)) is None
    assert here.refuses(request("evil.example:6066")).status == 403


async def test_a_token_opens_and_a_cookie_made_of_it(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    guarded = Access(worker(web_host="0.0.0.0", web_token_file=file))
    monkeypatch.setattr(access, "_WRONG_S", 0)
    assert guarded.refuses(request()).status == 401
    assert guarded.refuses(request(Authorization=f"Bearer {TOKEN}")) is None
    for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer ÿ"):
        assert guarded.refuses(request(Authorization=wrong)).status == 401
    assert await guarded.session("wrong") == ""
    cookie = await guarded.session(TOKEN)
    assert TOKEN not in cookie
    assert guarded.refuses(request(Cookie=f"{access.COOKIE}={cookie}")) is None
    until, _, mark = cookie.partition(".")
    for forged in (f"{int(until) + 1}.{mark}", f"1.{mark}", f"{until}.", "", "x.y"):
        assert guarded.refuses(request(Cookie=f"{access.COOKIE}={forged}")).status == 401
    monkeypatch.setattr(access.time, "time", lambda: int(until) + 1)
    assert guarded.refuses(request(Cookie=f"{access.COOKIE}={cookie}")).status == 401
    monkeypatch.undo()
    file.write_text("another token of some length")
    assert guarded.refuses(request(Cookie=f"{access.COOKIE}={cookie}")).status == 401


def test_where_the_other_role_is():
    assert peer.address(worker(web_port=7000), "validate") == "http://127.0.0.1:7001/"
    assert (
        peer.address(worker(web_port=7000, web_host="::", web_token=TOKEN), "dispatch")
        == "http://[::1]:7000/"
    )
    assert peer.address(worker(web_port=0), "dispatch") == ""
    assert peer.address(worker(web_port=0, peer_url="https://x"), "dispatch") == "https://x/"


@pytest.mark.parametrize("role", ["validate", "dispatch"])
def test_the_topics_are_read_for_whoever_asks(monkeypatch, role):
    """Metrics of dispatch ask always, validate's page while somebody looks: reading takes its core's time."""
    looks = []
    monkeypatch.setattr(lookout, "follow_all", lambda *_, **__: iter([]))
    monkeypatch.setattr(lookout.Lookout, "_look", lambda self: looks.append(self) and False)
    avstar = SimpleNamespace(look=lambda: None) if role == "dispatch" else None
    one = lookout.Lookout(Settings(), SimpleNamespace(avstar=avstar, partitions=set()))
    stopped_after = 3

    def waited(_):
        one._stop.set() if len(waits) == stopped_after else waits.append(len(looks))
        if len(waits) == 2:
            one.view()

    waits = []
    monkeypatch.setattr(one, "_wake", SimpleNamespace(wait=waited, clear=lambda: None, set=lambda: None))
    monkeypatch.setattr(lookout, "closing", contextlib.nullcontext)
    one._look_on()
    assert waits == ([1, 2, 3] if role == "dispatch" else [0, 0, 1])


def test_pages_are_small_and_all_their_own():
    """Under 100 KB, nothing from elsewhere, nothing that the policy would refuse, no markup from data."""
    texts = {
        path.name: path.read_text() for path in ASSETS.iterdir() if path.suffix in {".html", ".css", ".js"}
    }
    assert texts.keys() == {"page.html", "letters.html", "login.html", "page.css", "page.js", "letters.js"}
    assert sum(len(text.encode()) for text in texts.values()) < 60_000
    for name, text in texts.items():
        assert not re.search(r"https?://|@import|url\(", text), name
        assert not re.search(r"\son\w+=|\sstyle=|<script(?! type=\"module\")", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), name
