"""How the queue is, for operators: what waits in each queue and since when, what is stuck, and the state of its table.

Reads only, in a few passes over the table; times are UTC, ages are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from miq.db import Database


@dataclass(frozen=True)
class QueueHealth:
    """One queue. `oldest` is the moment since which the oldest message that is due has waited, `age` for how long."""

    queue_name: str | None
    ready: int
    deferred: int
    running: int
    failed: int
    oldest: datetime | None
    age: float | None


@dataclass(frozen=True)
class TableHealth:
    """The table `miq_queue`. Dead rows slow down every claim until a vacuum takes them away."""

    live_rows: int
    dead_rows: int
    bytes: int
    last_vacuum: datetime | None
    last_autovacuum: datetime | None
    last_autoanalyze: datetime | None


@dataclass(frozen=True)
class Stuck:
    """A message that is being executed, says its row, though its handler is gone or it should have ended.

    `held` is for how long, in seconds; `worker_type`, `pid` and `server` are None when the handler's row is gone.
    """

    id: int
    method: str
    queue_name: str | None
    handler_type: str | None
    handler_id: int | None
    worker_type: str | None
    pid: int | None
    server: str | None
    held: float | None
    msg_timeout: int | None
    reason: str


@dataclass(frozen=True)
class Health:
    """All of it."""

    queues: Sequence[QueueHealth]
    table: TableHealth
    stuck: Sequence[Stuck]


def read_health(database: Database) -> Health:
    """The queue as it is now."""
    return Health(_queues(database), _table(database), _stuck(database))


def _queues(database: Database) -> list[QueueHealth]:
    rows = database.run(
        "SELECT queue_name, count(*) FILTER (WHERE due), count(*) FILTER (WHERE state = 'ready' AND deliver_on > now),"
        " count(*) FILTER (WHERE state = 'dequeue'), count(*) FILTER (WHERE state NOT IN ('ready', 'dequeue')),"
        " min(since) FILTER (WHERE due), extract(epoch FROM min(now) - min(since) FILTER (WHERE due))::float8"
        " FROM (SELECT queue_name, state, deliver_on, coalesce(deliver_on, created_on) AS since, now,"
        "   state = 'ready' AND coalesce(deliver_on <= now, true) AND coalesce(expires_on > now, true) AS due"
        "   FROM miq_queue, (SELECT utc_now() AS now) AS clock) AS message"
        " GROUP BY queue_name ORDER BY queue_name"
    ).fetchall()
    return [QueueHealth(*row) for row in rows]


def _table(database: Database) -> TableHealth:
    row = database.run(
        "SELECT n_live_tup, n_dead_tup, pg_total_relation_size(relid), last_vacuum AT TIME ZONE 'UTC',"
        " last_autovacuum AT TIME ZONE 'UTC', last_autoanalyze AT TIME ZONE 'UTC'"
        " FROM pg_stat_user_tables WHERE relid = 'miq_queue'::regclass"
    ).fetchone()
    assert row is not None
    return TableHealth(*row)


def _stuck(database: Database) -> list[Stuck]:
    rows = database.run(
        "SELECT id, method, queue_name, handler_type, handler_id, type, pid, server, held, msg_timeout,"
        " CASE WHEN gone THEN 'its handler is gone' ELSE 'it runs past its msg_timeout' END"
        " FROM (SELECT q.*, concat_ws('.', q.class_name, q.method_name) AS method, w.type,"
        "   coalesce(w.pid, s.pid) AS pid, s.name AS server, coalesce(w.id, s.id) IS NULL AS gone,"
        "   extract(epoch FROM utc_now() - q.updated_on)::float8 AS held"
        "   FROM miq_queue q"
        "   LEFT JOIN miq_workers w ON q.handler_type = 'MiqWorker' AND w.id = q.handler_id"
        "   LEFT JOIN miq_servers s ON s.id = CASE WHEN q.handler_type = 'MiqServer' THEN q.handler_id"
        "    ELSE w.miq_server_id END"
        "   WHERE q.state = 'dequeue') AS message"
        " WHERE gone OR held > coalesce(msg_timeout, 600) ORDER BY updated_on, id"
    ).fetchall()
    return [Stuck(*row) for row in rows]
