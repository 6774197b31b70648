"""Putting messages: `put`, `put_unless_exists`, `put_or_merge`.

Every put is one row in the caller's session, so that it happens with the caller's own changes or not at all; the
trigger on the table wakes the workers at commit. Merging is guarded by `merge_key`, a hash of what makes two messages
the same, and a partial unique index over the ready rows: two processes that look at once cannot both insert.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from miq.models import Priority
from miq.session import run_in

Merge = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True)
class Callback:
    """Who is told how a message ended: called with `args` + [status, message, result]."""

    class_name: str
    method_name: str
    instance_id: int | None = None
    args: Sequence[Any] = ()


@dataclass(frozen=True)
class Message:
    """A message to put. `zone`, `role` and `server_guid` None mean any; `msg_timeout` is seconds."""

    class_name: str
    method_name: str
    args: Sequence[Any] = ()
    instance_id: int | None = None
    target_id: int | None = None
    queue_name: str = "generic"
    zone: str | None = None
    role: str | None = None
    server_guid: str | None = None
    priority: int = Priority.NORMAL
    deliver_on: datetime | None = None
    expires_on: datetime | None = None
    msg_timeout: int = 600
    task_id: str | None = None
    miq_task_id: int | None = None
    tracking_label: str | None = None
    callback: Callback | None = field(default=None)

    def columns(self) -> dict[str, Any]:
        """The row, as the table holds it. Raises TypeError when args are not JSON."""
        values = asdict(self)
        callback = values.pop("callback")
        values["args"] = json.dumps(list(self.args))
        values["miq_callback"] = json.dumps(callback) if callback else None
        values["priority"] = int(self.priority)
        return values

    def merge_key(self, *, with_args: bool) -> str:
        """What makes two messages the same: whom they call where, and, if asked, with what."""
        same = [
            self.class_name,
            self.method_name,
            self.instance_id,
            self.target_id,
            self.queue_name,
            self.zone,
            self.role,
        ]
        if with_args:
            same.append(json.dumps(list(self.args), sort_keys=True))
        return hashlib.sha256(json.dumps(same).encode()).hexdigest()


def put(session: Session, message: Message) -> int:
    """Insert the message; its id. Wakes a worker at commit."""
    inserted = _insert(session, message.columns())
    assert inserted is not None
    return inserted


def put_unless_exists(session: Session, message: Message, *, busy_too: bool = False) -> int:
    """Insert unless an equal one (args too) is ready; the id of the one or the other.

    With `busy_too`, one that is being executed counts as well.
    """
    key = message.merge_key(with_args=True)
    if busy_too:
        busy = "SELECT id FROM miq_queue WHERE merge_key = %(key)s AND state = 'dequeue' LIMIT 1"
        if (found := run_in(session, busy, {"key": key}).fetchone()) is not None:
            return int(found[0])
    return _put_with_key(session, message, key, None)


def put_or_merge(session: Session, message: Message, merge: Merge) -> int:
    """Insert, or give the ready message that calls the same, whatever its args, the args that `merge` makes of them.

    The waiting row is locked while it is changed, so that no worker takes it in between.
    """
    return _put_with_key(session, message, message.merge_key(with_args=False), merge)


def _put_with_key(session: Session, message: Message, key: str, merge: Merge | None) -> int:
    waiting = "SELECT id, args FROM miq_queue WHERE merge_key = %(key)s AND state = 'ready' FOR UPDATE"
    while True:
        row = run_in(session, waiting, {"key": key}).fetchone()
        if row is not None:
            if merge is not None:
                args = json.dumps(merge(json.loads(row[1] or "[]")))
                run_in(session, "UPDATE miq_queue SET args = %(args)s WHERE id = %(id)s", {"id": row[0], "args": args})
            return int(row[0])
        inserted = _insert(session, {**message.columns(), "merge_key": key})
        if inserted is not None:
            return inserted


def _insert(session: Session, columns: dict[str, Any]) -> int | None:
    """The id of the new row; None when an equal one is ready."""
    values = ", ".join(f"%({name})s" for name in columns)
    row = run_in(
        session,
        f"INSERT INTO miq_queue ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 - names of fields
        " ON CONFLICT (merge_key) WHERE state = 'ready' AND merge_key IS NOT NULL DO NOTHING RETURNING id",
        columns,
    ).fetchone()
    return int(row[0]) if row else None
