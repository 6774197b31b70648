"""What the kernel knows of a process: identity that survives pid reuse, parentage, memory, the end.

Linux only where it must be (`prctl`, `pidfd`); every function is a thin, typed call that either answers or raises
OSError.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import setproctitle

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def become_subreaper() -> None:
    """Orphans among our descendants become our children, so that we can wait for them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> bool:
    """Ask for SIGKILL when the parent process dies; False when it already has.

    Only after re-parenting: set before, the signal comes when the process in the middle leaves.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def set_title(title: str) -> None:
    """What `ps` shows; `MIQ:` in it marks our workers."""
    setproctitle.setproctitle(title)


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started.

    With the pid, an identity. None when it is gone or a zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - every worker does this at its birth
            stat = file.read(4096)
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_same(pid: int | None, started: int | None) -> bool:
    """Whether the process that had this pid and start time still runs."""
    return pid is not None and started is not None and start_time(pid) == started


@dataclass(frozen=True)
class ProcessInfo:
    """One sample of a process, in the units of the `miq_workers` columns (bytes, fractions, clock ticks)."""

    memory_usage: int
    memory_size: int
    proportional_set_size: int
    unique_set_size: int
    percent_memory: float
    percent_cpu: float
    cpu_time: float
    os_priority: int


def info(pid: int) -> ProcessInfo | None:
    """A sample of a live process, None when it is gone or may not be looked at."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            memory = process.memory_full_info()
            times = process.cpu_times()
            total = psutil.virtual_memory().total
            age = max(1e-3, time.time() - process.create_time())
            busy = times.user + times.system
            return ProcessInfo(
                memory_usage=memory.rss,
                memory_size=memory.vms,
                proportional_set_size=getattr(memory, "pss", memory.rss),
                unique_set_size=memory.uss,
                percent_memory=round(memory.rss / total, 4),
                percent_cpu=round(busy / age, 4),
                cpu_time=busy * os.sysconf("SC_CLK_TCK"),
                os_priority=20 + process.nice(),
            )
    except (psutil.Error, OSError):
        return None


def peak_rss() -> int:
    """The largest resident set of this process so far, in bytes, as the kernel counts it (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def reset_peak_rss() -> None:
    """Start counting the peak anew; a kernel that refuses leaves the old peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot (0 where it does not say)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
