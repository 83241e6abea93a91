"""The ownership protocol as a small model, and a checker that goes through all its interleavings.

Two processes, one partition of three records, windows of one or two. The group may give the partition to
either at any moment and tells nobody else, so that the one that had it goes on as a zombie; either may die
at any step; the broker may time a transaction out, and takes its time between a commit and its markers. A
process may not be told what came of a transaction: it fences anew, and the position tells.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

RECORDS = 3

Violation = Literal["", "in two batches", "skipped", "robbed"]


class Rules(NamedTuple):
    """What the processes and the broker keep to, by default the protocol; anything else breaks it."""

    fence_first: bool = True  #: a new owner fences, then reads the position
    stable_reads: bool = True  #: a position is not told while a transaction has offsets pending
    generation_checked: bool = True  #: offsets are taken only of the group's current owner
    offset: Literal["inside", "after", "before"] = "inside"  #: where, beside its window's transaction
    reads_each_time: bool = True  #: also an owner that had the partition before
    doubts: int = 0  #: how often in an assignment it is not told what came of a transaction
    asks_after: bool = True  #: whether that was committed, before it is done again
    generations: int = 3  #: how often the group chooses


class Process(NamedTuple):
    """What a process knows. ``step``: how far it is in taking over, or in a transaction."""

    step: Literal[
        "out", "joined", "fenced", "read", "ready", "noted", "produced", "sent", "booked", "unsure", "again"
    ] = "out"
    generation: int = 0
    epoch: int = 0
    position: int = 0
    end: int = 0  #: of the window in its transaction
    doubts: int = 0  #: how often it may yet not be told what came of a transaction


class Open(NamedTuple):
    """The transaction at the broker; ``offset``: the position in it, -1 before there is one."""

    first: int
    end: int
    offset: int = -1
    decided: bool = False  #: committed, its markers not written yet


class State(NamedTuple):
    """Broker and processes."""

    processes: tuple[Process, Process] = (Process(), Process())
    generation: int = 0
    owner: int = -1  #: as the group has it
    epoch: int = 0  #: of the transactional id
    transaction: Open | None = None
    position: int = 0  #: as the group has it
    batches: tuple[int, ...] = (0,) * RECORDS  #: by record, how many it is in
    robbed: bool = False  #: somebody else committed after the group's owner had taken over

    @property
    def violation(self) -> Violation:
        """What is wrong with it, if anything."""
        if max(self.batches) > 1:
            return "in two batches"
        if 0 in self.batches[: self.position]:
            return "skipped"
        return "robbed" if self.robbed else ""

    @property
    def done(self) -> bool:
        """Whether each record is in one batch, and the position behind the last."""
        return self.position == RECORDS and set(self.batches) == {1}

    def with_process(self, number: int, process: Process, **changes: object) -> "State":
        """This with a process, and more, changed."""
        first, second = self.processes
        changed = (process, second) if number == 0 else (first, process)
        return self._replace(processes=changed, **changes)  # type: ignore[arg-type]


Steps = Iterator[tuple[str, State]]


def successors(state: State, rules: Rules) -> Steps:
    """Each state that may be next, and what happens on the way."""
    yield from _broker(state)
    for number, process in enumerate(state.processes):
        name = "AB"[number]
        if state.generation < rules.generations:
            generation, doubts = state.generation + 1, rules.doubts
            joined = Process("joined", generation, position=process.position, doubts=doubts)
            yield f"{name} joins", state.with_process(number, joined, generation=generation, owner=number)
        if process.step != "out":
            yield f"{name} dies", state.with_process(number, Process())
        for what, after in _process(state, number, process, rules):
            yield f"{name} {what}", after


def _broker(state: State) -> Steps:
    transaction = state.transaction
    if transaction and transaction.decided:
        batches = list(state.batches)
        for record in range(transaction.first, transaction.end):
            batches[record] += 1
        position = state.position if transaction.offset < 0 else transaction.offset
        yield "markers", state._replace(transaction=None, batches=tuple(batches), position=position)
    elif transaction:
        yield "time out", state._replace(transaction=None, epoch=state.epoch + 1)


def _process(state: State, number: int, process: Process, rules: Rules) -> Steps:
    decided = bool(state.transaction and state.transaction.decided)
    pending = bool(state.transaction and state.transaction.offset >= 0)
    may_fence = process.step == ("joined" if rules.fence_first else "read") and not decided
    may_read = process.step == ("fenced" if rules.fence_first else "joined")
    if may_fence:
        knows = not rules.fence_first or (process.position and not rules.reads_each_time)
        fenced = process._replace(step="ready" if knows else "fenced", epoch=state.epoch + 1)
        yield "fences", state.with_process(number, fenced, epoch=state.epoch + 1, transaction=None)
    elif may_read and not (pending and rules.stable_reads):
        then: Literal["read", "ready"] = "ready" if rules.fence_first else "read"
        yield "reads", state.with_process(number, process._replace(step=then, position=state.position))
    elif process.step == "ready" and not decided:
        begin = _commit_offset_alone if rules.offset == "before" else _produce
        for end in range(process.position + 1, min(process.position + 2, RECORDS) + 1):
            yield from begin(state, number, process._replace(end=end), rules)
    elif process.step == "noted" and not decided:
        yield from _produce(state, number, process, rules)
    elif process.step == "produced" and rules.offset == "inside":
        yield from _send_offsets(state, number, process, rules)
        yield from _unsure(state, number, process, rules)
    elif process.step in ("produced", "sent"):
        yield from _commit(state, number, process, rules)
        yield from _unsure(state, number, process, rules)
    elif process.step == "unsure" and not decided:
        fenced = process._replace(step="again", epoch=state.epoch + 1)
        yield "fences again", state.with_process(number, fenced, epoch=state.epoch + 1, transaction=None)
    elif process.step == "again" and not (pending and rules.stable_reads):
        if rules.asks_after and state.position == process.end:
            done = process._replace(step="ready", position=process.end)
            yield "finds it committed", state.with_process(number, done)
        else:
            yield from _produce(state, number, process, rules)
    elif process.step == "booked" and not decided:
        yield from _commit_offset_alone(state, number, process, rules)


def _produce(state: State, number: int, process: Process, rules: Rules) -> Steps:
    if process.epoch != state.epoch:
        yield from _refused(state, number, process)
        return
    begun = Open(process.position, process.end)
    what = f"produces {process.position}-{process.end - 1}"
    yield what, state.with_process(number, process._replace(step="produced"), transaction=begun)


def _send_offsets(state: State, number: int, process: Process, rules: Rules) -> Steps:
    current = (state.generation, state.owner) == (process.generation, number)
    if process.epoch != state.epoch or not state.transaction or (rules.generation_checked and not current):
        yield from _refused(state, number, process)
        return
    taken = state.transaction._replace(offset=process.end)
    yield "sends offsets", state.with_process(number, process._replace(step="sent"), transaction=taken)


def _commit(state: State, number: int, process: Process, rules: Rules) -> Steps:
    if process.epoch != state.epoch or not state.transaction:
        yield from _refused(state, number, process)
        return
    owner = state.processes[state.owner]
    taken_over = owner.generation == state.generation and owner.step in ("ready", "produced", "sent")
    committed = process._replace(step="ready", position=process.end)
    if rules.offset == "after":
        committed = process._replace(step="booked")
    decided = state.transaction._replace(decided=True)
    robbed = state.robbed or (state.owner != number and taken_over)
    yield "commits", state.with_process(number, committed, transaction=decided, robbed=robbed)


def _unsure(state: State, number: int, process: Process, rules: Rules) -> Steps:
    """The call hangs, or fails in a way that tells nothing; it may have been a commit that was decided."""
    if not process.doubts:
        return
    unsure = process._replace(step="unsure", doubts=process.doubts - 1)
    yield "is not told", state.with_process(number, unsure)
    if process.step == "sent":
        for _, after in _commit(state, number, process, rules):
            yield "commits and is not told", after.with_process(number, unsure)


def _commit_offset_alone(state: State, number: int, process: Process, rules: Rules) -> Steps:
    current = (state.generation, state.owner) == (process.generation, number)
    if rules.generation_checked and not current:
        yield from _refused(state, number, process)
        return
    moved = process._replace(step="noted")
    if rules.offset == "after":
        moved = process._replace(step="ready", position=process.end)
    yield "commits the offset", state.with_process(number, moved, position=process.end)


def _refused(state: State, number: int, process: Process) -> Steps:
    """Fenced, or of an old generation: the partition is given up, and the transaction left to be aborted."""
    yield "is refused", state.with_process(number, process._replace(step="out"))


class Checked(NamedTuple):
    """What came of it: states seen, whether one was done, the shortest way to the first violation."""

    states: int
    done: bool
    violation: Violation
    way: list[str]


def check(rules: Rules, ignored: frozenset[Violation] = frozenset()) -> Checked:
    """Go through every state that can be reached, nearest first, until one is wrong."""
    start = State()
    before: dict[State, tuple[State, str]] = {}
    seen, near, done = {start}, [start], False
    while near:
        far = []
        for state in near:
            done = done or state.done
            for what, after in successors(state, rules):
                if after in seen:
                    continue
                seen.add(after)
                before[after] = state, what
                if after.violation and after.violation not in ignored:
                    return Checked(len(seen), done, after.violation, _way(after, before))
                far.append(after)
        near = far
    return Checked(len(seen), done, "", [])


def _way(state: State, before: dict[State, tuple[State, str]]) -> list[str]:
    way: list[str] = []
    while state in before:
        state, what = before[state]
        way.append(what)
    return way[::-1]
