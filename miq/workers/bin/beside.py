"""`miq-worker --beside`: watches the server's own worker, and does nothing else.

Read-only: its row in `miq_workers`, and its slot, which says what it has in hand. One line for every change.
"""

from __future__ import annotations

import time

from miq import names
from miq.channel import InHand, Slot
from miq.db import Database
from miq.models.worker_types import WorkerType
from miq.paths import Home


def watch_beside(database: Database, home: Home, kind: type[WorkerType], queue_name: str | None) -> int:
    """Watch the server's own worker until it ends or we are interrupted."""
    seen: tuple[object, ...] | None = None
    try:
        while True:
            found = database.run(
                "SELECT id, guid, status, pid FROM miq_workers WHERE type = %(type)s"
                " AND queue_name IS NOT DISTINCT FROM %(queue)s ORDER BY id LIMIT 1",
                {"type": kind.name, "queue": queue_name},
            ).fetchone()
            if found is None:
                print(f"no {names.short(kind.name)} runs for queue {queue_name}")
                return 1 if seen is None else 0
            in_hand = Slot.peek(home.slots / found[1])
            now = (*found, in_hand)
            if now != seen:
                print(f"worker {found[0]} pid {found[3]} {found[2]}: {_doing(in_hand)}", flush=True)
            seen = now
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0


def _doing(in_hand: InHand | None) -> str:
    if in_hand is None:
        return "it has no slot here"
    doing = f"message {in_hand.message_id}" if in_hand.message_id else "idle"
    return f"{doing}, {in_hand.finished} finished"
