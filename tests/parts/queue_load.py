"""Load for a real server whose workers, or whose database, are killed meanwhile; and what is left of it afterwards.

Messages are numbered from 1 and leave a trace (`queue_trace`): the even ones may run twice, the odd ones must not, and
every third belongs to one of seven chains, which are `task_id`s.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from miq.db import Database
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.schema import migrate
from tests.parts import queue_trace
from tests.parts.queue_trace import Run
from tests.process.appliance import Appliance, eventually, running

GENERIC = "MiqGenericWorker"
NOOPS = "INSERT INTO miq_queue (class_name, method_name) SELECT 'Diagnostics', 'noop' FROM generate_series(1, %s)"

_SETTINGS = """
server: {mold: {preload: [%s]}}
workers: {worker_base: {queue_worker_base: {generic_worker: {count: %d}}}}
"""
_PUT = (
    "INSERT INTO miq_queue (class_name, method_name, args, task_id) SELECT 'Trace',"
    " CASE WHEN n %% 2 = 0 THEN 'again' ELSE 'once' END, json_build_array(n, %s)::text,"
    " CASE WHEN n %% 3 = 0 THEN 'chain ' || n %% 7 END FROM generate_series(1, %s) n"
)
_WAITING = (
    "SELECT count(*) FROM miq_queue WHERE state IN ('ready', 'dequeue') AND class_name IN ('Trace', 'Diagnostics')"
)

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Kept:
    """A message that ended badly."""

    number: int
    method: str
    state: str
    error: str


def settings(workers: int) -> str:
    """So many generic workers, whose mold knows the methods that leave a trace."""
    return _SETTINGS % (queue_trace.__name__, workers)


def put(connection: Connection, messages: int, seconds: float) -> None:
    """Messages of so many seconds each."""
    connection.execute(_PUT, (seconds, messages))


def chains(messages: int) -> dict[int, str]:
    """The chain of each number that has one."""
    return {number: f"chain {number % 7}" for number in range(3, messages + 1, 3)}


def wait_for_all(connection: Connection, seconds: float = 50) -> None:
    """Until nothing of ours waits or is held."""
    eventually(lambda: waiting(connection) == 0, seconds=seconds, what="every message ends")


def waiting(connection: Connection) -> int:
    """How many of ours wait or are held."""
    row = connection.execute(_WAITING).fetchone()
    assert row is not None
    return int(row[0])


def kept(connection: Connection) -> list[Kept]:
    """What ended badly."""
    found = connection.execute(
        "SELECT (args::json->>0)::int, method_name, state, last_error FROM miq_queue WHERE class_name = 'Trace'"
        " AND state NOT IN ('ready', 'dequeue')"
    )
    return [Kept(*row) for row in found]


def lost(found: Iterable[Run], failed: Iterable[Kept], messages: int) -> list[int]:
    """Numbers that neither ran to their end nor are kept; and those that are kept though they may run twice."""
    ended = {run.number for run in found if run.ended is not None} | {each.number for each in failed}
    given_up = [each.number for each in failed if each.method != "once"]
    return [number for number in range(1, messages + 1) if number not in ended] + given_up


def twice(found: Iterable[Run]) -> list[int]:
    """Numbers that must not run twice, and began more than once."""
    began = Counter(run.number for run in found)
    return [number for number, times in began.items() if number % 2 and times > 1]


def kill_workers(server: Appliance, kills: int, seconds: float, chance: random.Random) -> dict[int, float]:
    """SIGKILL so many generic workers, any that lives, one after the other; when each was killed, by pid."""
    killed: dict[int, float] = {}
    while len(killed) < kills:
        pids = [row[0] for row in server.sql("SELECT pid FROM miq_workers WHERE type = %s", GENERIC)]
        if alive := [pid for pid in pids if pid is not None and pid not in killed and running(pid)]:
            pid = chance.choice(alive)
            os.kill(pid, signal.SIGKILL)
            killed[pid] = time.monotonic()
        time.sleep(seconds / kills * chance.uniform(0.2, 1.8))
    return killed


@contextmanager
def own_postgres(home: Home) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A migrated PostgreSQL that may be killed, and its address."""
    postgres = EmbeddedPostgres(home)
    database = Database(postgres.acquire())
    migrate(database, progress=lambda text: None)
    database.close()
    try:
        yield postgres, postgres.dsn()
    finally:
        postgres.release()


def kill_backend(server: Appliance, dsn: str) -> None:
    """SIGKILL the backend of a worker, which takes all others with it; until the database answers again."""
    ((backend,),) = server.sql("SELECT sql_spid FROM miq_workers WHERE type = %s AND pid IS NOT NULL LIMIT 1", GENERIC)
    os.kill(backend, signal.SIGKILL)
    eventually(lambda: _answers(dsn), seconds=30, what="crash recovery")


def _answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() is not None
    except psycopg.OperationalError:
        return False


def outage(postgres: EmbeddedPostgres, seconds: float) -> None:
    """SIGKILL the database, and start it again after so many seconds."""
    master = postgres.postmaster_pid()
    assert master is not None
    os.kill(master, signal.SIGKILL)
    time.sleep(seconds)
    eventually(postgres.ensure_running, seconds=60, what="the database is back")
