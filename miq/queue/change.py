"""Changing what is in the queue: take a message out, copy it, put it back, tell all servers, try failures again.

Everything happens in the caller's session, with the caller's own changes or not at all; workers are woken at its
commit. Failed messages are chosen by what a `Failed` says; what waits or runs is never among them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from miq.errors import BadMessage
from miq.models import MessageState, Priority
from miq.models.miq_server import SERVER_ACTIVE
from miq.queue.claim import Handler
from miq.queue.give_back import despite_twins, give_back, wake
from miq.queue.message import COLUMNS, DEFAULT_TIMEOUT, Callback, Inherit, Message
from miq.queue.put import origin_of, put
from miq.queue.statements import statement
from miq.session import raw_connection, run_in

log = logging.getLogger(__name__)

#: states in which a message stays until somebody looks at it
FAILED_STATES = (MessageState.WARN, MessageState.ERROR, MessageState.TIMEOUT, MessageState.EXPIRED)

#: fields of `Message` that the row names otherwise
_COLUMN_OF = {"callback": "miq_callback", "data": "msg_data"}


def sooner(priority: int, by: int) -> int:
    """A priority that is more urgent by so much, but not more than the most urgent one (reference 5.1)."""
    return max(Priority.MAX, min(Priority.MIN, priority - by))


def later(priority: int, by: int) -> int:
    """A priority that is less urgent by so much, but not less than the least urgent one."""
    return sooner(priority, -by)


# -- one message -------------------------------------------------------------------------------------------------------


def unqueue(session: Session, message: Message, match: frozenset[str] | None = None) -> int | None:
    """Delete the most urgent ready message that is equal in `match`; its id, None when none waits.

    `match` is by default every field that was given; a zone that was given, or the process's own, also matches messages
    for any zone (reference 5.3).
    """
    columns = dict(zip(COLUMNS, message.row(origin_of(session)), strict=True))
    fields = message.given() if match is None else match
    same = {name: columns[name] for name in (_COLUMN_OF.get(each, each) for each in fields)}
    conditions = " AND ".join(["state = 'ready'", *map(_condition, same, same.values())])
    found = run_in(
        session,
        f"SELECT id FROM miq_queue WHERE {conditions} ORDER BY priority, id LIMIT 1 FOR UPDATE",  # noqa: S608 - ours
        same,
    ).fetchone()
    if found is None:
        return None
    run_in(session, "DELETE FROM miq_queue WHERE id = %(id)s", {"id": found[0]})
    log.info("MIQ(MiqQueue.unqueue) Message id: [%s], Command: [%s]", found[0], message.command)
    return int(found[0])


def _condition(column: str, value: object) -> str:
    if value is None:
        return f"{column} IS NULL"
    if column == "zone":
        return "(zone IS NULL OR zone = %(zone)s)"
    return f"coalesce(args, '[]') = %({column})s" if column == "args" else f"{column} = %({column})s"


def requeue(session: Session, message_id: int, **overrides: Any) -> int | None:  # noqa: ANN401 - fields of Message
    """Put a copy of a message, in whatever state it is, with other values where `overrides` names fields of `Message`.

    The id of the copy, None when its zone is in maintenance. Raises BadMessage for one that is gone or cannot be read.
    """
    row = run_in(
        session,
        f"SELECT {', '.join(COLUMNS)} FROM miq_queue WHERE id = %(id)s",  # noqa: S608 - our columns
        {"id": message_id},
    ).fetchone()
    if row is None:
        raise BadMessage(f"there is no message {message_id} to put again")
    return put(session, replace(_message_of(message_id, dict(zip(COLUMNS, row, strict=True))), **overrides))


def _message_of(message_id: int, columns: dict[str, Any]) -> Message:
    args, data, callback = columns.pop("args"), columns.pop("msg_data"), columns.pop("miq_callback")
    usual = {"class_name": "", "method_name": "", "queue_name": "generic", "priority": Priority.NORMAL}
    known = {**columns, **{name: value for name, value in usual.items() if columns[name] is None}}
    known["msg_timeout"] = columns["msg_timeout"] or DEFAULT_TIMEOUT
    try:
        known["args"] = json.loads(args or "[]")
        if not isinstance(known["args"], list):
            raise TypeError("args are not an array")
        known["data"] = None if data is None else json.loads(data)
        known["callback"] = Callback(**json.loads(callback)) if callback else None
    except (ValueError, TypeError) as error:
        raise BadMessage(f"message {message_id} cannot be put again: args, data or callback: {error}") from None
    return Message(**known)


def unget(session: Session, message_id: int, *, deliver_on: datetime | None = None) -> bool:
    """Put a message that somebody holds back to ready, not before `deliver_on` (UTC); False when nobody holds it.

    Nobody is told of how it ended: whoever executes it now goes on, and what he finds out is not written.
    """
    holder = run_in(
        session,
        "SELECT handler_type, handler_id FROM miq_queue"
        " WHERE id = %(id)s AND state = 'dequeue' AND handler_id IS NOT NULL FOR UPDATE",
        {"id": message_id},
    ).fetchone()
    if holder is None:
        return False
    give_back(raw_connection(session), Handler(*holder), [message_id], deliver_on=deliver_on)
    log.info("MIQ(MiqQueue#unget) Message id: [%s], Requeued", message_id)
    return True


def broadcast(session: Session, message: Message) -> list[int]:
    """Put it once for every server that is starting or started; the ids.

    Raises BadMessage for a message that has a zone, a role or a server of its own.
    """
    if message.zone not in (None, Inherit.ZONE) or message.role is not None or message.server_guid is not None:
        raise BadMessage(f"a broadcast of {message.command} goes to every server: give no zone, role or server")
    active = run_in(
        session,
        "SELECT guid FROM miq_servers WHERE status = ANY(string_to_array(%(active)s, ',')) ORDER BY id",
        {"active": ",".join(SERVER_ACTIVE)},
    ).fetchall()
    put_ids = [put(session, replace(message, zone=None, server_guid=guid)) for (guid,) in active]
    return [each for each in put_ids if each is not None]


# -- failed messages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """Which failed messages: those that agree with all that is said. `older_than` is in seconds since they failed."""

    ids: Sequence[int] | None = None
    class_name: str | None = None
    method_name: str | None = None
    state: str | None = None
    queue_name: str | None = None
    older_than: float | None = None


def choose_failed(session: Session, failed: Failed) -> list[int]:
    """Their ids; nobody else touches them until the transaction ends."""
    said = {**asdict(failed), "ids": None if failed.ids is None else list(failed.ids)}
    return [row[0] for row in run_in(session, statement("choose_failed"), said)]


def retry_failed(session: Session, failed: Failed) -> list[int]:
    """Put failed messages back to ready, due at once, with all attempts; their ids.

    `last_error` stays to be read until they run. Their tasks have ended and stay as they ended; other callbacks are
    told again. A message that meets a twin waits beside it, and nothing merges into it any more.
    """
    ids = choose_failed(session, failed)
    connection = raw_connection(session)
    wake(connection, despite_twins(connection, [statement("retry_failed")], {"ids": ids}))
    log.info("MIQ(MiqQueue.retry_failed) Message ids: %s, Requeued", ids)
    return ids


def purge_failed(session: Session, failed: Failed) -> int:
    """Delete failed messages; how many."""
    ids = choose_failed(session, failed)
    run_in(session, "DELETE FROM miq_queue WHERE id = ANY(%(ids)s)", {"ids": ids})
    log.info("MIQ(MiqQueue.purge_failed) [%s] messages deleted", len(ids))
    return len(ids)
