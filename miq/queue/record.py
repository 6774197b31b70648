"""Writing how messages ended. Whoever waits is told in the same transaction: nobody is told twice, or never.

A message that ended well is deleted, one that ended badly stays with its state and `last_error`, and one that has to
run again goes back. Everything is guarded by the handler: what a worker no longer holds (its server took it for dead)
it neither ends nor tells of. Short messages that nobody waits for are finished many at a time (`finish`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from miq.db import Database, connection_lost
from miq.errors import ExitNow
from miq.models import MessageState, TaskStatus
from miq.queue.claim import Claimed, Handler
from miq.queue.give_back import give_back
from miq.queue.methods import find_method
from miq.queue.statements import statement
from miq.session import raw_connection

if TYPE_CHECKING:
    from miq.queue.deliver import Delivery

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a message ended: ok, warn, error, timeout; retry or stopped give it back.

    `written`: its end is in the database already; `in_a_batch`: it may be written together with others; `attempt`: 1
    when what gives it back is counted as one.
    """

    message: Claimed
    status: str
    text: str = ""
    result: Any = None
    deliver_on: datetime | None = None
    written: bool = False
    in_a_batch: bool = False
    attempt: int = 0


def finish(database: Database, handler: Handler, messages: Sequence[Claimed]) -> None:
    """Delete messages that ended well, and wake those that wait for their task_ids."""
    parameters = {"ids": [each.id for each in messages], **handler.columns}
    while True:
        try:
            database.run(statement("finish"), parameters)
            break
        except psycopg.errors.DeadlockDetected:
            continue  # a claim had looked at them as we took them, and waited for us; it has gone on now
    wake_chains(database, messages)


def wake_chains(database: Database, messages: Sequence[Claimed]) -> None:
    """The next message of a task_id may stand in a queue whose workers sleep."""
    if task_ids := list({each.task_id for each in messages if each.task_id is not None}):
        database.run(statement("wake_chain"), {"task_ids": task_ids})


def record(outcome: Outcome, delivery: Delivery) -> None:
    """Write how the message ended.

    Raises psycopg.OperationalError or its DBAPIError when the database is away; then nothing was written.
    """
    message, database = outcome.message, delivery.database
    if outcome.status in ("retry", "stopped"):
        with database.transaction() as connection:
            give_back(
                connection, delivery.handler, [message.id], deliver_on=outcome.deliver_on, attempt=outcome.attempt
            )
    else:
        with database.session() as session:
            session.info.update(delivery.info)
            end_in(session, outcome, delivery)
    wake_chains(database, [message])


def end_in(session: Session, outcome: Outcome, delivery: Delivery) -> None:
    """Within a session: end the message, and tell its callback or task. Raises as `record` does."""
    message, connection = outcome.message, raw_connection(session)
    ended = connection.execute(*_ending(outcome, delivery.handler)).rowcount
    if not ended:
        log.warning("MIQ(MiqQueue#delivered) Message id: [%s] is not ours any more, nobody is told", message.id)
    elif message.miq_callback is not None:
        _call_back(session, outcome)
    elif message.miq_task_id is not None and outcome.status != "ok":
        status = TaskStatus.of(outcome.status)
        connection.execute(statement("fail_task"), {"id": message.miq_task_id, "status": status, "error": outcome.text})


def _ending(outcome: Outcome, handler: Handler) -> tuple[str, dict[str, Any]]:
    if outcome.status == "ok":
        return statement("finish"), {"ids": [outcome.message.id], **handler.columns}
    state = outcome.status if outcome.status in (MessageState.WARN, MessageState.TIMEOUT) else MessageState.ERROR
    return statement("fail"), {"id": outcome.message.id, "state": state, "error": outcome.text, **handler.columns}


def _call_back(session: Session, outcome: Outcome) -> None:
    """A callback's error is logged and kept on nobody: the message ends as it ended (reference 5.6)."""
    try:
        with session.begin_nested():
            callback = json.loads(outcome.message.miq_callback or "{}")
            method = find_method(callback.get("class_name"), callback.get("method_name"))
            record_id = callback.get("instance_id")
            row = session.get(method.model, record_id) if method.model is not None and record_id is not None else None
            method.function(session, row, *(callback.get("args") or ()), outcome.status, outcome.text, outcome.result)
    except (ExitNow, KeyboardInterrupt):
        raise
    except BaseException as error:
        if connection_lost(error):
            raise error.orig if isinstance(error, DBAPIError) and error.orig else error from error
        log.error("MIQ(MiqQueue#m_callback) Message id: [%s], callback: %s", outcome.message.id, error, exc_info=True)
