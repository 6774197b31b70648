"""Two hundred workers killed under load, a database killed again and again, and one that stays away: what is lost.

All figures are counts, and their bar is nought. The messages leave a trace in a file that nothing killed here can take
back (`tests/parts/queue_trace`): lost is what neither came to its end nor is kept, or is kept though it may run twice;
twice is what must not run twice and began a second time, or ran beside another one of its `task_id`; left is what still
waits or is held when all should be over, and rows of workers that have no process.
"""

from __future__ import annotations

import random
import sys
import time

import psycopg

from benchmarks.figures import Figure, progress, tell
from benchmarks.stand import fresh_home
from miq.paths import Home
from tests.parts.queue_load import (
    GENERIC,
    Connection,
    chains,
    kept,
    kill_backend,
    kill_workers,
    lost,
    outage,
    own_postgres,
    put,
    settings,
    twice,
    wait_for_all,
    waiting,
)
from tests.parts.queue_trace import overlaps, runs
from tests.process.appliance import appliance, running

WORKERS, SECONDS_EACH = 4, 0.015
KILLS, KILLING = 200, 40.0
POSTGRES_KILLS, AWAY = 5, 20.0
#: seconds after which what is not over never will be
LIMIT = 60.0


def settle(connection: Connection) -> int:
    """Until all is over; how many are not."""
    try:
        wait_for_all(connection, LIMIT)
    except AssertionError:
        progress(f"{waiting(connection)} messages are left after {LIMIT:.0f} s")
    return waiting(connection)


def kills(home: Home) -> list[Figure]:
    """Workers die."""
    messages = 12_000
    with own_postgres(home) as (_, dsn), appliance(dsn, home.path, settings=settings(WORKERS)) as server:
        server.wait_for_workers(WORKERS, GENERIC)
        put(server.connection, messages, SECONDS_EACH)
        killed = kill_workers(server, KILLS, KILLING, random.Random(200))
        left = settle(server.connection)
        server.wait_for_workers(WORKERS, GENERIC)
        pids = [row[0] for row in server.sql("SELECT pid FROM miq_workers")]
        found, failed = runs(home.path), kept(server.connection)
        at_work = sum(run.ended is None for run in found)
        progress(f"{len(killed)} workers killed, {at_work} of them at work; {len(failed)} messages end as error")
        assert max(run.began for run in found) > max(killed.values()), "the last was killed when all was over"
        return [
            Figure("kills_lost", len(lost(found, failed, messages)), "messages", 0),
            Figure("kills_twice", len(twice(found)) + len(overlaps(found, chains(messages), killed)), "messages", 0),
            Figure("kills_left", left + sum(not running(pid) for pid in pids), "rows", 0),
        ]


def kill9_postgres(home: Home) -> Figure:
    """Backends die, and with each of them every connection."""
    messages = 4_000
    with own_postgres(home) as (_, dsn), appliance(dsn, home.path, settings=settings(WORKERS)) as server:
        server.wait_for_workers(WORKERS, GENERIC)
        put(server.connection, messages, SECONDS_EACH)
        for _ in range(POSTGRES_KILLS):
            time.sleep(1.5)
            with psycopg.connect(dsn, autocommit=True) as server.connection:
                kill_backend(server, dsn)
        return after(dsn, home, "kill9_postgres_lost", messages)


def away(home: Home) -> Figure:
    """The database stays away."""
    messages = 2_000
    with own_postgres(home) as (postgres, dsn), appliance(dsn, home.path, settings=settings(WORKERS)) as server:
        server.wait_for_workers(WORKERS, GENERIC)
        put(server.connection, messages, SECONDS_EACH)
        time.sleep(1.5)
        outage(postgres, AWAY)
        return after(dsn, home, "outage_lost", messages)


def after(dsn: str, home: Home, name: str, messages: int) -> Figure:
    """What is lost, ran twice or is left: the messages do not work in the database, so none may end badly either."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        left = settle(connection)
        found, failed = runs(home.path), kept(connection)
    progress(f"{name}: {len(found)} runs of {messages} messages, {len(failed)} end badly, {left} are left")
    wrong = len(twice(found)) + len(overlaps(found, chains(messages), {}))
    return Figure(name, len(lost(found, [], messages)) + wrong + left, "messages", 0)


def main() -> int:
    """Three servers, one after the other, each with a database of its own."""
    figures: list[Figure] = []
    with fresh_home() as home:
        figures += kills(home)
    with fresh_home() as home:
        figures.append(kill9_postgres(home))
    with fresh_home() as home:
        figures.append(away(home))
    return tell(figures)


if __name__ == "__main__":
    sys.exit(main())
