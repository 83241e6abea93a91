"""Processes that have to be gone."""

import time

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it, as they are now."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def left_after(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run when they all should have ended ``timeout_s`` ago."""
    deadline = time.monotonic() + timeout_s
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Addresses and ports that they listen at (an IPv6 socket that is bound to IPv4 as IPv4)."""
    sockets = [socket for process in processes for socket in process.net_connections("tcp")]
    return {
        (socket.laddr.ip.removeprefix("::ffff:"), socket.laddr.port)
        for socket in sockets
        if socket.status == psutil.CONN_LISTEN
    }


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
