"""What each kind of fault does. A method returns when the fault has ended and the flow should recover."""

import os
import resource
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
from confluent_kafka import KafkaException

from chaos.actors import Actor
from chaos.schedule import Fault
from chaos.watch import HOPS, Watch
from chaos.world import TOKENS, World
from streams.lab.service import Service

#: How long a process that was fenced may take to end.
_FENCED_S = 40.0

#: What the sandbox plays; the half that is not struck keeps the flow going.
AVSTAR: dict[str, dict[str, Any]] = {
    "401": {"kind": "status", "status": 401},
    "403": {"kind": "status", "status": 403},
    "409": {"kind": "status", "status": 409},
    "429": {"kind": "status", "status": 429, "retry_after": 2, "retry_after_form": "date"},
    "429 in seconds": {"kind": "status", "status": 429, "retry_after": 2},
    "500": {"kind": "status", "status": 500, "at": "booked"},
    "503": {"kind": "status", "status": 503},
    "connection reset": {"kind": "reset"},
    "answer lost": {"kind": "lost_answer"},
    "half an answer": {"kind": "truncated"},
    "not JSON": {"kind": "not_json"},
    "no answer": {"kind": "hang", "seconds": 40, "probability": 0.5},
    "slow": {"kind": "slow", "seconds": 3},
    "late": {"kind": "latency", "seconds": 5},
}


class Faults:
    """Strikes a world. ``wrong`` collects what should not have happened."""

    def __init__(self, world: World) -> None:
        self._world, self.wrong = world, list[str]()
        self._quiet = threading.Event()  # set: what still lasts ends now

    def strike(self, fault: Fault) -> None:
        """Do it, for as long as it lasts."""
        if fault.kind.startswith("Avstar: "):
            self._avstar(fault)
        else:
            _KINDS[fault.kind](self, fault)

    def _last(self, fault: Fault) -> None:
        self._quiet.wait(fault.seconds)

    # -- tailers

    def _kill_tailer(self, fault: Fault) -> None:
        fault.choose(self._world.tailers).kill()

    def _replace_tailer(self, fault: Fault) -> None:
        tailer = fault.choose(self._world.tailers)
        with tailer.lock:
            old = tailer.service
            tailer.start()
            self._await_end(tailer, old, tailer.service)

    def _freeze_tailer(self, fault: Fault) -> None:
        tailer = fault.choose(self._world.tailers)
        with tailer.lock:
            old = tailer.service
            with _frozen(tailer.processes):
                tailer.start()
                self._last(fault)
            self._await_end(tailer, old, tailer.service)

    def _await_end(self, tailer: Actor, old: Service | None, new: Service | None) -> None:
        """Of two with one name the earlier one has to end; or the later one, if others faults struck it."""
        try:
            if old and new:
                old.wait_until(lambda: not (old.running and new.running), _FENCED_S)
                if old.running:  # one of the two has to be kept running, and only the new one is known
                    tailer.service = old
        except Exception:
            self.wrong.append(f"two tailers of the name {tailer.name} run side by side")
            if old:
                old.kill()

    def _starve_tailer(self, fault: Fault) -> None:
        self._starve(fault.choose(self._world.tailers).processes, fault)

    def _starve(self, processes: list[psutil.Process], fault: Fault) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                _, most = process.rlimit(resource.RLIMIT_NOFILE)
                process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + 1, most))
                self._last(fault)
                process.rlimit(resource.RLIMIT_NOFILE, (most, most))

    # -- workers

    def _starve_role(self, fault: Fault) -> None:
        roles = [(worker, name) for worker in self._world.workers for name in ("validate", "dispatch")]
        worker, name = fault.choose(roles)
        self._starve([process] if (process := worker.role(name)) else [], fault)

    def _kill_role(self, fault: Fault) -> None:
        role = fault.kind.partition(" ")[0]
        if process := fault.choose(self._world.workers).role(role):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _kill_worker(self, fault: Fault) -> None:
        fault.choose(self._world.workers).kill()

    def _freeze_role(self, fault: Fault) -> None:
        role = fault.kind.partition(" ")[0]
        if process := fault.choose(self._world.workers).role(role):
            with _frozen([process]):
                self._last(fault)

    def _storm(self, fault: Fault) -> None:
        """Three more workers, which leave again one after the other, every second one by SIGKILL."""
        joined = []
        for number in range(3):
            worker = self._world.worker(f"storm{number}-{id(fault)}")
            worker.start()
            joined.append(worker)
            self._quiet.wait(fault.seconds / 3)
        try:
            for number, worker in enumerate(joined):
                worker.kill() if number % 2 else worker.end()
        finally:
            for worker in joined:
                worker.kill()

    def _roll(self, fault: Fault) -> None:
        for actor in self._world.actors:
            with actor.lock:
                try:
                    actor.end()
                except Exception:
                    self.wrong.append(f"{actor.name} did not end within 30 s of SIGTERM")
                    actor.kill()
                actor.start()

    # -- disks and clocks

    def _fill_done(self, fault: Fault) -> None:
        self._fill("done", fault)

    def _fill_logs(self, fault: Fault) -> None:
        self._fill("actors", fault)

    def _fill(self, folder: str, fault: Fault) -> None:
        disk = self._world.disks[folder]
        disk.fill()
        self._last(fault)
        disk.clear()

    def _jump_tailer(self, fault: Fault) -> None:
        self._jump(self._world.tailers, fault)

    def _jump_worker(self, fault: Fault) -> None:
        self._jump(self._world.workers, fault)

    def _jump(self, actors: list[Actor], fault: Fault) -> None:
        """There, and back again."""
        actor, hours = fault.choose([(actor, hours) for actor in actors for hours in (-26, -3, 3, 26)])
        assert actor.clock
        actor.clock.set(hours)
        self._last(fault)
        actor.clock.set(0)

    # -- services

    def _kill_broker(self, fault: Fault) -> None:
        self._restart_brokers([fault.choose(self._world.brokers)], fault)

    def _kill_controller(self, fault: Fault) -> None:
        self._restart_brokers(self._world.brokers[:1], fault)

    def _kill_coordinator(self, fault: Fault) -> None:
        self._restart_found(fault, lambda watch: watch.coordinator(fault.choose(list(HOPS))))

    def _break_transaction(self, fault: Fault) -> None:
        group = "spotstream-validate"
        self._restart_found(fault, lambda watch: watch.transaction(fault.choose(list(watch.ends(group)))))

    def _restart_found(self, fault: Fault, find: Callable[[Watch], int]) -> None:
        number = 2
        with suppress(KafkaException, TimeoutError):  # another fault strikes it just now
            number = find(self._world.watch)
        self._restart_brokers([b for b in self._world.brokers if b.number == number], fault)

    def _kill_brokers(self, fault: Fault) -> None:
        self._restart_brokers(self._world.brokers, fault)

    def _restart_brokers(self, brokers: list[Any], fault: Fault) -> None:
        with self._world.broker_lock:
            for broker in brokers:
                broker.kill()
            self._last(fault)
            for broker in brokers:
                broker.launch()
            for broker in brokers:
                broker.wait()

    def _fill_broker(self, fault: Fault) -> None:
        """Until somebody makes room and starts it again."""
        broker = fault.choose(self._world.brokers)
        with self._world.broker_lock:
            self._fill(broker.folder, fault)
            broker.kill()
            broker.start()

    def _kill_registry(self, fault: Fault) -> None:
        self._world.registry.kill()
        self._last(fault)
        self._world.registry.start()

    def _kill_avstar(self, fault: Fault) -> None:
        self._world.restart_avstar(self._quiet, fault.seconds)

    def _avstar(self, fault: Fault) -> None:
        played = {"probability": 0.7} | AVSTAR[fault.kind.removeprefix("Avstar: ")]
        self._world.play(id(fault), played)
        self._last(fault)
        self._world.play(id(fault), None)

    # -- links

    def _cut_tokens(self, fault: Fault) -> None:
        self._cut([name for name in TOKENS if name in self._world.linked], fault)

    def _slow_link(self, fault: Fault) -> None:
        self._on_a_link(fault, lambda link, on: self._world.links.slow(link, 0.3 if on else 0))

    def _stall_link(self, fault: Fault) -> None:
        self._on_a_link(fault, lambda link, on: self._world.links.stall(link, stalled=on))

    def _hold_answers(self, fault: Fault) -> None:
        self._on_a_link(fault, lambda link, on: self._world.links.hold_answers(link, held=on))

    def _on_a_link(self, fault: Fault, turn: Callable[[str, bool], None]) -> None:
        """Turn it on, and off again."""
        link = fault.choose(list(self._world.linked))
        turn(link, True)
        self._last(fault)
        turn(link, False)

    def _silence_link(self, fault: Fault) -> None:
        self._world.links.silence(fault.choose(list(self._world.linked)))

    def _cut_link(self, fault: Fault) -> None:
        self._cut([fault.choose(list(self._world.linked))], fault)

    def _cut(self, links: list[str], fault: Fault) -> None:
        for link in links:
            self._world.links.cut(link, cut=True)
        self._last(fault)
        for link in links:
            self._world.links.cut(link, cut=False)


