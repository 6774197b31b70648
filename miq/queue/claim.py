"""Taking messages: who may take what, and the claim itself.

A claimed message belongs to its handler until it is finished, failed or given back; nothing is counted yet, because
attempts count when execution starts. `Claimer` remembers where the last claim ended, so that working through a long
queue, or beside a report that keeps the rows of finished messages from being cleaned up, costs no more than a short
queue does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import psycopg

from miq.db import Database
from miq.models import Priority
from miq.queue.statements import statement


@dataclass(frozen=True)
class Handler:
    """Who takes messages: `kind` is `MiqWorker` or `MiqServer`, `id` its row."""

    kind: str
    id: int

    @property
    def columns(self) -> dict[str, str | int]:
        """As a message's row, and the statements, name it."""
        return {"handler_type": self.kind, "handler_id": self.id}


@dataclass(frozen=True)
class Route:
    """What a handler may take."""

    queue_name: str
    zone: str | None
    roles: Sequence[str]
    server_guid: str | None
    max_priority: int = Priority.MIN


class Claimed(NamedTuple):
    """A message in hand, as the statement `claim` returns it; `args` and `miq_callback` are still JSON."""

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
    msg_data: bytes | None = None
    server_guid: str | None = None
    user_id: int | None = None
    group_id: int | None = None
    tenant_id: int | None = None
    deliver_on: datetime | None = None
    waited: float | None = None

    @property
    def command(self) -> str:
        """CLASS.METHOD, for people."""
        return f"{self.class_name}.{self.method_name}"

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the order of claims."""
        assert self.priority is not None, "no claim finds a row without priority"
        return (self.priority, self.id)


#: before the first message of any queue
BEGINNING = (-(2**31), 0)


def claim(
    database: Database,
    handler: Handler,
    route: Route,
    *,
    limit: int = 1,
    after: tuple[int, int] = BEGINNING,
    now: datetime | None = None,
) -> list[Claimed]:
    """Take up to `limit` messages behind the place `after`, most urgent first; [] when there is none.

    Two workers that take messages of one task_id at once meet at the unique index; the loser looks again, for less. So
    does one that waits there for somebody who ends messages at which it has looked.
    """
    parameters = {
        **handler.columns,
        "queue_name": route.queue_name,
        "zone": route.zone,
        "roles": ",".join(route.roles),  # a string: adapting a list would cost every worker most of a megabyte
        "server_guid": route.server_guid,
        "max_priority": route.max_priority,
        "limit": limit,
        "after_priority": after[0],
        "after_id": after[1],
        "now": now,
    }
    while True:
        try:
            rows = database.run(statement("claim"), parameters).fetchall()
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            parameters["limit"] = limit = max(1, limit // 2)
            continue
        return sorted(map(Claimed._make, rows), key=lambda message: message.place)


class Claimer:
    """Claims for one handler, from behind what it took last as long as that is right.

    From the beginning again: when nothing is found behind, when somebody tells of a message that comes before, and
    every now and then, for what fell due or came back meanwhile without a word; that look takes at most a twentieth
    of the time.
    """

    REST, SHARE = 0.25, 20.0

    def __init__(self, database: Database, handler: Handler, route: Route) -> None:
        self.database = database
        self.handler = handler
        self.route = route
        self._after = BEGINNING
        self._look_again = 0.0

    def heard(self, payload: str) -> None:
        """A notification of the queue: the priority of a new message, or nothing when any place may be meant."""
        if not payload.lstrip("-").isdigit() or int(payload) < self._after[0]:
            self.forget()

    def forget(self) -> None:
        """Look from the beginning next time."""
        self._after = BEGINNING

    def take(self, limit: int) -> list[Claimed]:
        """Up to `limit` messages; [] when there is none that this handler may take."""
        taken: list[Claimed] = []
        if self._after != BEGINNING and time.monotonic() < self._look_again:
            taken = claim(self.database, self.handler, self.route, limit=limit, after=self._after)
        if not taken:
            began = time.monotonic()
            taken = claim(self.database, self.handler, self.route, limit=limit)
            ended = time.monotonic()
            self._look_again = ended + max(self.REST, self.SHARE * (ended - began))
        self._after = taken[-1].place if taken else BEGINNING
        return taken


def seconds_until_due(database: Database, queue_name: str) -> float | None:
    """How long until a deferred message of this queue is due; None when none waits."""
    row = database.run(statement("next_due"), {"queue_name": queue_name}).fetchone()
    return row[0] if row else None
