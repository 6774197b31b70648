"""The least that a Python worker can do on PostgreSQL: the limit that our queue is measured against, not a product.

A table with one index and a trigger that notifies; a loop that takes up to 100 rows, runs each, deletes them in one
statement and waits for a notification when there are none. No zones, roles, time-outs, attempts, callbacks, tasks, log
or supervision; a killed worker's rows are stuck. Run as `python -m benchmarks.minimal_queue DSN [STAMPS]`: rows with a
`t` append to the file STAMPS how many nanoseconds after it they were started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

TABLE = "minimal_queue"
BATCH = 100
NAME = "minimal queue"

SCHEMA = """
CREATE TABLE minimal_queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue text NOT NULL DEFAULT 'q',
    priority int NOT NULL DEFAULT 100, state smallint NOT NULL DEFAULT 0, run_at timestamptz NOT NULL DEFAULT now(),
    owner int, claimed_at timestamptz, payload jsonb NOT NULL);
CREATE INDEX minimal_queue_ready ON minimal_queue (queue, priority, id) WHERE state = 0;
CREATE FUNCTION minimal_queue_wake() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('minimal_queue', ''); RETURN NULL; END $$;
CREATE TRIGGER minimal_queue_wake AFTER INSERT ON minimal_queue
    FOR EACH STATEMENT EXECUTE FUNCTION minimal_queue_wake();
"""
FILL = "INSERT INTO minimal_queue (payload) SELECT jsonb_build_object('id', n) FROM generate_series(1, %s) AS n"
CLAIM = """
UPDATE minimal_queue SET state = 1, owner = %s, claimed_at = now()
 WHERE id IN (SELECT id FROM minimal_queue WHERE queue = 'q' AND state = 0 AND run_at <= now()
               ORDER BY priority, id LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING id, payload
"""


def put_one(connection: psycopg.Connection[Any], payload: dict[str, Any]) -> None:
    """One row, in a transaction of its own when the connection commits by itself."""
    connection.execute("INSERT INTO minimal_queue (payload) VALUES (%s)", (Jsonb(payload),))


def put_batch(connection: psycopg.Connection[Any], payloads: Sequence[dict[str, Any]]) -> None:
    """Many rows with one statement."""
    connection.execute(
        "INSERT INTO minimal_queue (payload) SELECT unnest(%s::jsonb[])", ([Jsonb(payload) for payload in payloads],)
    )


def work(dsn: str, stamps: str | None) -> None:
    """Take, run, delete, wait; until killed."""
    with psycopg.connect(dsn, autocommit=True, application_name=NAME) as connection:
        connection.execute("LISTEN minimal_queue")
        while True:
            rows = connection.execute(CLAIM, (os.getpid(), BATCH)).fetchall()
            for _, payload in rows:
                run(payload, stamps)
            if rows:
                connection.execute("DELETE FROM minimal_queue WHERE id = ANY(%s)", ([row[0] for row in rows],))
            else:
                for _ in connection.notifies(timeout=5, stop_after=1):
                    pass


def run(payload: dict[str, Any], stamps: str | None) -> None:
    """Nothing, or a line that says how long the row had waited."""
    put_at = payload.get("t")
    if put_at is not None and stamps is not None:
        waited = time.monotonic_ns() - put_at
        with Path(stamps).open("a") as file:
            file.write(f"{waited}\n")


@contextmanager
def workers(dsn: str, count: int, *, stamps: Path | None = None) -> Iterator[None]:
    """So many processes of the loop, all of them waiting before this goes on; ended at the end."""
    command = [sys.executable, "-m", "benchmarks.minimal_queue", dsn, *([str(stamps)] if stamps else [])]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while _idle(connection) < count:
                assert all(process.poll() is None for process in processes)
                time.sleep(0.02)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _idle(connection: psycopg.Connection[Any]) -> int:
    """How many of them have looked for rows and wait now."""
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle'"
        " AND query LIKE '%%SKIP LOCKED%%'",
        (NAME,),
    ).fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
