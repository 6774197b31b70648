"""The server's statements on `miq_workers`, `miq_worker_exits` and what else it must know: one transaction each."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from miq import names, process
from miq.channel import InHand
from miq.clock import utc
from miq.db import Database
from miq.process import ProcessInfo
from miq.queue.give_back import Connection
from miq.queue.sweep import Death, sweep
from miq.server.children import Child, Exit
from miq.server.sync import Key, ManagerFact

log = logging.getLogger(__name__)


def create_worker(database: Database, server_id: int, key: Key) -> tuple[int, str]:
    """The row of a worker to be; its id and guid."""
    guid = str(uuid.uuid4())
    row = database.run(
        "INSERT INTO miq_workers (guid, type, queue_name, miq_server_id, status, last_heartbeat)"
        " VALUES (%(guid)s, %(type)s, %(queue)s, %(server)s, 'creating', utc_now()) RETURNING id",
        {"guid": guid, "type": key[0], "queue": key[1], "server": server_id},
    ).fetchone()
    assert row is not None
    return row[0], guid


def mark_stopping(database: Database, worker_id: int) -> None:
    """The worker was told to stop."""
    database.run(
        "UPDATE miq_workers SET status = 'stopping'"
        " WHERE id = %(id)s AND status IN ('creating', 'starting', 'started')",
        {"id": worker_id},
    )


@dataclass(frozen=True)
class Ended:
    """A worker's end, with what the back-off made of it."""

    child: Child
    exit: Exit
    in_hand: InHand | None
    reason: str
    counts: bool
    deaths_in_vain: int
    back_off: float
    #: the message in hand ran past its time, and the worker could not end it itself
    timed_out: bool = False


def record_end(database: Database, server_id: int, ended: Ended) -> None:
    """Sweep its messages, keep its exit, delete its row: one transaction, so that none is ever without the others."""
    child = ended.child
    death = Death(
        "MiqWorker", child.worker_id, ended.in_hand, f"worker {child.worker_id} died: {ended.reason}",
        ended.counts, ended.timed_out,
    )  # fmt: skip
    with database.transaction() as connection:
        _end_backends(connection, server_id, child)
        swept = sweep(connection, death)
        connection.execute(
            "INSERT INTO miq_worker_exits (type, queue_name, miq_server_id, worker_id, guid, pid, started_on,"
            " exit_code, signal, reason, memory_usage, message_id, messages_finished, deaths_in_vain, back_off_until)"
            " SELECT %(type)s, %(queue)s, %(server)s, %(worker)s, %(guid)s, %(pid)s,"
            "  (SELECT started_on FROM miq_workers WHERE id = %(worker)s), %(code)s, %(signal)s, %(reason)s,"
            "  %(memory)s, %(message)s, %(finished)s, %(vain)s,"
            "  CASE WHEN %(back_off)s::float8 > 0 THEN utc_now() + make_interval(secs => %(back_off)s::float8) END",
            {
                "type": child.type_name,
                "queue": child.queue_name,
                "server": server_id,
                "worker": child.worker_id,
                "guid": child.guid,
                "pid": child.pid,
                "code": ended.exit.code,
                "signal": ended.exit.signal,
                "reason": ended.reason,
                "memory": child.memory,
                "message": (ended.in_hand.message_id or None) if ended.in_hand else None,
                "finished": ended.in_hand.finished if ended.in_hand else None,
                "vain": ended.deaths_in_vain,
                "back_off": ended.back_off,
            },
        )
        connection.execute("DELETE FROM miq_workers WHERE id = %(id)s", {"id": child.worker_id})
    log.info(
        "MIQ(MiqServer#clean_worker_records) Worker [%s] with ID: [%s], PID: [%s], GUID: [%s], %s, deleted;"
        " messages given back: %s, failed: %s",
        child.type_name,
        child.worker_id,
        child.pid,
        child.guid,
        ended.reason,
        swept.returned,
        swept.failed,
    )


def _end_backends(connection: Connection, server_id: int, child: Child) -> None:
    """What the dead worker had asked for last may still be under way: a claim that ends after the sweep takes messages
    that nobody would give back.
    """
    if child.pid is None:
        return
    ids = (names.compressed_id(each) for each in (server_id, child.worker_id))
    connection.execute(
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND starts_with(application_name, %(name)s)",
        {"name": "|".join(["MIQ", str(child.pid), *ids, ""])},
    )


