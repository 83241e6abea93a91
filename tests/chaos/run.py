"""A run: ``python -m chaos.run --seed 7 --minutes 5``. Exit status 1 when the books do not agree."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

from chaos import books
from chaos.clocks import COMPILER
from chaos.disks import may_mount
from chaos.faults import Faults
from chaos.schedule import BY_CLOCKS, KINDS, ON_DISKS, Fault, rounds
from chaos.world import World
from streams.lab.generate import generate
from streams.lab.up import interrupt_on_signals

#: After a worker's SIGKILL its partitions are processed again, after a broker's return a record passes.
WORKER_S, BROKER_S = 15.0, 5.0
_SETTLE_S = 240.0


class Run:
    """One run in ``folder``, and what came of it."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        minutes: float,
        kinds: list[str],
        per_s: float,
        *,
        secured: bool = False,
        most: int = sys.maxsize,
    ) -> None:
        """``most``: rounds of faults, however many minutes are left."""
        self.folder, self.seed, self.minutes, self.kinds = folder, seed, minutes, kinds
        self.secured, self._most = secured, most
        self._per_s, self._began = per_s, time.monotonic()
        self.faults: list[dict[str, Any]] = []
        self.wrong: list[str] = []

    def say(self, what: str) -> None:
        """A line with the time since the beginning."""
        print(f"{time.monotonic() - self._began:7.1f} s  {what}", flush=True)

    def run(self) -> dict[str, Any]:
        """Start the world, strike it, let it settle and compare the books."""
        print(f"seed {self.seed}, {self.minutes:g} minutes, in {self.folder}", flush=True)
        with World(self.folder, self.seed, self._per_s, self.kinds, secured=self.secured) as world:
            self._accuse(world)
            for log in world.logs:
                log.start()
            faults = Faults(world)
            world.watch.recovery(time.monotonic())  # the flow flows
            self.say("all is running")
            until = time.monotonic() + 60 * self.minutes
            for round_of in islice(rounds(self.seed, self.kinds), self._most):
                if time.monotonic() > until:
                    break
                self._strike(world, faults, round_of)
            self.wrong += faults.wrong
            return self._settle(world)

    def _accuse(self, world: World) -> None:
        """Choose records that Avstar will refuse: alone in a 207, or with the whole batch.

        It does not look for records that it knows, either: what is sent twice would not be seen otherwise.
        """
        many = int(self._per_s * 60 * (self.minutes + 1))
        self.guilty: list[str] = []
        for log in world.logs:
            lines = generate(10_000_000, log.seed, 0.01, log.form)
            head = next(lines).data if log.form != "fixed" else b""
            data = (line.data for line in islice(lines, many) if line.number and not line.fault)
            self.guilty += books.some(data, head, log.form, 1500)
        alone, whole = self.guilty[::2], self.guilty[1::2]
        world.throughout += [{"kind": "reject", "hashes": alone, "code": "no_contract"}] if alone else []
        world.throughout += [{"kind": "status", "status": 422, "hashes": whole}] if whole else []
        world.throughout.append({"kind": "keys_only"})
        world.play(0, None)

    def _strike(self, world: World, faults: Faults, together: list[Fault]) -> None:
        """One round: all its faults, then until the flow has recovered."""
        failed: list[BaseException] = []

        def strike(fault: Fault) -> None:
            try:
                time.sleep(fault.after_s)
                self.say(f"{fault.kind} ({fault.seconds:.1f} s, {fault.target:.2f})")
                faults.strike(fault)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=strike, args=[fault], daemon=True) for fault in together]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        first, every = world.watch.recovery(time.monotonic())
        self.say(f"  first {first}, every partition {every}")
        alone = len(together) == 1
        self.faults += [
            {"kind": fault.kind, "alone": alone, "first": first, "every": every} for fault in together
        ]
        if alone:
            self._judge(together[0].kind, first, every)

    def _judge(self, kind: str, first: dict[str, float], every: dict[str, float]) -> None:
        if kind in ("validate killed", "dispatch killed", "worker killed, all three processes"):
            late = [
                name for name in ("validate", "dispatch") if every.get(f"spotstream-{name}", 99) > WORKER_S
            ]
            late = [name for name in late if kind.startswith(("worker", name))]
            self.wrong += [f"late: {kind}, {name} after {every}" for name in late]
        if "broker" in kind or "coordinator" in kind or "controller" in kind:
            self.wrong += (
                [f"late: {kind}, first after {first}"]
                if first.get("spotstream-validate", 99) > BROKER_S
                else []
            )

    def _settle(self, world: World) -> dict[str, Any]:
        for log in world.logs:
            log.finish()
        self.say("settling")
        kept = books.keep(world.feeds)
        written = sum(log.records for log in world.logs)
        if kept.records != written:
            self.wrong.append(f"harness: {written} records written, {kept.records} in the files")
        self.wrong += [f"harness: {log.path}: {log.error!r}" for log in world.logs if log.error]
        deadline = time.monotonic() + _SETTLE_S
        while True:
            audit = self._audit()
            settled = audit["records"] == kept.records and not audit["missing"]
            if settled or time.monotonic() > deadline:
                break
            time.sleep(2)
        found = books.balance(kept, set(self.guilty), world.booked(), audit, books.letters(world.direct))
        self.say(f"settled: lost {found.lost}, booked twice {found.doubled}")
        exits = {actor.name: actor.exits for actor in world.actors if actor.exits}
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "kinds": self.kinds,  # with the seed they make the schedule
            "per_s": self._per_s,
            "secured": self.secured,
            "seconds": round(time.monotonic() - self._began),
            "records": kept.records,
            "rejected": kept.rejected.total(),
            "rotations": sum(log.rotations for log in world.logs),
            "copies": sum(log.copies for log in world.logs),
            "lost": found.lost,
            "doubled": found.doubled,
            "wrong": self.wrong + found.disagreements,
            "exits": exits,
            "tracebacks": world.tracebacks(),
            "load": round(os.getloadavg()[1], 1),  # of the last five minutes
            "faults": self.faults,
        }

    def _audit(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", "audit", "--json"],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if not done.stdout:
            raise AssertionError(f"the audit says: {done.stderr}")
        return dict(json.loads(done.stdout))


def _absent() -> frozenset[str]:
    """The kinds of fault that cannot be had here, of which it is told why."""
    absent = frozenset[str]()
    if not may_mount():
        print("no disk will be full: that takes root, who may mount", flush=True)
        absent |= ON_DISKS
    if not COMPILER:
        print("no clock will jump: that takes a C compiler", flush=True)
        absent |= BY_CLOCKS
    return absent


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 100_000, help="the same one: the same faults"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults strike")
    parser.add_argument("--only", action="append", choices=list(KINDS), default=[], help="kinds of fault")
    parser.add_argument("--tls", action="store_true", help="brokers demand TLS, and SCRAM or OAuth2 tokens")
    parser.add_argument("--rate", type=float, default=60.0, help="records a second that each log gets")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, which is kept")
    given = parser.parse_args()
    interrupt_on_signals()
    absent = _absent()
    kinds = [kind for kind in given.only or KINDS if kind not in absent]
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder.absolute(), given.seed, given.minutes, kinds, given.rate, secured=given.tls)
        result = run.run()
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    for line in result["wrong"]:
        print(f"WRONG (seed {given.seed}): {line}")
    print(json.dumps({name: value for name, value in result.items() if name != "faults"}))
    return int(bool(result["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
