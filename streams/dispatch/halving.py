"""Halving: a batch that is refused as a whole is sent in parts, until only the records at fault are left.

The parts' keys derive from the same placement hashes as the batch's, and their bodies from the same records,
so a crash in the middle costs nothing: whoever comes next sends the same parts, and Avstar drops what it has.

Where the answer does not name the records at fault, the first one is searched for by halves: what lies before
it gets booked on the way, and a half that must hold it is not asked. A group of one fault in n records takes
about log2(n) requests.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from schemas.batch import Batch, Upload, build, records_of
from schemas.letter import Exchange
from streams.dispatch.answer import Booked, Refused, Unavailable
from streams.dispatch.delivery import Delivered

_TOO_LARGE = 413
#: With more faults than this, groups get as large as the faults lie apart so far.
_FEW = 3


class Fault(NamedTuple):
    """Why a record is at fault, in Avstar's words, and the exchange that said so."""

    code: str
    message: str
    exchange: Exchange


class Search:
    """Which records to ask for next. Pure; a record is its index in the batch.

    Drive :meth:`run`: it yields the indices of the next part and takes the answer to it. When it has ended,
    ``faults`` are the records at fault and all others are booked.
    """

    def __init__(self, records: int) -> None:
        self.faults: dict[int, Fault] = {}
        self._records = records
        self._rest: list[int] = []
        self._settled = self._searched = 0
        self._fits = self._apart = records

    def run(self, refusal: Refused) -> Generator[list[int], Booked | Refused, None]:
        """``refusal``: of all records together."""
        yield from self._refused(list(range(self._records)), refusal)
        while self._rest:
            size = min(self._fits, self._apart if self._searched > _FEW else self._records)
            part, self._rest = self._rest[:size], self._rest[size:]
            answer = yield part
            if isinstance(answer, Booked):
                self._settled += len(part)
                self._apart *= 2
            else:
                yield from self._refused(part, answer)

    def _refused(self, part: list[int], answer: Refused) -> Generator[list[int], Booked | Refused, None]:
        if answer.rejected and all(named["index"] < len(part) for named in answer.rejected):
            at_fault = {part[named["index"]]: named for named in answer.rejected}
            for index, named in at_fault.items():
                self.faults[index] = Fault(named["code"], named["message"], answer.exchange)
            self._rest = [index for index in part if index not in at_fault] + self._rest
        elif len(part) == 1:
            self._blame(part[0], answer)
        elif answer.status == _TOO_LARGE:
            self._fits = len(part) // 2
            self._rest = part + self._rest
        else:
            yield from self._first_fault(part)

    def _first_fault(self, part: list[int]) -> Generator[list[int], Booked | Refused, None]:
        """Find the first record at fault of a part that holds one; what lies behind it is left for later."""
        refusal: Refused | None = None
        while len(part) > 1:
            half = len(part) // 2
            answer = yield part[:half]
            if isinstance(answer, Booked):
                self._settled += half
                part, refusal = part[half:], None
                continue
            self._rest = part[half:] + self._rest
            part, refusal = part[:half], answer
            if answer.rejected or answer.status == _TOO_LARGE:
                yield from self._refused(part, answer)
                return
        if refusal is None:  # it must be this one; only by itself it is told why
            answer = yield part
            if isinstance(answer, Booked):  # refused together with what is booked by now, not alone
                self._settled += 1
                return
            refusal = answer
        yield from self._refused(part, refusal)

    def _blame(self, index: int, refusal: Refused) -> None:
        self.faults[index] = Fault(str(refusal.status), refusal.message, refusal.exchange)
        self._settled += 1
        self._searched += 1
        self._apart = max(1, self._settled // self._searched)
        if refusal.status == _TOO_LARGE:
            self._fits = self._records  # this record explains it


class Ended(NamedTuple):
    """How a batch ended: ``parts`` are the keys it was sent under after it was refused as a whole.

    ``exchanges``: of the records that were rejected then, by index.
    """

    delivered: Delivered
    parts: Sequence[str] = ()
    exchanges: Mapping[int, Exchange] = {}


class Deliverer(Protocol):
    """What halving needs of the delivery."""

    async def deliver(self, batch: Batch) -> Delivered:
        """Send until it is settled, or given up."""
        ...


async def deliver(delivery: Deliverer, batch: Batch) -> Ended:
    """Deliver ``batch``, in parts if need be; refused is only what cannot be told into records.

    A batch of which a part is given up is given up. Cancelled at any moment, it leaves nothing behind here.
    """
    whole = await delivery.deliver(batch)
    if not isinstance(whole.answer, Refused):
        return Ended(whole)
    try:
        records = [_canonical(record) for record in records_of(batch)]
    except ValueError:
        return Ended(whole)
    sums = _Sums(whole)
    search = Search(len(records))
    asking = search.run(whole.answer)
    indices = next(asking, None)
    while indices is not None:
        part = build([records[index] for index in indices], Upload(batch.upload))
        answer = sums.add(part.key, indices, await delivery.deliver(part))
        if isinstance(answer, Unavailable):
            return Ended(sums.delivered(answer), sums.parts)
        try:
            indices = asking.send(answer)
        except StopIteration:
            indices = None
    return sums.ended(whole.answer, search.faults)


class _Sums:
    """What the parts of a batch come to."""

    def __init__(self, whole: Delivered) -> None:
        self._deliveries = [whole]
        self._booked: list[Booked] = []
        self._rejected: dict[int, Fault] = {}
        self.parts: list[str] = []

    def add(self, key: str, indices: Sequence[int], delivered: Delivered) -> Booked | Refused | Unavailable:
        """Take in how a part ended, whose records have these indices in the batch."""
        self.parts.append(key)
        self._deliveries.append(delivered)
        answer = delivered.answer
        if isinstance(answer, Booked):
            self._booked.append(answer)
            for one in answer.rejected:
                self._rejected[indices[one["index"]]] = Fault(one["code"], one["message"], answer.exchange)
        return answer

    def delivered(self, answer: Booked | Unavailable) -> Delivered:
        """All deliveries as one that ended with ``answer``."""
        failures = [at for one in self._deliveries for at in (one.first_failure, one.last_failure) if at]
        attempts = sum(one.attempts for one in self._deliveries)
        return Delivered(answer, attempts, failures[0], failures[-1], self._deliveries[-1].breaker)

    def ended(self, refusal: Refused, faults: Mapping[int, Fault]) -> Ended:
        """The batch as one that was booked, but for the records at fault."""
        rejected = dict(sorted((self._rejected | dict(faults)).items()))
        last = self._deliveries[-1].answer
        booked = Booked(
            refusal.exchange,
            last.latency_ms,
            refusal.status,
            sum(one.accepted for one in self._booked),
            sum(one.duplicates for one in self._booked),
            [{"index": at, "code": one.code, "message": one.message} for at, one in rejected.items()],
        )
        exchanges = {index: fault.exchange for index, fault in rejected.items()}
        return Ended(self.delivered(booked), self.parts, exchanges)


def _canonical(record: dict[str, Any]) -> tuple[str, bytes]:
    """Placement hash and canonical form of a record as it is sent: what the batch was built from."""
    placement = record.pop("idempotency_key")
    return placement, orjson.dumps(record)
