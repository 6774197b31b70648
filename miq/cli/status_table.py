"""The shape of `evm:status`: which columns, how their cells read, and the folding of columns that say one thing.

Pure: rows of values go in, words come out.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from miq.models import WorkerStatus

SERVER_COLUMNS = (
    "Region", "Zone", "Server", "Status", "PID", "SPID", "Workers", "Version", "Started", "Heartbeat", "MB Usage",
    "Roles",
)  # fmt: skip
WORKER_COLUMNS = (
    "Region", "Zone", "Type", "Status", "PID", "SPID", "Server", "Queue", "Started", "Heartbeat", "System UID",
    "MB Usage",
)  # fmt: skip
NUMBERS = ("PID", "SPID", "Workers", "MB Usage")
ALWAYS_SHOWN = ("Status",)

Size = Decimal | float | int | None


@dataclass(frozen=True)
class Folded:
    """A table without the columns that have one value everywhere; `common` names those, if they have a value at all."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    common: tuple[tuple[str, str], ...]

    @property
    def line(self) -> str:
        """The common values as one line; empty when there are none."""
        pairs = ", ".join(f"{name}={value}" for name, value in self.common)
        return f"All rows have the values: {pairs}" if pairs else ""


def fold(columns: Sequence[str], rows: Sequence[Sequence[str]], keep: Sequence[str] = ALWAYS_SHOWN) -> Folded:
    """Take out the columns that say the same in every row. One row alone stays whole."""
    same = {
        at: rows[0][at]
        for at, name in enumerate(columns)
        if len(rows) > 1 and name not in keep and len({row[at] for row in rows}) == 1
    }
    shown = [at for at in range(len(columns)) if at not in same]
    return Folded(
        tuple(columns[at] for at in shown),
        tuple(tuple(row[at] for at in shown) for row in rows),
        tuple((columns[at], value) for at, value in same.items() if value),
    )


def status_word(status: str | None) -> str:
    """`stopping` is called what an operator sees in it: a stop that waits for the message in hand."""
    return "stop pending" if status == WorkerStatus.STOPPING else status or ""


def megabytes(used: Size, threshold: Size = None) -> str:
    """Whole megabytes, with the limit after a slash when there is one."""
    if used is None:
        return ""
    whole = str(int(used) // 2**20)
    return f"{whole}/{int(threshold) // 2**20}" if threshold else whole


def ending(exit_code: int | None, signal_number: int | None, reason: str | None) -> str:
    """How a worker ended: `signal SIGKILL: out of memory`, `exit code 1: ...`."""
    if signal_number:
        how = f"signal {_signal_name(signal_number)}"
    else:
        how = "end unknown" if exit_code is None else f"exit code {exit_code}"
    return f"{how}: {reason}" if reason and reason != how else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def is_recent(heartbeat: datetime | None, now: datetime, timeout: float) -> bool:
    """Whether who beat then may be taken for alive."""
    return heartbeat is not None and (now - heartbeat).total_seconds() <= timeout