class _frozen:  # noqa: N801 - reads as what it is in a with statement
    """SIGSTOP at the beginning, SIGCONT at the end."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes

    def __enter__(self) -> None:
        self._send(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


_KINDS: dict[str, Callable[[Faults, Fault], None]] = {
    "tailer killed": Faults._kill_tailer,
    "tailer frozen, another in its place": Faults._freeze_tailer,
    "second tailer of the same name": Faults._replace_tailer,
    "tailer out of file descriptors": Faults._starve_tailer,
    "validate killed": Faults._kill_role,
    "dispatch killed": Faults._kill_role,
    "worker killed, all three processes": Faults._kill_worker,
    "validate frozen past its session": Faults._freeze_role,
    "dispatch frozen past its session": Faults._freeze_role,
    "role out of file descriptors": Faults._starve_role,
    "rebalance storm": Faults._storm,
    "rolling restart": Faults._roll,
    "broker killed": Faults._kill_broker,
    "controller killed": Faults._kill_controller,
    "group coordinator killed": Faults._kill_coordinator,
    "coordinator of an open transaction killed": Faults._break_transaction,
    "all brokers killed": Faults._kill_brokers,
    "broker's disk full": Faults._fill_broker,
    "done folder full": Faults._fill_done,
    "disk of logs full": Faults._fill_logs,
    "tailer's clock jumps": Faults._jump_tailer,
    "worker's clock jumps": Faults._jump_worker,
    "registry killed": Faults._kill_registry,
    "Avstar killed": Faults._kill_avstar,
    "token servers away": Faults._cut_tokens,
    "link slow": Faults._slow_link,
    "link stalled": Faults._stall_link,
    "link one-way": Faults._hold_answers,
    "link half-open": Faults._silence_link,
    "link cut": Faults._cut_link,
}
