"""Feed: records that a program makes, published exactly once with a position that the program defines.

:class:`Feed` for programs that block, :class:`AsyncFeed` for those with an event loop; see docs/feeding.md.
"""

from streams.feed.feed import AsyncFeed, Feed
from streams.feed.writer import Cell, Row

__all__ = ["AsyncFeed", "Cell", "Feed", "Row"]
