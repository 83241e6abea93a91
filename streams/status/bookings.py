"""What became of the batches in the last hours, from the receipts."""

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from schemas.letter import Receipt

#: How far back receipts are read.
SPAN = timedelta(hours=24)

#: Receipts by which the usual size of a batch is told.
_RECENT = 50


class Booked(NamedTuple):
    """Records: newly booked, known to Avstar before (so a replay's), rejected by it; and batches given up."""

    new: int = 0
    known: int = 0
    rejected: int = 0
    dead: int = 0


class Bookings:
    """Takes the messages of ``avstar.receipts`` as they come."""

    def __init__(self) -> None:
        self._hours: dict[str, Booked] = {}
        self._sizes: deque[int] = deque(maxlen=_RECENT)
        self.last = ""  #: when a batch was last booked

    def take(self, value: bytes | None) -> None:
        """A receipt."""
        try:
            receipt = Receipt.load(value)
        except ValueError:
            return
        at = receipt.at
        before = self._hours.get(at[:13], Booked())
        if receipt.status in ("delivered", "redriven"):
            self.last = max(self.last, at)
            self._sizes.append(receipt.records)
            new, known = receipt.booked
            self._hours[at[:13]] = Booked(
                before.new + new,
                before.known + known,
                before.rejected + len(receipt.rejected),
                before.dead,
            )
        elif receipt.status == "dead_lettered":
            self._hours[at[:13]] = before._replace(dead=before.dead + 1)

    def booked(self, now: datetime) -> Booked:
        """In the last 24 hours, the hour in which those began included; ``now`` is aware."""
        first = (now.astimezone(UTC) - SPAN).strftime("%Y-%m-%dT%H")
        self._hours = {at: of for at, of in self._hours.items() if at >= first}
        return Booked(*map(sum, zip(*self._hours.values(), strict=True)))

    @property
    def batch_records(self) -> float:
        """Records in a batch, of late; 0 while none is known."""
        return sum(self._sizes) / len(self._sizes) if self._sizes else 0.0
