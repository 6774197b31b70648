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

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from miq.models import MessageState, MiqQueue, Priority


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
    return int(session.scalars(insert(MiqQueue).values(message.columns()).returning(MiqQueue.id)).one())


def put_unless_exists(session: Session, message: Message, *, busy_too: bool = False) -> int:
    """Insert unless an equal one (args too) is ready; the id of the one or the other.

    With `busy_too`, one that is being executed counts as well.
    """
    key = message.merge_key(with_args=True)
    if busy_too:
        busy = select(MiqQueue.id).where(MiqQueue.merge_key == key, MiqQueue.state == MessageState.DEQUEUE)
        if (found := session.scalar(busy.limit(1))) is not None:
            return int(found)
    return _put_with_key(session, message, key, lambda waiting: None)


def put_or_merge(session: Session, message: Message, merge: Callable[[MiqQueue], None]) -> int:
    """Insert, or hand the ready message that calls the same, whatever its args, to `merge`, which changes it in place.

    The waiting row is locked while it is changed, so that no worker takes it in between.
    """
    return _put_with_key(session, message, message.merge_key(with_args=False), merge)


def _put_with_key(session: Session, message: Message, key: str, merge: Callable[[MiqQueue], None]) -> int:
    waiting = select(MiqQueue).where(MiqQueue.merge_key == key, MiqQueue.state == MessageState.READY).with_for_update()
    while True:
        row = session.scalars(waiting.execution_options(populate_existing=True)).first()
        if row is not None:
            merge(row)
            session.flush()
            return row.id
        inserted = session.scalar(
            insert(MiqQueue)
            .values(**message.columns(), merge_key=key)
            .on_conflict_do_nothing(
                index_elements=[MiqQueue.merge_key],
                index_where=text("state = 'ready' AND merge_key IS NOT NULL"),
            )
            .returning(MiqQueue.id)
        )
        if inserted is not None:
            return int(inserted)
