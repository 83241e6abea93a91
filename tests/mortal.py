"""``spotstream``, killed by itself: ``python mortal.py STEP N ARGUMENT…``, at a step of its Nth transaction.

A SIGKILL from outside hits a step by chance. Steps are told by what is called of confluent-kafka's producer
and of librdkafka, so the product knows nothing of it. Where the Nth transaction has no such step, the next
one that does. What is done to files afterwards has steps as well: before and after ``rename`` and ``unlink``.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka

STEPS = ("before begin", "records produced", "checkpoint in", "before commit", "after commit")

_RAW, _CHECKPOINTS = "avion.raw", "avion.tail.checkpoints"
_BY_TOPIC = {_RAW: "records produced", _CHECKPOINTS: "checkpoint in"}


class Mortal(confluent_kafka.Producer):
    """A producer whose process does not live beyond a step."""

    step, last = "", 0
    begun = 0

    def begin_transaction(self) -> None:
        Mortal.begun += 1
        self._reach("before begin")
        super().begin_transaction()

    def produce_batch(self, topic: str, messages: list[Any], *partition: int) -> int:
        taken: int = super().produce_batch(topic, messages, *partition)
        if messages:
            self.have_taken(topic)
        return taken

    def have_taken(self, topic: str) -> None:
        """Some messages for ``topic``."""
        if topic in _BY_TOPIC:
            self._reach(_BY_TOPIC[topic])

    def commit_transaction(self, *timeout: float) -> None:
        self._reach("before commit")
        super().commit_transaction(*timeout)
        self._reach("after commit")

    def _reach(self, step: str) -> None:
        if self.is_last(step):
            self.flush(10)  # the broker has what was produced so far
            os.kill(os.getpid(), signal.SIGKILL)

    @classmethod
    def is_last(cls, step: str) -> bool:
        """Whether it is the one that the process does not live beyond."""
        return step == cls.step and cls.begun >= cls.last


def mortal_blocks(send: Callable[..., None]) -> Callable[..., None]:
    """``send_blocks``, which goes past the producer's methods."""

    def sending(producer: Any, topic: str, *arguments: Any) -> None:
        send(producer, topic, *arguments)
        producer.have_taken(topic)

    return sending


def mortal(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of ``Path`` before or after which the process may end."""

    def ending(*arguments: Any) -> Any:
        if Mortal.is_last(f"before {method.__name__}"):
            os.kill(os.getpid(), signal.SIGKILL)
        done = method(*arguments)
        if Mortal.is_last(f"after {method.__name__}"):
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return ending


if __name__ == "__main__":
    Mortal.step, Mortal.last = sys.argv[1], int(sys.argv[2])
    confluent_kafka.Producer = Mortal
    Path.rename, Path.unlink = mortal(Path.rename), mortal(Path.unlink)  # type: ignore[method-assign]
    from streams.cli import main
    from streams.tail import round as rounds

    rounds.send_blocks = mortal_blocks(rounds.send_blocks)
    sys.argv = ["spotstream", *sys.argv[3:]]
    main()
