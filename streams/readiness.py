"""Whether a role is alive, and whether it can do its work: for whoever restarts it or waits for it.

Pages are answered by a thread of their own, so that they tell of a loop that hangs, too.
"""

import asyncio
from time import monotonic
from typing import Any

from topics.transport import App

#: How long the broker has to answer, and how long its answer holds: probes may come often.
_PATIENCE_S, _HOLDS_S = 2.0, 2.0

#: How long the loop may be at something else. A window is judged in a tenth of a second.
_TURN_S = 10.0


class Readiness:
    """Of one role, as ``/health`` and ``/ready`` tell it."""

    def __init__(self, app: App, role: str) -> None:
        self._app, self._role = app, role
        self._asking = asyncio.Lock()
        self._reachable, self._asked_at = False, -_HOLDS_S

    async def alive(self) -> tuple[bool, dict[str, Any]]:
        """Whether it runs, and the loop that does its work comes round."""
        status = "failed" if self._app.crashed else "alive" if await self._comes_round() else "hanging"
        return status == "alive", {"status": status, "role": self._role}

    async def _comes_round(self) -> bool:
        turn = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._app.loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(turn), _TURN_S)
        except TimeoutError:
            return False
        return True

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the broker answers, and it owns partitions or waits in the group for some."""
        partitions = len(self._app.ownership.owned)
        if self._app.should_stop or self._app.crashed:
            status = "stopping"
        elif not self._app.ownership.joined:
            status = "joining"
        elif not await self._broker_answers():
            status = "unreachable"
        else:
            status = "owning" if partitions else "waiting"
        told = {"status": status, "role": self._role, "partitions": partitions}
        return status in {"owning", "waiting"}, told

    async def _broker_answers(self) -> bool:
        async with self._asking:
            if monotonic() - self._asked_at >= _HOLDS_S:
                self._reachable = await self._app.ownership.reachable(self._app.topic_name, _PATIENCE_S)
                self._asked_at = monotonic()
            return self._reachable
