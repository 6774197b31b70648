"""What the queue promises, in plain Python: a model to hold the real one against.

No SQL, no clock, no process: rows in a dict, and one method per thing that may happen to them. It says what the table
has to look like afterwards, row by row, and who has to have been told what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

MAX_ATTEMPTS = 3


class Waiter(NamedTuple):
    """Who waits for a message: a `callback` of the test, a `task` with its callback, or a task `alone` without one."""

    kind: str
    number: int


@dataclass
class Row:
    """A message. `idempotent` stands for its method."""

    id: int
    idempotent: bool
    args: list[int]
    priority: int = 100
    zone: str | None = None
    role: str | None = None
    task_id: str | None = None
    key: str | None = None
    waiter: Waiter | None = None
    deliver_on: datetime | None = None
    expires_on: datetime | None = None
    state: str = "ready"
    handler: int | None = None
    attempts: int = 0
    #: a callback that became a message: whom it tells, and what
    calls: Waiter | None = None
    says: str = ""

    @property
    def place(self) -> tuple[int, int]:
        return (self.priority, self.id)


@dataclass(frozen=True)
class InHand:
    """What a dead worker was doing: `over` when its code had ended."""

    id: int
    over: bool = False


@dataclass
class Model:
    """The table, and what became of those that waited."""

    rows: dict[int, Row] = field(default_factory=dict)
    #: in the order in which they were told
    told: list[tuple[Waiter, str]] = field(default_factory=list)
    #: messages whose work another one does
    merged: dict[int, int] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        self.rows[row.id] = row

    def held(self, handler: int) -> list[Row]:
        return [row for row in self.rows.values() if row.handler == handler]

    def everybody_told(self) -> list[tuple[Waiter, str]]:
        """Who was told what; a task hears only the first that it is told."""
        return [each for number, each in enumerate(self.told) if each[0] not in dict(self.told[:number])]

    def ready(self, key: str | None) -> Row | None:
        """The one of this kind that waits."""
        return next((row for row in self.rows.values() if key and row.key == key and row.state == "ready"), None)

    def claim(
        self, handler: int, takes: Callable[[Row], bool], limit: int, after: tuple[int, int], now: datetime
    ) -> list[int]:
        """The first `limit` that this handler may take, and of those with one task_id only the first."""
        busy = {row.task_id for row in self.rows.values() if row.state == "dequeue"} - {None}
        found = sorted(
            (
                row
                for row in self.rows.values()
                if row.state == "ready"
                and row.place > after
                and takes(row)
                and (row.deliver_on is None or row.deliver_on <= now)
                and (row.expires_on is None or row.expires_on > now)
                and row.task_id not in busy
            ),
            key=lambda row: row.place,
        )[:limit]
        seen: set[str] = set()
        taken = []
        for row in found:
            if row.task_id is not None:
                if row.task_id in seen:
                    continue
                seen.add(row.task_id)
            row.state, row.handler = "dequeue", handler
            taken.append(row.id)
        return taken

    def end(self, message: int, status: str) -> None:
        """It ran: gone when that was well, else kept; who waits is told."""
        row = self.rows[message]
        if status == "ok":
            del self.rows[message]
            if row.calls is not None:
                self.told.append((row.calls, row.says))
        else:
            self._keep(row, status)
        if row.waiter is not None and (row.waiter.kind != "alone" or status != "ok"):
            self.told.append((row.waiter, status))

    def _keep(self, row: Row, status: str) -> None:
        row.state, row.handler, row.attempts = status, None, row.attempts + 1

    def give_back(self, ids: Iterable[int], *, deliver_on: datetime | None = None, attempt: int = 0) -> None:
        """They wait again. One that meets its twin is the twin's, if that asks for the same and both do not wait."""
        first_of_kind: set[str] = set()
        for row in [self.rows[each] for each in sorted(ids)]:
            twin = self.ready(row.key)
            if row.key is not None and row.key not in first_of_kind:
                first_of_kind.add(row.key)
                if twin is not None and twin.args == row.args and (twin.waiter is None or row.waiter is None):
                    twin.waiter = twin.waiter or row.waiter
                    self.merged[row.id] = twin.id
                    del self.rows[row.id]
                    continue
            if twin is not None:
                row.key = None
            row.state, row.handler, row.attempts = "ready", None, row.attempts + attempt
            row.deliver_on = deliver_on or row.deliver_on

    def sweep(
        self,
        handler: int,
        in_hand: InHand | None,
        *,
        known: bool = True,
        counts: bool,
        timed_out: bool,
        later: datetime,
    ) -> list[tuple[Waiter, str]]:
        """A handler died; the callbacks that become messages. `later` is when a second attempt is due."""
        started = [row for row in self.held(handler) if not known or (in_hand is not None and in_hand.id == row.id)]
        self.give_back([row.id for row in self.held(handler) if row not in started])
        calls: list[tuple[Waiter, str]] = []
        for row in started:
            again = known and row.idempotent and not timed_out
            if again and not counts:
                self.give_back([row.id])
            elif again and row.attempts + 1 < MAX_ATTEMPTS:
                self.give_back([row.id], deliver_on=later if row.attempts else None, attempt=1)
            else:
                status = "timeout" if timed_out else "error"
                self._keep(row, status)
                if row.waiter is not None and row.waiter.kind == "alone":
                    self.told.append((row.waiter, status))
                elif row.waiter is not None:
                    calls.append((row.waiter, status))
        return calls


def covered_by(message: int, merged: dict[int, int]) -> int:
    """The message that does the work of this one."""
    while message in merged:
        message = merged[message]
    return message
