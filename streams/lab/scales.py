"""What processes take: memory at the most, and processor time."""

from collections.abc import Iterable

import psutil

_MIB = 1_048_576


class Scales:
    """Weighs processes again and again; processor time counts from the first time on."""

    def __init__(self) -> None:
        self._rss: dict[str, int] = {}
        self._first_cpu_s: dict[str, float] = {}
        self._cpu_s: dict[str, float] = {}

    def weigh(self, processes: Iterable[tuple[str, psutil.Process]]) -> None:
        """Take the weight of each, under its name."""
        for name, process in processes:
            try:
                rss, cpu = process.memory_info().rss, process.cpu_times()
            except psutil.Error:
                continue  # it has ended
            self._rss[name] = max(rss, self._rss.get(name, 0))
            self._cpu_s[name] = cpu.user + cpu.system
            self._first_cpu_s.setdefault(name, self._cpu_s[name])

    @property
    def rss_mb(self) -> dict[str, int]:
        """The most resident memory that was seen, in MiB."""
        return {name: round(size / _MIB) for name, size in self._rss.items()}

    @property
    def cpu_s(self) -> dict[str, float]:
        """Processor seconds, of user and kernel."""
        return {name: round(spent - self._first_cpu_s[name], 2) for name, spent in self._cpu_s.items()}
