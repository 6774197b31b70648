"""Taking messages: who may take what, and the claim itself.

A claimed message belongs to its handler until it is finished, failed or given back; nothing is counted yet, because
attempts count when execution starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from miq.db import Database
from miq.queue.statements import statement


@dataclass(frozen=True)
class Handler:
    """Who takes messages: `kind` is `MiqWorker` or `MiqServer`, `id` its row."""

    kind: str
    id: int


@dataclass(frozen=True)
class Route:
    """What a handler may take."""

    queue_name: str
    zone: str | None
    roles: Sequence[str]
    server_guid: str | None
    max_priority: int = 200


@dataclass(frozen=True)
class Claimed:
    """A message in hand; `args` and `miq_callback` are still the JSON that the row holds."""

    id: int
    class_name: str | None
    method_name: str | None
    instance_id: int | None
    target_id: int | None
    args: str | None
    miq_callback: str | None
    msg_timeout: int | None
    task_id: str | None
    miq_task_id: int | None
    attempts: int
    tracking_label: str | None
    queue_name: str | None
    zone: str | None
    role: str | None
    priority: int | None
    waited: float | None

    @property
    def command(self) -> str:
        """CLASS.METHOD, for people."""
        return f"{self.class_name}.{self.method_name}"


def claim(
    database: Database, handler: Handler, route: Route, *, limit: int = 1, now: datetime | None = None
) -> list[Claimed]:
    """Take up to `limit` messages, most urgent first; [] when there is none.

    Two workers that take messages of one task_id at once meet at the unique index; the loser looks again.
    """
    parameters = {
        "handler_type": handler.kind,
        "handler_id": handler.id,
        "queue_name": route.queue_name,
        "zone": route.zone,
        "roles": ",".join(route.roles),  # a string: adapting a list would cost every worker most of a megabyte
        "server_guid": route.server_guid,
        "max_priority": route.max_priority,
        "limit": limit,
        "now": now,
    }
    while True:
        try:
            rows = database.run(statement("claim"), parameters).fetchall()
        except psycopg.errors.UniqueViolation:
            continue
        return sorted((Claimed(*row) for row in rows), key=lambda message: (message.priority or 0, message.id))


def seconds_until_due(database: Database, queue_name: str) -> float | None:
    """How long until a deferred message of this queue is due; None when none waits."""
    row = database.run(statement("next_due"), {"queue_name": queue_name}).fetchone()
    return row[0] if row else None
