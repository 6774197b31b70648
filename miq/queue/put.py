"""Putting messages: one, many, or at most one of a kind.

Every put is rows in the caller's session, so that it happens with the caller's own changes or not at all; the trigger
on the table wakes the workers at commit. At most one of a kind is guarded by `merge_key`, a hash of what makes two
messages the same, and a partial unique index over the ready rows: two processes that look at once cannot both insert.
A message for the maintenance zone is not put, and the log says so: nobody would ever take it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from sqlalchemy.orm import Session

from miq.db import Database
from miq.errors import BadMessage
from miq.queue.message import COLUMNS, Callback, Message, Origin, encode
from miq.queue.statements import statement
from miq.session import raw_connection, run_in

log = logging.getLogger(__name__)

#: what makes two messages the same when it does not matter with what they call
THE_CALL = frozenset({"class_name", "method_name", "instance_id", "target_id", "queue_name", "zone", "role"})
#: the same, with the same args
CALL_AND_ARGS = THE_CALL | {"args"}


@dataclass(frozen=True)
class Waiting:
    """The ready message that a search found."""

    id: int
    args: list[Any]
    data: Any
    priority: int
    msg_timeout: int
    deliver_on: datetime | None
    miq_task_id: int | None
    callback: Callback | None


#: told of the message that waits, or of None; gives the fields of `Message` to change, or nothing
Change = Callable[[Waiting | None], Mapping[str, Any] | None]

Run = Callable[[str, Mapping[str, Any]], psycopg.Cursor[tuple[Any, ...]]]

#: a put from outside of any worker: any zone
NOWHERE = Origin()


def origin_of(session: Session) -> Origin:
    """Where a put of this session happens: its process tells its zone, its worker what it is executing."""
    running = session.info.get("message")
    zone = session.info.get("zone")
    return Origin(zone, running.task_id, running.tracking_label) if running is not None else Origin(zone)


def put(session: Session, message: Message) -> int | None:
    """Insert the message; its id, None when its zone is in maintenance. Raises BadMessage."""
    return _put(partial(run_in, session), message, origin_of(session))


def put_now(database: Database, message: Message, origin: Origin = NOWHERE) -> int | None:
    """`put` for whoever changes nothing else: committed by itself, in one round trip instead of three."""
    return _put(database.run, message, origin)


def _put(run: Run, message: Message, origin: Origin) -> int | None:
    inserted = _insert(run, message, origin, None)
    if inserted is None:
        _zone_takes(run, message.zone_from(origin))
    return inserted


def put_many(session: Session, messages: Iterable[Message]) -> int:
    """Insert them all at once; how many, without those of a zone in maintenance. Raises BadMessage, then none is put.

    Some thirty times faster than one by one; the ids are not told.
    """
    origin = origin_of(session)
    rows = [message.row(origin) for message in messages]
    zones = {row[_ZONE] for row in rows} - {None}
    closed = {zone for zone in zones if not _zone_takes(partial(run_in, session), zone)}
    if closed:
        rows = [row for row in rows if row[_ZONE] not in closed]
    with raw_connection(session).cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)
    log.info("MIQ(MiqQueue.put) [%s] messages put at once", len(rows))
    return len(rows)


_ZONE = COLUMNS.index("zone")
_COPY = f"COPY miq_queue ({', '.join(COLUMNS)}) FROM STDIN"


def put_unless_exists(
    session: Session, message: Message, *, match: frozenset[str] | None = None, busy_too: bool = False
) -> int | None:
    """Insert unless an equal message is ready; the id of the one or the other.

    Equal in `match`, by default every field that was given (reference 5.3). With `busy_too` one that is being executed
    counts as well; whoever asks so waits for others that do.
    """
    return _put_one_of_a_kind(session, message, lambda waiting: None, match, busy_too)


def put_or_update(
    session: Session, message: Message, change: Change, *, match: frozenset[str] | None = None
) -> int | None:
    """Insert, or change the equal message that is ready; the id of the one or the other.

    `change` is told of the message that waits, or of None, and gives the fields to save in it, or to insert with.
    A `msg_timeout` smaller than the one that waits is not saved. The row is locked meanwhile: no worker takes it.
    """
    return _put_one_of_a_kind(session, message, change, match, False)


def _put_one_of_a_kind(
    session: Session, message: Message, change: Change, match: frozenset[str] | None, busy_too: bool
) -> int | None:
    run, origin = partial(run_in, session), origin_of(session)
    key = message.key(message.given() if match is None else match, origin)
    if busy_too:
        run(statement("lock_key"), {"key": key})
        if (busy := run(statement("find_busy"), {"key": key}).fetchone()) is not None:
            return int(busy[0])
    while True:
        row = run(statement("find_waiting"), {"key": key}).fetchone()
        if row is not None:
            _change(session, waiting := _waiting(row), change(waiting))
            return waiting.id
        new = replace(message, **(change(None) or {}))
        if (inserted := _insert(run, new, origin, key)) is not None:
            return inserted
        if not _zone_takes(run, new.zone_from(origin)):
            return None


def _waiting(row: tuple[Any, ...]) -> Waiting:
    message_id, args, data, priority, msg_timeout, deliver_on, miq_task_id, callback = row
    return Waiting(
        message_id,
        json.loads(args or "[]"),
        None if data is None else json.loads(data),
        priority,
        msg_timeout or 0,
        deliver_on,
        miq_task_id,
        Callback(**json.loads(callback)) if callback else None,
    )


def _change(session: Session, waiting: Waiting, changes: Mapping[str, Any] | None) -> None:
    if not changes:
        return
    columns = dict(changes)
    if columns.get("msg_timeout", waiting.msg_timeout) < waiting.msg_timeout:
        log.warning(
            "MIQ(MiqQueue.put_or_update) Message id: [%s], msg_timeout [%s] is kept: the new one, [%s], is smaller",
            waiting.id, waiting.msg_timeout, columns.pop("msg_timeout"),
        )  # fmt: skip
    if "args" in columns:
        columns["args"] = encode(columns["args"], "args")
    if "data" in columns:
        data = columns.pop("data")
        columns["msg_data"] = None if data is None else encode(data, "data").encode()
    if "callback" in columns:
        callback = columns.pop("callback")
        columns["miq_callback"] = callback.as_json() if callback else None
    unknown = columns.keys() - set(COLUMNS)
    assert not unknown, unknown
    sets = "".join(f"{name} = %({name})s, " for name in columns)
    run_in(
        session,
        f"UPDATE miq_queue SET {sets}lock_version = coalesce(lock_version, 0) + 1"  # noqa: S608 - our columns
        " WHERE id = %(id)s",
        {**columns, "id": waiting.id},
    )


def _insert(run: Run, message: Message, origin: Origin, key: str | None) -> int | None:
    """The id of the new row; None when an equal one is ready, or the zone is in maintenance."""
    columns = dict(zip(COLUMNS, message.row(origin), strict=True))
    try:
        row = run(statement("put"), {**columns, "merge_key": key}).fetchone()
    except psycopg.DataError as error:
        raise BadMessage(f"{message.command} does not fit its columns: {error}") from error
    if row is None:
        return None
    if log.isEnabledFor(logging.INFO):
        log.info("MIQ(MiqQueue.put) %s", described({**columns, "id": row[0]}))
    return int(row[0])


def _zone_takes(run: Run, zone: str | None) -> bool:
    """Whether messages may be put for a zone. Raises BadMessage when there is none of that name."""
    if zone is None:
        return True
    row = run(statement("zone_takes"), {"zone": zone}).fetchone()
    if row is None:
        raise BadMessage(f"there is no zone {zone!r}: the table `zones` lists them")
    if not row[0]:
        log.warning("MIQ(MiqQueue.put) zone [%s] is in maintenance: the message is not put", zone)
    return bool(row[0])


def described(row: Mapping[str, Any]) -> str:
    """A message as log lines of the modelled system have it, in their order."""
    data = row.get("msg_data")
    return (
        f"Message id: [{row['id']}], Zone: [{row['zone']}], Role: [{row['role']}], Server: [{row['server_guid']}],"
        f" MiqTask id: [{row['miq_task_id']}], Handler id: [], Ident: [{row['queue_name']}],"
        f" Target id: [{row['target_id']}], Instance id: [{row['instance_id']}], Task id: [{row['task_id']}],"
        f" Command: [{row['class_name']}.{row['method_name']}], Timeout: [{row['msg_timeout']}],"
        f" Priority: [{row['priority']}], State: [{row.get('state', 'ready')}], Deliver On: [{row['deliver_on']}],"
        f" Data: [{f'{len(data)} bytes' if data else ''}], Args: {row['args']}"
    )
