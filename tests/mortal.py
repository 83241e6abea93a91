"""``spotstream``, killed by itself: ``python mortal.py STEP N ARGUMENT…``, at a step of its Nth transaction.

A SIGKILL from outside hits a step by chance. Steps are told by what is called of confluent-kafka's producer,
of librdkafka and of the Avstar client, so the product knows nothing of it. Where the Nth transaction has no
such step, the next one that does. What is done to files afterwards has steps as well: before and after
``rename`` and ``unlink``.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import confluent_kafka

#: By what is killed: the steps of its transactions. "answered": Avstar has answered what will be in it.
STEPS = {
    "tail": ("before begin", "records produced", "checkpoint in", "before commit", "after commit"),
    "validate": (
        "before begin",
        "validated produced",
        "batch produced",
        "letters produced",
        "offsets in",
        "before commit",
        "after commit",
    ),
    "dispatch": (
        "before begin",
        "answered",
        "receipts produced",
        "letters produced",
        "offsets in",
        "before commit",
        "after commit",
    ),
    "redrive": ("before begin", "batch produced", "letters produced", "before commit", "after commit"),
    "replay": ("before begin", "batch produced", "offsets in", "before commit", "after commit"),
}

_BY_TOPIC = {
    "avion.raw": "records produced",
    "avion.tail.checkpoints": "checkpoint in",
    "avion.validated.spots": "validated produced",
    "avion.validated.avails": "validated produced",
    "avion.validated.billing": "validated produced",
    "avion.validated.makegoods": "validated produced",
    "avstar.batches": "batch produced",
    "avstar.dlq": "letters produced",
    "avstar.receipts": "receipts produced",
}


class Mortal(confluent_kafka.Producer):
    """A producer whose process does not live beyond a step."""

    step, last = "", 0
    begun = 0

    def begin_transaction(self) -> None:
        Mortal.begun += 1
        self._reach("before begin")
        super().begin_transaction()

    def produce(self, topic: str, *arguments: Any, **options: Any) -> None:
        super().produce(topic, *arguments, **options)
        self.have_taken(topic)

    def produce_batch(self, topic: str, messages: list[Any], *partition: int) -> int:
        taken: int = super().produce_batch(topic, messages, *partition)
        if messages:
            self.have_taken(topic)
        return taken

    def have_taken(self, topic: str) -> None:
        """Some messages for ``topic``."""
        if topic in _BY_TOPIC:
            self._reach(_BY_TOPIC[topic])

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        super().send_offsets_to_transaction(*arguments)
        self._reach("offsets in")

    def commit_transaction(self, *timeout: float) -> None:
        self._reach("before commit")
        super().commit_transaction(*timeout)
        self._reach("after commit")

    def _reach(self, step: str) -> None:
        if self.is_last(step):
            self.flush(10)  # the broker has what was produced so far
            os.kill(os.getpid(), signal.SIGKILL)

    @classmethod
    def is_last(cls, step: str, to_come: int = 0) -> bool:
        """Whether it is the one that the process does not live beyond.

        ``to_come``: 1 for a step of a transaction that is not begun yet.
        """
        return step == cls.step and cls.begun + to_come >= cls.last


def mortal_blocks(send: Callable[..., None]) -> Callable[..., None]:
    """``send_blocks``, which goes past the producer's methods."""

    def sending(producer: Any, topic: str, *arguments: Any) -> None:
        send(producer, topic, *arguments)
        producer.have_taken(topic)

    return sending


def mortal_send(send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """``Avstar.send``: the answer is there, and nobody has been told."""

    async def sending(*arguments: Any) -> Any:
        answer = await send(*arguments)
        if Mortal.is_last("answered", to_come=1):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

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
    # In this order: whoever imports `send_blocks` from there gets the mortal one.
    from topics import block

    block.send_blocks = mortal_blocks(block.send_blocks)

    from streams.cli import main
    from streams.dispatch.avstar import Avstar

    Avstar.send = mortal_send(Avstar.send)  # type: ignore[assignment, method-assign]
    sys.argv = ["spotstream", *sys.argv[3:]]
    main()
