"""The tables of docs/scaling.md, simulated from measured costs: ``python tests/scaling.py``.

What ``spotstream bench`` measures of them comes from docs/performance.json, see tests/performance.py.

Partitions get records evenly. What takes turns is a server: a worker's core, the transactions' coordinators,
a partition's own transactions, Avstar's ceilings. A window holds what has come when its worker has time for
it, so one that is behind makes larger windows, as the real one does.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from performance import RESULTS, fill, rows_of

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"

DAY_S = 86_400
#: Simulated, and of that not counted: the queues fill first.
SPAN_S, FILL_S = 90.0, 40.0


class Costs(NamedTuple):
    """What the simulation starts from; :data:`MEANINGS` says what each is, and how it was measured.

    Those that ``bench`` measures are replaced by what it found, see :func:`measured`.
    """

    tail_us: float = 1.0
    validate_us: float = 18.2
    window_ms: float = 1.0
    dispatch_ms: float = 2.4
    transaction_ms: float = 12.0
    transactions_a_second: float = 1100.0
    broker_us: float = 9.1
    answer_s: float = 0.5
    raw_bytes: float = 76.0
    validated_bytes: float = 123.0
    batch_bytes: float = 98.0


MEANINGS = {
    "tail_us": ("a record in the tailer, processor time, µs", "decisions.md, a long file"),
    "validate_us": ("a record in validation, processor time, µs", "`bench scale`, the longest log"),
    "window_ms": ("a window in validation, beside its records, ms", "assumed"),
    "dispatch_ms": ("a batch in dispatch, processor time, ms", "decisions.md"),
    "transaction_ms": ("a transaction, from begin to end, ms", "`bench transactions`, the shortest"),
    "transactions_a_second": (
        "transactions that one broker ends a second",
        "`bench transactions`, the most",
    ),
    "broker_us": ("a record in the broker, processor time, µs", "`bench scale`, the longest log"),
    "answer_s": ("Avstar's answer to a batch, s", "assumed"),
    "raw_bytes": ("a record on `avion.raw`, as it lies there, bytes", "the broker's files"),
    "validated_bytes": ("a record on `avion.validated.*`, bytes", "the broker's files"),
    "batch_bytes": ("a record on `avstar.batches`, bytes", "the broker's files"),
}


def measured(results: Iterable[dict[str, Any]]) -> Costs:
    """The costs, with what these benchmarks found; their results are as ``bench --json`` prints them."""
    rows = {result["name"]: result["rows"] for result in results if "rows" in result}
    found: dict[str, float] = {}
    if scale := rows.get("scale"):
        longest = max(scale, key=lambda row: int(row["records"]))
        found |= {"validate_us": longest["validate µs"], "broker_us": longest["brokers µs"]}
    if ended := rows.get("transactions"):
        found["transaction_ms"] = min(row["p50 ms"] for row in ended)
        found["transactions_a_second"] = max(row["transactions/s"] for row in ended)
    return Costs()._replace(**found)


COSTS = measured(orjson.loads(RESULTS.read_bytes()))


class Setup(NamedTuple):
    """A load, and what is set to carry it."""

    name: str
    records_a_second: float
    partitions: int = 8
    validators: int = 1
    dispatchers: int = 1
    brokers: int = 1
    batch_records: int = 5000
    batch_seconds: float = 1.0
    early_seconds: float = 0.0
    requests_at_once: int = 15
    requests_per_minute: int = 0


@dataclass
class Seen:
    """What a simulation counts."""

    windows: list[int] = field(default_factory=list)
    transactions: int = 0
    requests: int = 0
    booked: int = 0
    waits: list[tuple[float, float, int]] = field(default_factory=list)  # oldest, youngest; records


class Server:
    """Does one thing after the other."""

    def __init__(self, clock: "Clock") -> None:
        self._clock, self._free = clock, 0.0
        self.busy_s = 0.0

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        begin = max(self._clock.now, self._free)
        self._free = begin + seconds
        self.busy_s += seconds
        self._clock.at(self._free, then)


class Clock:
    """What happens, in its order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()


class Avstar:
    """One dispatching worker's share of the ceilings, as streams/dispatch/throttle.py takes it."""

    def __init__(self, clock: Clock, setup: Setup, answer_s: float) -> None:
        part = 1 / setup.dispatchers
        self._clock, self._answer_s = clock, answer_s
        self._at_once = max(1, int(setup.requests_at_once * part))
        per_minute = setup.requests_per_minute * part * 0.96
        self._interval_s = 60.05 / (math.floor(per_minute) or per_minute) if per_minute else 0.0
        self._slot, self._inside = 0.0, 0
        self._line: deque[Callable[[], None]] = deque()

    def post(self, then: Callable[[], None]) -> None:
        self._line.append(then)
        self._send()

    def _send(self) -> None:
        while self._line and self._inside < self._at_once:
            then = self._line.popleft()
            self._inside += 1
            self._slot = max(self._slot + self._interval_s, self._clock.now)
            self._clock.at(self._slot + self._answer_s, lambda then=then: self._answered(then))

    def _answered(self, then: Callable[[], None]) -> None:
        self._inside -= 1
        then()
        self._send()


