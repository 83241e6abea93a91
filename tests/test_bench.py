"""Benchmarks: they end what they start, lose no results, count what was done, and notice what was not."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import performance
import psutil
import pytest
import reference
import scaling as simulation

from schemas.batch import Source
from schemas.errors import Problem, UsageError
from schemas.letter import Receipt, stamp
from streams.lab.bench import benchmarks, contest, dispatching, plot, scaling, tailing, validating
from streams.lab.bench.children import limit_s, running, until
from streams.lab.bench.contest import Contender, Contest
from streams.lab.bench.sink import RECORDS, Sink
from streams.lab.bench.validating import rate_of
from streams.settings import load
from topics.connection import KafkaSettings

_SLEEP = [sys.executable, "-c", "import time; time.sleep(100)"]
_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(100)
"""


def failure() -> Problem:
    return Problem("it has ended")


# --- children


@pytest.mark.parametrize("error", [Problem("the gauge cannot be read"), KeyboardInterrupt()])
def test_a_child_does_not_outlive_what_goes_wrong_beside_it(error: BaseException) -> None:
    with pytest.raises(type(error)), running(_SLEEP) as child:
        raise error
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_does_not_end_is_killed() -> None:
    with running([sys.executable, "-c", _DEAF], grace_s=0.1, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"deaf\n"
    assert child.returncode == -signal.SIGKILL


def test_one_that_has_ended_is_told_and_keeps_nobody_running() -> None:
    children = []

    def run() -> None:
        with ExitStack() as stack:
            commands = (_SLEEP, [sys.executable, "-c", ""], _SLEEP)
            children.extend(stack.enter_context(running(command)) for command in commands)
            until(lambda: False, children, 60, failure, 0.01)

    with pytest.raises(Problem, match="it has ended"):
        run()
    assert [child.returncode for child in children] == [-signal.SIGTERM, 0, -signal.SIGTERM]


def test_one_that_ends_may_have_done_all_of_it() -> None:
    looks = []

    def done() -> bool:
        """Not yet, when it is looked at just before the end."""
        child.stdin.close()
        looks.append(child.wait())
        return len(looks) > 1

    with running([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        until(done, [child], 60, failure, 0.01)
    assert child.returncode == 0


def test_what_takes_too_long_is_told() -> None:
    with pytest.raises(Problem, match="it has ended"), running(_SLEEP) as child:
        until(lambda: False, [child], 0.05, failure, 0.01)
    assert child.returncode == -signal.SIGTERM


@pytest.mark.parametrize("records", [10_000, 1_000_000, 100_000_000])
def test_the_slowest_has_time_for_its_records(records: int) -> None:
    assert limit_s(records) > 60 + records / 7000  # Faust's start and rate


_PINNED = """
import os, sys, psutil
from streams.lab.bench.children import running
os.sched_setaffinity(0, {int(sys.argv[1])})
for core in (0, -1, -2):
    with running(["sleep", "100"], core) as child:
        print(*psutil.Process(child.pid).cpu_affinity())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_only_cores_that_the_benchmark_may_use_are_used() -> None:
    for core in sorted(os.sched_getaffinity(0)):
        command = [sys.executable, "-c", _PINNED, str(core)]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        assert found.split() == [str(core)] * 3


def test_the_sink_tells_what_it_has_taken_by_key() -> None:
    began = time.time()
    with Sink() as sink:
        for key in ("alone-1", '"quoted"'):
            headers = {"Idempotency-Key": key}
            request = urllib.request.Request(sink.url, data=b"[]", headers=headers, method="POST")
            urllib.request.urlopen(request).close()
        taken = sink.taken()
    assert taken.keys() == {"alone-1", "quoted"}
    assert began <= taken["alone-1"] <= taken["quoted"] <= time.time()


# --- contests


def test_each_contender_is_the_first_in_turn() -> None:
    order: list[str] = []

    def contender(name: str) -> Contender:
        return Contender(name, lambda: order.append(name) or 1.0)

    Contest("x", "work", [contender("a"), contender("b"), contender("c")]).hold(6)
    turns = [order[at : at + 3] for at in range(3 * contest.WARM_UPS, len(order), 3)]
    assert [turn[0] for turn in turns].count("a") == 2
    assert {turn[0] for turn in turns[:3]} == {"a", "b", "c"}
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)


def test_ratios_are_those_of_each_turn() -> None:
    rates = {
        "a": iter([1.0] * contest.WARM_UPS + [10, 30, 50]),
        "b": iter([1.0] * contest.WARM_UPS + [5, 10, 50]),
    }
    contenders = [Contender(name, lambda name=name: next(rates[name])) for name in rates]
    rows = Contest("x", "work", contenders).hold(3)["contenders"]
    assert [(row["records_per_second"], row["subject_is_times_as_fast"]) for row in rows] == [
        (30, 1),
        (10, 2),
    ]


# --- what is counted


def test_all_records_between_the_first_and_the_last_full_batch_count() -> None:
    batches = [(900, 40), (1000, RECORDS), (1500, 3000), (2000, RECORDS), (3000, RECORDS), (3900, 77)]
    rate = (3000 + 2 * RECORDS) / 2
    assert rate_of(batches, sum(taken for _, taken in batches)) == rate


@pytest.mark.parametrize(
    ("batches", "told"),
    [
        ([(1000, RECORDS), (2000, RECORDS)], "batches have 10,000 of 10,001"),
        ([(1000, RECORDS), (2000, RECORDS), (2500, 2)], "batches have 10,002 of 10,001"),
        ([(1000, RECORDS), (2000, 4999), (3000, 2)], "too few full batches"),
        ([(1000, RECORDS), (1000, RECORDS), (3000, 1)], "too few full batches"),
        ([], "batches have 0 of"),
    ],
)
def test_a_validation_that_is_none_has_no_rate(batches: list[tuple[int, int]], told: str) -> None:
    with pytest.raises(Problem, match=told):
        rate_of(batches, 10_001)


def receipts(*accepted: int) -> list[Receipt]:
    """One a second."""
    at = [stamp(datetime.fromtimestamp(1e9 + second, UTC)) for second in range(len(accepted))]
    source = Source(0, 0, RECORDS - 1, RECORDS, f"0-{RECORDS - 1}")
    return [
        Receipt(
            status="delivered", batch_id="0" * 32, source=source, records=RECORDS, accepted=number, at=moment
        )
        for number, moment in zip(accepted, at, strict=True)
    ]


def test_dispatch_is_timed_from_its_first_to_its_last_booking() -> None:
    assert dispatching.rate_of(receipts(*[RECORDS] * 5)[::-1], 5) == RECORDS


@pytest.mark.parametrize("accepted", [[RECORDS] * 4, [RECORDS] * 6, [RECORDS] * 4 + [RECORDS - 1]])
def test_a_dispatch_that_lost_or_doubled_something_has_no_rate(accepted: list[int]) -> None:
    with pytest.raises(
        Problem, match=f"5 batches have {len(accepted)} receipts, of {sum(accepted):,} records"
    ):
        dispatching.rate_of(receipts(*accepted), 5)


def test_like_percentiles_are_compared() -> None:
    posts = [number / 1000 for number in range(101)]
    batches = [3 * second for second in reversed(posts)]
    assert dispatching.beyond(batches, posts) == {
        "batch p50 ms": 150, "batch p99 ms": 297, "POST p50 ms": 50, "POST p99 ms": 99,
        "beyond p50 ms": 100, "beyond p99 ms": 198,
    }  # fmt: skip


class WarmedUp(scaling.Flow):
    """A flow whose warm-up costs processor time, and whose log costs none."""

    def _until(self, condition: Callable[[], bool], records: int) -> None:
        self._weigh()

    def _pass(self, log: Path, records: int, name: str) -> Path:
        self._weigh()
        until_s = time.process_time() + (0.2 if name == "warm.csv" else 0)
        while time.process_time() < until_s:
            pass
        self._weigh()
        return log

    def _booked_at(self, path: Path) -> float:
        return time.time() + 1


def test_what_the_warm_up_costs_is_no_cost_of_the_records(tmp_path: Path) -> None:
    lab: Any = SimpleNamespace(kafka=KafkaSettings(), brokers=[psutil.Process()])
    flow = WarmedUp(lab, tmp_path, scaling.Size(records=1000))
    assert flow.measure(tmp_path / "log.csv")["brokers µs"] * 1000 < 0.1e6


# --- the files of `bench tail`


@pytest.fixture
def signals() -> Iterator[list[Any]]:
    """How signals are answered, and are again afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield before
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_tailing_leaves_the_benchmark_its_signals(tmp_path: Path, signals: list[Any]) -> None:
    with pytest.raises(UsageError):
        tailing.tail_once(load(), [tmp_path / "missing.csv"])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == signals


def test_without_kcat_its_contenders_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab: Any = SimpleNamespace(broker=SimpleNamespace(bootstrap="127.0.0.1:1"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for made in (tailing.contest, tailing.many):
        (kcat,) = [one for one in made(lab, tmp_path, 1000).contenders if "kcat" in one.name]
        assert kcat.missing == "kcat is not installed"


def test_whoever_has_not_published_every_line_is_told() -> None:
    tailing.confirm("a topic", 1002, 1002)
    with pytest.raises(Problem, match="a topic: has 1,001 of 1,002 records"):
        tailing.confirm("a topic", 1002, 1001)


# --- spotstream bench


Benchmarks = Callable[..., None]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, signals: list[Any]) -> Benchmarks:
    """Gives benchmarks other things to do than to measure."""

    def stand_in(**others: Callable[[int], object]) -> None:
        for name, do in others.items():

            def measure(
                folder: Path, records: int, runs: int, name: str = name, do: Any = do
            ) -> dict[str, Any]:
                do(records)
                return {"name": name, "work": "w", "runs": runs, "rows": [{"p50 ms": 1.5, "p99 ms": 2.5}]}

            monkeypatch.setitem(benchmarks.BENCHMARKS, name, measure)

    return stand_in


def fails(_: int) -> None:
    raise OSError(28, "No space left on device")


def interrupted(_: int) -> None:
    raise KeyboardInterrupt


def names(printed: str) -> list[str]:
    return [result["name"] for result in orjson.loads(printed)]


def test_one_that_fails_costs_the_others_nothing(
    stand_ins: Benchmarks, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_ins(tail=id, validate=fails, dispatch=id)
    with pytest.raises(Problem, match="failed: validate") as raised:
        benchmarks.run(["tail", "validate", "dispatch"], 100_000, 1, as_json=True, picture=None)
    out, err = capsys.readouterr()
    assert (names(out), raised.value.exit_status) == (["tail", "dispatch"], 1)
    assert "spotstream bench validate: unexpected OSError: [Errno 28] No space left on device" in err


def test_what_was_measured_before_an_interrupt_is_printed(
    stand_ins: Benchmarks, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_ins(tail=id, dispatch=interrupted)
    with pytest.raises(KeyboardInterrupt):
        benchmarks.run(["tail", "dispatch"], 100_000, 1, as_json=True, picture=None)
    assert names(capsys.readouterr().out) == ["tail"]


@pytest.mark.parametrize("as_json", [True, False])
def test_results_are_printed_though_they_cannot_be_drawn(
    tmp_path: Path, stand_ins: Benchmarks, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    stand_ins(tail=lambda _: folder.rmdir())
    with pytest.raises(Problem, match="cannot be written"):
        benchmarks.run(["tail"], 100_000, 1, as_json=as_json, picture=folder / "tail.svg")
    assert "2.5" in capsys.readouterr().out


def test_a_picture_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tail.svg").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        plot.check(tmp_path / "tail.svg")


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may do everything")
@pytest.mark.parametrize("exists", [True, False])
def test_a_picture_that_may_not_be_written_is_refused(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "tail.svg"
    if exists:
        path.touch(mode=0o400)
    else:
        tmp_path.chmod(0o500)
    less = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "streams.cli", "bench", "tail", "--plot", str(path)]
    done = subprocess.run([*less, *command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--plot {path}: may not be written" in done.stderr


def test_records_are_whole_batches(stand_ins: Benchmarks, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[int] = []
    stand_ins(tail=given.append, validate=given.append)
    benchmarks.run(["tail", "validate"], validating.LEAST + 4_999, 1, as_json=True, picture=None)
    assert given == [validating.LEAST] * 2


@pytest.mark.parametrize("wanted", [["tail", "validate"], ["rejects"], []])
def test_too_few_records_for_a_rate_are_refused_at_once(stand_ins: Benchmarks, wanted: list[str]) -> None:
    stand_ins(**dict.fromkeys(benchmarks.BENCHMARKS, fails))
    with pytest.raises(UsageError, match=f"needs at least {validating.LEAST:,} records"):
        benchmarks.run(wanted, validating.LEAST - 1, 1, as_json=True, picture=None)


def test_help_names_every_benchmark() -> None:
    named = dict(reference.commands())["bench"].params[0]
    assert named.help.startswith(", ".join(benchmarks.BENCHMARKS) + ";")


# --- the pages' figures


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of results, and a page, of a repository of their own."""
    page = tmp_path / "page.md"
    page.write_text("<!-- tail-delay -->\n<!-- /tail-delay -->\n<!-- latency -->\n<!-- /latency -->\n")
    monkeypatch.setattr(performance, "RESULTS", tmp_path / "performance.json")
    monkeypatch.setattr(performance, "PAGES", (page,))
    return tmp_path / "performance.json"


def result(name: str, ms: float) -> dict[str, Any]:
    return {"name": name, "work": "one file; most MB", "runs": 1, "rows": [{"p50 ms": ms, "p99 ms": ms}]}


def test_a_run_of_some_benchmarks_leaves_the_results_of_others(results: Path, tmp_path: Path) -> None:
    results.write_bytes(orjson.dumps([result("tail-delay", 1.25), result("latency", 2.5)]))
    (tmp_path / "new.json").write_bytes(orjson.dumps([result("latency", 7.5), result("scale-not", 9)]))
    performance.main([str(tmp_path / "new.json")])
    found = orjson.loads(results.read_bytes())
    assert [(one["name"], one["rows"][0]["p50 ms"]) for one in found] == [
        ("tail-delay", 1.25), ("latency", 7.5), ("scale-not", 9),
    ]  # fmt: skip
    page = (tmp_path / "page.md").read_text()
    assert "| 1.25 | 1.25 |" in page
    assert "| 7.5 | 7.5 |" in page
    assert page.count("One file; most MB.") == 2
    # There is no `scale` among them.
    assert {path.name for path in tmp_path.glob("*.svg")} == {"performance.svg"}


def test_the_simulation_starts_from_what_was_measured() -> None:
    scale = [
        {"records": 50, "validate µs": 40, "brokers µs": 50},
        {"records": 900, "validate µs": 15, "brokers µs": 8},
    ]
    ended = [
        {"transactions/s": 70, "p50 ms": 14},
        {"transactions/s": 1000, "p50 ms": 11},
        {"transactions/s": 990, "p50 ms": 40},
    ]
    found = simulation.measured([{"name": "scale", "rows": scale}, {"name": "transactions", "rows": ended}])
    assert found == simulation.Costs(
        validate_us=15, broker_us=8, transactions_a_second=1000, transaction_ms=11
    )
    assert simulation.measured([{"name": "tail", "contenders": []}]) == simulation.Costs()


# --- all of it


@pytest.mark.broker
@pytest.mark.parametrize(
    ("name", "records"), [("tail", 10_000), ("rejects", validating.LEAST), ("dispatch", 10_000)]
)
def test_a_small_benchmark_runs_to_its_end(
    name: str, records: int, tmp_path: Path, signals: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own checks of what was done hold."""
    monkeypatch.setattr(contest, "WARM_UPS", 0)
    monkeypatch.setattr(dispatching, "_WARM_UP", 5)
    monkeypatch.setattr(dispatching, "_SINGLE", 20)
    result = benchmarks.BENCHMARKS[name](tmp_path, records, 1)
    contest.show(result)
    ran = [row for row in result["contenders"] if "skipped" not in row]
    assert len(ran) > 1
    assert all(row["records_per_second"] > 0 for row in ran)
    if name == "dispatch":
        assert 0 < result["overhead"]["POST p50 ms"] < result["overhead"]["batch p50 ms"]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == signals
