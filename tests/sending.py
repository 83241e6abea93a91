"""A delivery to a running sandbox, as the tests of delivery use it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from schemas.batch import Batch, build
from streams.dispatch.answer import Answer
from streams.dispatch.avstar import Avstar
from streams.dispatch.delivery import Delivery
from streams.dispatch.throttle import Throttle
from streams.lab.faults import Script
from streams.lab.sandbox import Options, Sandbox, running
from streams.settings import AvstarSettings, BreakerSettings, DispatchSettings


def batch(*numbers: int) -> Batch:
    bodies = [b'{"n":%d,"record_type":"spot"}' % number for number in numbers]
    return build([(sha256(body).hexdigest(), body) for body in bodies])


class Line:
    """A delivery to a running sandbox, and when it got which answer."""

    def __init__(
        self, sandbox: Sandbox, avstar: Avstar, settings: DispatchSettings, breaker: BreakerSettings
    ) -> None:
        self.sandbox, self.settings = sandbox, settings
        self.seen: list[tuple[float, Answer]] = []
        self.throttle = Throttle(settings, breaker)
        self.delivery = Delivery(avstar, settings, self.throttle, observe=self._observe)

    def _observe(self, answer: Answer) -> None:
        self.seen.append((time.monotonic(), answer))

    def faults(self, *faults: dict[str, Any], seed: int = 0) -> None:
        self.sandbox.faults.play(Script.model_validate({"seed": seed, "faults": faults}))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def line(
    *,
    options: Options | None = None,
    timeout_s: float = 5.0,
    key_file: Path | None = None,
    breaker: BreakerSettings | None = None,
    url: str = "",
    **settings: Any,
) -> AsyncIterator[Line]:
    quick = {"backoff_base_s": 0.01, "backoff_cap_s": 0.05}
    dispatch = DispatchSettings(**(quick | settings))
    patient = breaker or BreakerSettings(minimum_calls=10_000)
    async with running(options or Options()) as started:
        section = AvstarSettings(
            base_url=url or started.url,
            api_key=SecretStr("sandbox-key"),
            api_key_file=key_file,
            request_timeout_s=timeout_s,
        )
        avstar = Avstar(section, requests_at_once=dispatch.requests_at_once, policy=dispatch.policy)
        try:
            yield Line(started.sandbox, avstar, dispatch, patient)
        finally:
            await avstar.aclose()