class Partition:
    """Its windows, its batches, and their transactions, one at a time in each role."""

    def __init__(self, flow: "Flow", number: int) -> None:
        self._flow, self._setup = flow, flow.setup
        self._rate = flow.setup.records_a_second / flow.setup.partitions
        self._core = flow.validators[number % flow.setup.validators]
        self._sending = flow.dispatchers[number % flow.setup.dispatchers]
        self._avstar = flow.shares[number % flow.setup.dispatchers]
        self._coordinators = [flow.coordinators[(number + role) % flow.setup.brokers] for role in (0, 1)]
        self._taken = self._window = self._under_way = 0
        self._early_at = 0.0
        self._pending: list[deque[Callable[[], None]]] = [deque(), deque()]
        self._committing = [False, False]
        # Not all at the same moment: files begin when they do.
        flow.clock.at((number * 0.618) % 1 * flow.setup.batch_seconds, self._wait)

    def _arrived(self, records: float) -> float:
        """When so many have come."""
        return records / self._rate

    def _wait(self) -> None:
        """Until the next window is full or old, or may close early because nothing is under way."""
        setup, clock, window = self._setup, self._flow.clock, self._window
        began = max(self._arrived(self._taken + 1), clock.now)
        full = self._arrived(self._taken + setup.batch_records)
        clock.at(max(min(began + setup.batch_seconds, full), clock.now), lambda: self._close(window))
        self._early_at = began + (setup.early_seconds or math.inf)
        if setup.early_seconds:
            clock.at(self._early_at, lambda: self._close_early(window))

    def _close_early(self, window: int) -> None:
        if self._flow.clock.now >= self._early_at and not self._under_way:
            self._close(window)

    def _close(self, window: int) -> None:
        if window == self._window:  # not closed yet
            self._window += 1
            self._core.serve(0.0, self._judge)

    def _judge(self) -> None:
        """Take what has come by now, when the core has time for it."""
        there = int(self._flow.clock.now * self._rate) - self._taken
        records = min(self._setup.batch_records, max(1, there))
        first, self._taken = self._taken, self._taken + records
        self._under_way += 1
        costs = self._flow.costs
        seconds = costs.window_ms / 1e3 + records * costs.validate_us / 1e6
        self._core.serve(seconds, lambda: self._judged(first, records))

    def _judged(self, first: int, records: int) -> None:
        self._commit(0, lambda: self._dispatch(first, records))
        self._wait()

    def _dispatch(self, first: int, records: int) -> None:
        self._flow.seen.windows.append(records)
        self._sending.serve(
            self._flow.costs.dispatch_ms / 1e3,
            lambda: self._avstar.post(lambda: self._booked(first, records)),
        )

    def _booked(self, first: int, records: int) -> None:
        now, seen = self._flow.clock.now, self._flow.seen
        if now > FILL_S:
            seen.requests += 1
            seen.booked += records
            seen.waits.append((now - self._arrived(first), now - self._arrived(first + records), records))
        self._commit(1, self._settled)

    def _settled(self) -> None:
        self._under_way -= 1
        self._close_early(self._window)

    def _commit(self, role: int, then: Callable[[], None]) -> None:
        """In a transaction, when the last one of this partition and role has ended."""
        self._pending[role].append(then)
        if not self._committing[role]:
            self._begin(role)

    def _begin(self, role: int) -> None:
        """Validation commits window by window, dispatch all that has ended; in turn at the coordinator."""
        costs, clock, pending = self._flow.costs, self._flow.clock, self._pending[role]
        whole = [pending.popleft() for _ in range(len(pending) if role else 1)]
        self._committing[role] = True
        self._flow.seen.transactions += clock.now > FILL_S

        def end() -> None:
            self._committing[role] = False
            for then in whole:
                then()
            if pending and not self._committing[role]:
                self._begin(role)

        self._coordinators[role].serve(
            1 / costs.transactions_a_second, lambda: clock.at(clock.now + costs.transaction_ms / 1e3, end)
        )


