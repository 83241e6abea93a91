"""The outbox: while one parcel is being committed, the next one is gathered. Memory is bounded by the two."""

import threading
from collections.abc import Callable, Sequence

from streams import log
from streams.feed.parcel import Bookmark, Parcel
from streams.tail.publisher import Publisher

logger = log.get("feed")

#: A parcel takes no more when it holds so much.
_BYTES, _RECORDS = 4_194_304, 100_000

#: How long a wait is silent about a broker that does not answer.
_WARN_S = 5.0


class Outbox:
    """Commits what it is given in order, in a thread of its own; safe to call from any.

    What goes wrong there is raised by whatever is called next, again and again.
    """

    def __init__(self, publisher: Publisher, first: Parcel, committed: Bookmark) -> None:
        self._publisher = publisher
        self._open = first
        self.committed = committed
        self._sending = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()

    def put(self, records: Sequence[bytes], given: str) -> None:
        """Take records and the position after them; they are committed soon, and together. Never blocks."""
        with self._changed:
            self._raise_failure()
            self._open.add(records, given)
            if not self._sending:
                self._sending = True
                threading.Thread(target=self._send, name="feed-publish", daemon=True).start()

    def has_room(self) -> bool:
        """Whether more should be put."""
        return bool(self._failure) or (self._open.size < _BYTES and self._open.records < _RECORDS)

    def wait_for_room(self) -> None:
        """Return when more should be put."""
        self._wait(self.has_room)

    def wait_until_sent(self, timeout_s: float | None = None) -> None:
        """Return when everything that was put is committed, or ``timeout_s`` have passed."""
        self._wait(lambda: not self._sending, timeout_s)

    def _wait(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        with self._changed:
            warn_s = _WARN_S
            while not self._changed.wait_for(condition, timeout_s or warn_s) and timeout_s is None:
                logger.warning("the broker does not answer; the feed waits", seconds=round(warn_s))
                warn_s *= 2
            self._raise_failure()

    def _send(self) -> None:
        try:
            while parcel := self._next():
                self._publisher.publish(parcel)
                with self._changed:
                    self.committed = parcel.bookmark()
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for it
            with self._changed:
                self._failure, self._sending = error, False
                self._changed.notify_all()

    def _next(self) -> Parcel | None:
        """What has been gathered; None, and nothing is being sent any more, when that is nothing."""
        with self._changed:
            parcel = self._open or None
            self._sending = parcel is not None
            if parcel:
                self._open = parcel.following()
            self._changed.notify_all()
            return parcel

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure
