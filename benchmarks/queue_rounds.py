"""One round of a queue benchmark: put rows at once, and watch them go.

In: a connection of the benchmark's own and the table of a queue whose workers are up and wait. Out: seconds, and what
the round cost. Both tables are vacuumed, analysed and checkpointed before every round, so that neither pays for what
the one before it left.

The watcher looks every two milliseconds for the lowest row that is left, from the lowest it has seen on: that reads
the few index entries that died in between. It looks within one open READ COMMITTED transaction, which holds no
snapshot between two statements and adds no commit to those that are counted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg

from benchmarks import minimal_queue
from benchmarks.stand import cpu_seconds
from tests.process.appliance import Appliance, eventually

Connection = psycopg.Connection[Any]

GRAIN = 0.002
GENERIC = "MiqGenericWorker"


@dataclass(frozen=True)
class Table:
    """A queue's table, and the statement that puts so many messages that do nothing."""

    name: str
    fill: str


#: routed as `put` does it: zone, queue and time-out in every row, a role in every fourth
OURS = Table(
    "miq_queue",
    "INSERT INTO miq_queue (class_name, method_name, args, queue_name, zone, role, priority, msg_timeout)"
    " SELECT 'Diagnostics', 'noop', '[]', 'generic', 'default', CASE WHEN n %% 4 = 0 THEN 'ems_operations' END,"
    " 100, 600 FROM generate_series(1, %s) AS n",
)
MINIMAL = Table(minimal_queue.TABLE, minimal_queue.FILL)


@dataclass(frozen=True)
class Round:
    """What a drain took; CPU in seconds, the worker's and its database backend's, where they were watched."""

    messages: int
    seconds: float
    wal: float = 0.0
    worker_cpu: float = 0.0
    backend_cpu: float = 0.0

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    def micro(self, seconds: float) -> float:
        """Microseconds per message."""
        return seconds / self.messages * 1e6


def told(rounds: list[Round], read: Callable[[Round], float], digits: int = 0) -> str:
    """Median and range."""
    values = [read(each) for each in rounds]
    return f"{median(values):,.{digits}f} [{min(values):,.{digits}f}..{max(values):,.{digits}f}]"


def tidy(connection: Connection, *tables: Table) -> None:
    """Take out what is dead, count what is there, write what is dirty."""
    for table in tables:
        connection.execute(f"VACUUM (ANALYZE) {table.name}")
    connection.execute("CHECKPOINT")


def fill(connection: Connection, table: Table, messages: int) -> tuple[int, int]:
    """All rows in one transaction; the first id, and where the log of the database was just before the commit."""
    with connection.transaction():
        connection.execute(table.fill, (messages,))
        row = connection.execute(f"SELECT min(id), pg_current_wal_insert_lsn() - '0/0' FROM {table.name}").fetchone()
        assert row is not None
    return int(row[0]), int(row[1])


def wal_position(connection: Connection) -> int:
    """Bytes written to the log of the database so far."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None
    return int(row[0])


def watch(connection: Connection, table: Table, first: int, messages: int, seconds: float = 60) -> tuple[float, int]:
    """Until the first so many messages are gone; when (CLOCK_MONOTONIC), and how many then are.

    Several workers do not finish in the order of the ids: of theirs all have to be waited for.
    """
    lowest, end = first, time.monotonic() + seconds
    with connection.transaction():
        while True:
            row = connection.execute(
                f"SELECT id FROM {table.name} WHERE id >= %s ORDER BY id LIMIT 1", (lowest,)
            ).fetchone()
            now = time.monotonic()
            if row is None:
                return now, messages
            lowest = row[0]
            if lowest - first >= messages:
                return now, lowest - first
            assert now < end, f"{table.name}: {first + messages - lowest} messages are left after {seconds} s"
            time.sleep(GRAIN)


def drain(connection: Connection, table: Table, messages: int, pids: tuple[int, int] | None = None) -> Round:
    """Put at once, watch until all are gone. With the pids of a worker and its backend, their CPU is counted."""
    before = [cpu_seconds(pid) for pid in pids or ()]
    first, log_began = fill(connection, table, messages)
    began = time.monotonic()
    ended, _ = watch(connection, table, first, messages)
    log = wal_position(connection) - log_began
    spent = (cpu_seconds(pid) - start for pid, start in zip(pids or (), before, strict=True))
    return Round(messages, ended - began, log, *spent)


def only_worker(server: Appliance) -> tuple[int, int]:
    """The pids of the one generic worker and of its backend."""
    ((pid, spid),) = server.sql("SELECT pid, sql_spid FROM miq_workers WHERE type = %s AND status = 'started'", GENERIC)
    return pid, spid


def wait_idle(server: Appliance, count: int) -> None:
    """Until so many generic workers are up and all is quiet."""
    server.wait_for_workers(count, GENERIC)
    eventually(lambda: not server.sql("SELECT 1 FROM miq_queue"), seconds=60, what="an empty queue")
    time.sleep(0.3)


@contextmanager
def held(server: Appliance) -> Iterator[None]:
    """Stop the one worker while it waits, so that rows can be put and vacuumed before it sees them."""
    pid, spid = only_worker(server)
    while True:
        os.kill(pid, signal.SIGSTOP)
        if server.sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'idle'", spid):
            break
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