class Flow:
    """All of it under one setup."""

    def __init__(self, setup: Setup, costs: Costs) -> None:
        self.setup, self.costs, self.seen, self.clock = setup, costs, Seen(), Clock()
        self.validators = [Server(self.clock) for _ in range(setup.validators)]
        self.dispatchers = [Server(self.clock) for _ in range(setup.dispatchers)]
        self.coordinators = [Server(self.clock) for _ in range(setup.brokers)]
        self.shares = [Avstar(self.clock, setup, costs.answer_s) for _ in range(setup.dispatchers)]
        for number in range(setup.partitions):
            Partition(self, number)
        self.clock.run(SPAN_S)

    def row(self) -> dict[str, str]:
        """The simulation's figures, as the page shows them."""
        counted_s, seen, setup = SPAN_S - FILL_S, self.seen, self.setup
        booked = seen.booked / counted_s
        return {
            "setup": setup.name,
            "records/s": f"{setup.records_a_second:,.0f}",
            "keeps up": "yes" if booked > 0.98 * setup.records_a_second else f"no: {booked:,.0f}/s",
            "records a batch": f"{np.mean(seen.windows):,.0f}",
            "transactions/s": f"{seen.transactions / counted_s:,.0f}",
            "requests a minute": f"{seen.requests * 60 / counted_s:,.0f}",
            "validating cores": f"{sum(one.busy_s for one in self.validators) / SPAN_S:.1f}",
            "dispatching cores": f"{sum(one.busy_s for one in self.dispatchers) / SPAN_S:.1f}",
            "append → booked, p50": f"{self._waited(50):.1f} s",
            "p99": f"{self._waited(99):.1f} s",
        }

    def _waited(self, percent: float) -> float:
        """Records of a window came one after the other: nine of them stand for all."""
        shares = np.linspace(0, 1, 9)
        waits = np.array([old + (young - old) * shares for old, young, _ in self.seen.waits]).ravel()
        weights = np.repeat([records / 9 for *_, records in self.seen.waits], 9)
        order = np.argsort(waits)
        reached = np.searchsorted(np.cumsum(weights[order]), weights.sum() * percent / 100)
        return float(waits[order][min(reached, len(waits) - 1)])


BILLION = Setup("10⁹ a day, evenly; as installed", 1e9 / DAY_S)
#: A worker's core takes so many records a second, with a fifth to spare.
_CORE = 0.8e6 / (COSTS.validate_us + COSTS.window_ms * 1e3 / 5000)
_MANY = BILLION._replace(name="64 partitions", partitions=64)
_HUNDRED = Setup("100 workers, 100 partitions, 3 brokers", 100 * _CORE, 100, 100, 4, 3)
SETUPS = {
    "billion": [
        BILLION,
        _MANY,
        _MANY._replace(
            name="64 partitions, `early_seconds` 1, `seconds` 20", early_seconds=1, batch_seconds=20
        ),
        _MANY._replace(name="64 partitions, ceiling of 600 a minute", requests_per_minute=600),
        _MANY._replace(
            name="that, `early_seconds` 1, `seconds` 20",
            requests_per_minute=600,
            early_seconds=1,
            batch_seconds=20,
        ),
        BILLION._replace(
            name="10⁹ in six hours; 2 workers, 16 partitions",
            records_a_second=4 * BILLION.records_a_second,
            partitions=16,
            validators=2,
        ),
    ],
    "hundred": [
        _HUNDRED,
        _HUNDRED._replace(name="that, 256 requests at once", requests_at_once=256),
        _HUNDRED._replace(name="that, batches of 10,000", requests_at_once=256, batch_records=10_000),
        _HUNDRED._replace(name="that, 9 brokers", requests_at_once=256, batch_records=10_000, brokers=9),
        _HUNDRED._replace(
            name="that, 400 partitions", partitions=400, requests_at_once=256, batch_records=10_000, brokers=9
        ),
    ],
}


def _paper(setup: Setup, costs: Costs) -> dict[str, str]:
    """What a load takes, without taking turns."""
    rate = setup.records_a_second
    window = min(setup.batch_records, setup.batch_seconds * rate / setup.partitions)
    windows = rate / window
    stored = costs.raw_bytes + costs.validated_bytes + costs.batch_bytes
    written = stored * min(3, setup.brokers) / setup.brokers
    return {
        "records/s": f"{rate:,.0f}",
        "records in a window: min(n, t·r/p)": f"{window:,.0f}",
        "requests a minute: r / window": f"{windows * 60:,.0f}",
        "requests under way: requests/s by answer": f"{windows * costs.answer_s:,.0f}",
        "transactions/s: one a window, at most one a request": f"{windows:,.0f} to {2 * windows:,.0f}",
        "validating cores": f"{(rate * costs.validate_us + windows * costs.window_ms * 1e3) / 1e6:,.1f}",
        "dispatching cores": f"{windows * costs.dispatch_ms / 1e3:,.2f}",
        "tailing cores": f"{rate * costs.tail_us / 1e6:,.2f}",
        "brokers' cores, without replicas": f"{rate * costs.broker_us / 1e6:,.1f}",
        "into the brokers, MB/s, without replicas": f"{rate * stored / 1e6:,.0f}",
        "each broker writes, MB/s, with up to three replicas": f"{rate * written / 1e6:,.0f}",
    }


def tables() -> Iterator[tuple[str, str]]:
    """Name and text of each table on the page."""
    costs = COSTS
    stated = [{"cost": MEANINGS[name][0], "is": f"{value:g}", "from": MEANINGS[name][1]}
              for name, value in costs._asdict().items()]  # fmt: skip
    yield "costs", rows_of(stated)
    papers = {setup.name: _paper(setup, costs) for setup in (BILLION, _MANY, _HUNDRED)}
    yield "paper", rows_of([{"": what} | {name: paper[what] for name, paper in papers.items()}
                          for what in papers[BILLION.name]])  # fmt: skip
    for name, setups in SETUPS.items():
        yield name, rows_of([Flow(setup, costs).row() for setup in setups])


def page(text: str) -> str:
    """The page with its tables made anew."""
    return fill(text, tables())


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
