"""Answers that are worked out once and remembered."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V]):
    """Key → what ``make`` makes of it, once. Bounded: forgets everything when ``limit`` keys are there.

    A dict, so that a column is looked up without a call per value.
    """

    def __init__(self, make: Callable[[K], V], limit: int) -> None:
        super().__init__()
        self._make, self._limit = make, limit

    def __missing__(self, key: K) -> V:
        value = self._make(key)
        if len(self) >= self._limit:
            self.clear()
        self[key] = value
        return value

    def read(self, keys: Iterable[K]) -> Iterator[V]:
        """The values of many keys."""
        return map(self.__getitem__, keys)
