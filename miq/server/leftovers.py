"""Workers that are not in the book: what an earlier server left, and those that were run by hand.

Their ends are recorded as everybody's are, with the sweep of their messages, but count for nothing: no attempt, no
back-off.
"""

from __future__ import annotations

from collections.abc import Callable

from miq.channel import Slot
from miq.db import Database
from miq.paths import Home
from miq.server import rows
from miq.server.children import Child, Exit


def clear(database: Database, home: Home, server_id: int, kill: Callable[[int], None]) -> None:
    """At a server's start: kill what an earlier one left running, sweep its messages, delete its rows.

    The server's death is no attempt of the messages that its workers had in hand.
    """
    for row in rows.worker_rows(database, server_id):
        if row.unsupervised and row.runs():
            continue
        if row.runs() and row.pid is not None:
            kill(row.pid)
        close_row(database, home, server_id, row, Exit(None, None), "its server died")


def close_row(database: Database, home: Home, server_id: int, row: rows.WorkerRow, exit_: Exit, reason: str) -> None:
    """Record the end of one such worker, and take its row and its slot away."""
    slot = home.slots / row.guid
    child = Child(row.guid, row.id, row.type_name, row.queue_name, born=0.0, pid=row.pid)
    rows.record_end(
        database,
        server_id,
        rows.Ended(child, exit_, Slot.peek(slot), reason, counts=False, deaths_in_vain=0, back_off=0.0),
    )
    slot.unlink(missing_ok=True)
