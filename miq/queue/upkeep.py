"""Upkeep of the queue, of tasks and of the busy tables, called by timer through the queue itself.

`MiqQueue.check_for_timeout` ends what nobody will ever end: messages whose handler is gone, ready ones that are past
their `expires_on`, and ready ones that no claim can find. Nothing ends by its age alone while its handler lives: the
server ends a worker that runs past a time-out. Every method may run twice, takes a bounded set of rows at a time, and
leaves its session alone: what it does is committed by itself. REINDEX CONCURRENTLY and VACUUM, which may wait for
others, have a connection of their own.
"""

from __future__ import annotations

import logging
from contextlib import closing

from sqlalchemy.orm import Session

from miq.db import Database, database_of
from miq.models import Base, MessageState
from miq.queue.give_back import Connection
from miq.queue.methods import queue_method
from miq.queue.statements import statement
from miq.queue.sweep import Death, Held, fail, sweep
from miq.settings import Settings

log = logging.getLogger(__name__)

#: rows that one statement ends or deletes
AT_ONCE = 1000
#: seconds that a handler's row may be missing: whoever closes a row sweeps its messages in the same moment
GRACE = 10.0
#: seconds that REINDEX and VACUUM wait for those who use the table
LOCK_TIMEOUT = 60.0


@queue_method("MiqQueue", "purge_timer", idempotent=True)
def purge_failed(session: Session, record: None, seconds: float) -> int:
    """Delete failed messages older than `seconds`; how many."""
    return database_of(session).run(statement("purge_failed"), {"seconds": seconds}).rowcount


@queue_method("MiqWorkerExit", "purge_timer", idempotent=True)
def purge_exits(session: Session, record: None, seconds: float) -> int:
    """Delete exits of workers older than `seconds`; how many."""
    return database_of(session).run(statement("purge_exits"), {"seconds": seconds}).rowcount


# -- messages that nobody will end -------------------------------------------------------------------------------------


@queue_method("MiqQueue", "check_for_timeout", idempotent=True)
def check_for_timeout(session: Session, record: None) -> dict[str, int]:
    """End messages that nobody will end: how many lost their handler, expired, or could never be taken."""
    with database_of(session).transaction() as connection:
        return {
            "lost": _sweep_lost(connection),
            "expired": _end_ready(connection, statement("expire"), MessageState.EXPIRED),
            "unclaimable": _end_ready(connection, statement("end_unclaimable"), MessageState.ERROR),
        }


def _sweep_lost(connection: Connection) -> int:
    """Messages in `dequeue` of handlers that have no row; what has no handler gets one that has none."""
    limits = {"grace": GRACE, "limit": AT_ONCE}
    connection.execute(statement("adopt_unheld"), limits)
    ended = 0
    for handler_type, handler_id in connection.execute(statement("lost_handlers"), limits).fetchall():
        reason = f"{handler_type} {handler_id} has no row any more" if handler_id else "no handler holds it"
        swept = sweep(connection, Death(handler_type, handler_id, None, reason, counts=False))
        ended += len(swept.failed) + len(swept.returned)
    return ended


def _end_ready(connection: Connection, ending: str, state: MessageState) -> int:
    """End ready messages by a statement that tells which; `fail` is for those that somebody waits for."""
    ended = connection.execute(ending, {"limit": AT_ONCE}).fetchall()
    if ended:
        first = [row[0] for row in ended[:20]]
        log.error("MIQ(MiqQueue.check_for_timeout) %s messages end as [%s], the first: %s", len(ended), state, first)
    for message_id, class_name, method_name, callback, task_id, attempts, text in ended:
        if callback or task_id is not None:
            message = Held(message_id, class_name, method_name, callback, task_id, attempts)
            fail(connection, message, state, text, attempt=0)
    return len(ended)


# -- tasks -------------------------------------------------------------------------------------------------------------


def _settings(session: Session) -> Settings:
    settings: Settings = session.info["settings"]
    return settings


@queue_method("MiqTask", "update_status_for_timed_out_active_tasks", idempotent=True)
def time_out_tasks(session: Session, record: None) -> int:
    """End tasks that are Active, untouched for `task.active_task_timeout`, and no job's; how many."""
    parameters = {"seconds": _settings(session).number("task.active_task_timeout"), "limit": AT_ONCE}
    ended = 0
    while True:
        done = database_of(session).run(statement("time_out_tasks"), parameters).rowcount
        ended += done
        if done < AT_ONCE:
            return ended
        session.info["check_stop"]()


@queue_method("MiqTask", "purge_timer", idempotent=True)
def purge_tasks(session: Session, record: None) -> int:
    """Delete tasks that finished `task.history.keep_tasks` ago, unless their job is active; how many."""
    seconds = _settings(session).number("task.history.keep_tasks")
    deleted, last = 0, 0
    while True:
        parameters = {"seconds": seconds, "limit": AT_ONCE, "after": last}
        ids = [row[0] for row in database_of(session).run(statement("purge_tasks"), parameters)]
        deleted += len(ids)
        if len(ids) < AT_ONCE:
            return deleted
        last = max(ids)
        session.info["check_stop"]()


# -- tables ------------------------------------------------------------------------------------------------------------


def _register(class_name: str, table: str) -> None:
    """`reindex` and `vacuum` of one table, called by its class (reference 6.2)."""

    @queue_method(class_name, "reindex", idempotent=True)
    def reindex(session: Session, record: None) -> None:
        """Build the indexes of the table anew, one by one, beside those who use it."""
        with closing(_second_connection(session)) as database:
            # what an interrupted REINDEX has left is invalid, and is paid for with every write
            for index in _names(database, statement("broken_indexes"), table):
                database.run(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            for index in _names(database, statement("indexes"), table):
                session.info["check_stop"]()
                database.run(f"REINDEX INDEX CONCURRENTLY {index}")

    @queue_method(class_name, "vacuum", idempotent=True)
    def vacuum(session: Session, record: None) -> None:
        """Give the room of dead rows back, and count the rows anew for the planner."""
        with closing(_second_connection(session)) as database:
            database.run(f"VACUUM (ANALYZE) {table}")


def _second_connection(session: Session) -> Database:
    """One whose statements end when their message has to, also when nobody is left to end them."""
    ours = database_of(session)
    seconds = session.info["message"].msg_timeout
    return Database(ours.dsn, ours.application_name, statement_timeout=seconds, lock_timeout=LOCK_TIMEOUT)


def _names(database: Database, of: str, table: str) -> list[str]:
    """Names of indexes, quoted where they have to be."""
    return [row[0] for row in database.run(of, {"table": table}).fetchall()]


for model in Base.__subclasses__():
    _register(model.__name__, model.__tablename__)