def write_beats(database: Database, beats: Sequence[tuple[int, float, ProcessInfo | None]]) -> None:
    """Heartbeats (seconds ago) and process info of all workers, with one UPDATE."""
    if not beats:
        return
    infos = [info for _, _, info in beats]
    columns = {
        name: [getattr(info, name) if info else None for info in infos]
        for name in (
            "memory_usage", "memory_size", "proportional_set_size", "unique_set_size", "percent_memory", "percent_cpu",
            "cpu_time", "os_priority",
        )
    }  # fmt: skip
    database.run(
        "UPDATE miq_workers AS w SET"
        " last_heartbeat = greatest(w.last_heartbeat, utc_now() - make_interval(secs => v.ago)),"
        " memory_usage = v.rss, memory_size = v.size, proportional_set_size = v.pss, unique_set_size = v.uss,"
        " percent_memory = v.percent, percent_cpu = v.cpu, cpu_time = v.ticks, os_priority = v.priority"
        " FROM unnest(%(ids)s::bigint[], %(agos)s::float8[], %(memory_usage)s::numeric[], %(memory_size)s::numeric[],"
        " %(proportional_set_size)s::numeric[], %(unique_set_size)s::numeric[], %(percent_memory)s::float8[],"
        " %(percent_cpu)s::float8[], %(cpu_time)s::float8[], %(os_priority)s::int[])"
        " AS v(id, ago, rss, size, pss, uss, percent, cpu, ticks, priority)"
        " WHERE w.id = v.id AND w.status <> 'stopping'",
        {"ids": [each[0] for each in beats], "agos": [each[1] for each in beats], **columns},
    )


@dataclass(frozen=True)
class WorkerRow:
    """A row of this server, whoever runs it."""

    id: int
    guid: str
    type_name: str
    queue_name: str | None
    status: str
    pid: int | None
    pid_start: int | None
    unsupervised: bool

    def runs(self) -> bool:
        """Whether its process is still the one that it was."""
        return process.is_same(self.pid, self.pid_start)


def worker_rows(database: Database, server_id: int) -> list[WorkerRow]:
    """All rows of this server."""
    rows = database.run(
        "SELECT id, guid, type, queue_name, status, pid, pid_start, unsupervised FROM miq_workers"
        " WHERE miq_server_id = %(id)s ORDER BY id",
        {"id": server_id},
    ).fetchall()
    return [WorkerRow(*row) for row in rows]


def valid_managers(database: Database, zone_id: int) -> list[ManagerFact]:
    """Managers of the zone that are enabled and whose default credentials are Valid (reference 3.4)."""
    rows = database.run(
        "SELECT e.id, e.type FROM ext_management_systems e WHERE e.zone_id = %(zone)s AND e.enabled AND EXISTS ("
        " SELECT 1 FROM authentications a WHERE a.resource_type = 'ExtManagementSystem' AND a.resource_id = e.id"
        " AND a.authtype = 'default' AND a.status = 'Valid') ORDER BY e.id",
        {"zone": zone_id},
    ).fetchall()
    return [ManagerFact(*row) for row in rows]


def recent_deaths(database: Database, server_id: int) -> dict[Key, tuple[int, float]]:
    """Per key: deaths in vain in a row, and seconds of back-off left, from the last exit of each."""
    rows = database.run(
        "SELECT DISTINCT ON (type, queue_name) type, queue_name, deaths_in_vain,"
        " greatest(0, extract(epoch FROM back_off_until - utc_now()))::float8"
        " FROM miq_worker_exits WHERE miq_server_id = %(id)s ORDER BY type, queue_name, id DESC",
        {"id": server_id},
    ).fetchall()
    return {(row[0], row[1]): (row[2], row[3] or 0.0) for row in rows if row[2]}


def write_server(database: Database, server_id: int, info: ProcessInfo | None) -> None:
    """The server's own heartbeat and process info; a `not responding` one is well again."""
    database.run(
        "UPDATE miq_servers SET last_heartbeat = %(now)s, sql_spid = %(spid)s, memory_usage = %(rss)s,"
        " proportional_set_size = %(pss)s, unique_set_size = %(uss)s, percent_cpu = %(cpu)s, cpu_time = %(ticks)s,"
        " status = CASE status WHEN 'not responding' THEN 'started' ELSE status END WHERE id = %(id)s",
        {
            "now": utc(),
            "spid": database.backend_pid,
            "id": server_id,
            "rss": info.memory_usage if info else None,
            "pss": info.proportional_set_size if info else None,
            "uss": info.unique_set_size if info else None,
            "cpu": info.percent_cpu if info else None,
            "ticks": info.cpu_time if info else None,
        },
    )
