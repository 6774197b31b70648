"""From `put_now` to the first line of the method, in a real server whose workers wait.

The clock starts before the put and its commit, and stops in the method itself (`benchmarks.queue_methods`, which the
mold preloads). 300 messages, 20 to 80 ms after the one before at random, so that workers have gone back to waiting and
no timer is met in step. In turn with them, in blocks of 60, go as many through the featureless loop, for the limit of
the machine, and as many by `put` in a session of its own; both are told, not held to a bar. The loop has a database of
its own on the same server: PostgreSQL wakes whoever listens in a database for every notification in it.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import psycopg

from benchmarks import minimal_queue
from benchmarks.figures import Figure, percentile, progress, tell
from benchmarks.queue_rounds import wait_idle
from benchmarks.stand import fresh_home, migrated
from miq.db import Database
from miq.paths import Home
from miq.queue.message import Message, Origin
from miq.queue.put import put, put_now
from tests.process.appliance import appliance, eventually

BLOCK, BLOCKS, WORKERS = 60, 6, 2
MESSAGES, WARM = BLOCK * (BLOCKS - 1), BLOCK
GAP = (0.02, 0.08)
SETTINGS = "server: {mold: {preload: [benchmarks.queue_methods]}}"
#: the ways a message is put; each has a file of its own name
PUT, NOW, LOOP = "put", "put_now", "loop"


def send(dsn: str, loop_dsn: str, blocks: int) -> None:
    """So many blocks of each way, in turn."""
    chance = random.Random(7)
    database = Database(dsn, "MIQ bench")
    with psycopg.connect(loop_dsn, autocommit=True) as connection:

        def in_session() -> None:
            began = time.monotonic_ns()
            with database.session() as session:
                session.info["zone"] = "default"
                put(session, Message("Bench", "stamp", [began, PUT]))

        def now() -> None:
            put_now(database, Message("Bench", "stamp", [time.monotonic_ns(), NOW]), Origin("default"))

        def loop() -> None:
            minimal_queue.put_one(connection, {"t": time.monotonic_ns()})

        for _ in range(blocks):
            for way in (now, loop, in_session):
                for _ in range(BLOCK):
                    time.sleep(chance.uniform(*GAP))
                    way()
    database.close()


def milliseconds(home: Home, way: str) -> list[float]:
    """What was noted so far."""
    file = home.path / way
    return [int(line) / 1e6 for line in file.read_text().splitlines()] if file.exists() else []


def measure(dsn: str, loop_dsn: str, home: Home) -> list[float]:
    """Milliseconds of `put_now`; the others are told."""
    with (
        appliance(dsn, home.path, settings=SETTINGS, PYTHONPATH=str(Path.cwd())) as server,
        minimal_queue.workers(loop_dsn, WORKERS, stamps=home.path / LOOP),
    ):
        wait_idle(server, WORKERS)
        send(dsn, loop_dsn, BLOCKS)
        eventually(
            lambda: all(len(milliseconds(home, way)) == WARM + MESSAGES for way in (PUT, NOW, LOOP)),
            what="all have started",
        )
        assert server.stop(seconds=60) == 0
    for way in (PUT, NOW, LOOP):
        values = milliseconds(home, way)[WARM:]
        progress(
            f"{way}: {min(values):.2f}..{max(values):.2f} ms, p50 {percentile(values, 0.5):.2f},"
            f" p95 {percentile(values, 0.95):.2f}, p99 {percentile(values, 0.99):.2f}"
        )
    return milliseconds(home, NOW)[WARM:]


def main() -> int:
    """One server with its default workers."""
    with fresh_home() as home, migrated(home) as dsn:
        loop_dsn = psycopg.conninfo.make_conninfo(dsn, dbname="loop")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE loop")
        with psycopg.connect(loop_dsn, autocommit=True) as connection:
            connection.execute(minimal_queue.SCHEMA)
        values = measure(dsn, loop_dsn, home)
    return tell(
        [
            Figure("latency_p50_ms", percentile(values, 0.5), "ms", 3),
            Figure("latency_p95_ms", percentile(values, 0.95), "ms", 6),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
