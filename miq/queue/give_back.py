"""Putting messages that a handler holds back to ready, within the caller's transaction.

A message may meet a twin that waits already (the same `merge_key`). If the twin asks for the same, it does the work
of both, and takes over task and callback; else both wait, and the one that comes back no longer counts as its kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from miq.queue.claim import Handler
from miq.queue.statements import statement

Connection = psycopg.Connection[tuple[Any, ...]]

#: how often somebody may put a twin in the very moment
_TRIES = 5


def give_back(
    connection: Connection,
    handler: Handler,
    ids: Sequence[int],
    *,
    deliver_on: datetime | None = None,
    delay: float = 0.0,
    attempt: int = 0,
) -> None:
    """Give `ids` of what the handler holds back, not to be taken before `deliver_on` (UTC), or for `delay` seconds.

    Wakes the workers of their queues. What the handler no longer holds is left alone.
    """
    if not ids:
        return
    parameters = {
        **handler.columns,
        "ids": list(ids),
        "deliver_on": deliver_on,
        "delay": delay,
        "attempt": attempt,
    }
    wake(connection, despite_twins(connection, [statement("merge_into_twin"), statement("give_back")], parameters))


def despite_twins(connection: Connection, statements: Sequence[str], parameters: Mapping[str, Any]) -> set[str | None]:
    """Run statements that make messages ready, together; the queues that they return.

    Again when somebody has put a twin in that very moment. Raises UniqueViolation when that happens time and again.
    """
    for left in reversed(range(_TRIES)):
        try:
            with connection.transaction():
                return {row[0] for each in statements for row in connection.execute(each, parameters)}
        except psycopg.errors.UniqueViolation:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def wake(connection: Connection, queue_names: set[str | None]) -> None:
    """Tell the listeners of these queues to look from the beginning."""
    for queue_name in queue_names - {None}:
        connection.execute(statement("wake"), {"queue_name": queue_name})
