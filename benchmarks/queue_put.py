"""Putting messages: `put_now` and `put_many` against the featureless queue's inserts, in turn.

One by one each message is committed by itself, on both sides on an open connection; ours with everything that a put
does: the zone is looked up, the row has all its columns, a line goes to the log file. The other side sends one INSERT
of one JSON column. `put` in a session of its own, which takes three round trips, is told beside them. In batches of
1,000 `put_many` stands against one INSERT of an array. Nobody listens, both triggers notify. The tables are emptied
before every round, so that both write the same pages anew.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import psycopg

from benchmarks import minimal_queue
from benchmarks.figures import Figure, progress, tell
from benchmarks.queue_rounds import MINIMAL, OURS, Round, told, wal_position
from benchmarks.stand import fresh_home, migrated, seed
from miq import log
from miq.db import Database
from miq.queue.message import Message, Origin
from miq.queue.put import put, put_many, put_now

ONES, BATCHED, BATCH, ROUNDS = 1_000, 50_000, 1_000, 5

Connection = psycopg.Connection[Any]


def our_ones(database: Database, connection: Connection) -> None:
    """As a caller in zone `default` puts."""
    for number in range(ONES):
        with database.session() as session:
            session.info["zone"] = "default"
            put(session, Message("Diagnostics", "noop", [number]))


def our_ones_at_once(database: Database, connection: Connection) -> None:
    """By `put_now`, which has no session: for whoever changes nothing else."""
    for number in range(ONES):
        put_now(database, Message("Diagnostics", "noop", [number]), Origin("default"))


def our_batches(database: Database, connection: Connection) -> None:
    """The same, a thousand at a time."""
    for start in range(0, BATCHED, BATCH):
        with database.session() as session:
            session.info["zone"] = "default"
            put_many(session, [Message("Diagnostics", "noop", [start + number]) for number in range(BATCH)])


def minimal_ones(database: Database, connection: Connection) -> None:
    """One INSERT each, committed by itself."""
    for number in range(ONES):
        minimal_queue.put_one(connection, {"id": number})


def minimal_batches(database: Database, connection: Connection) -> None:
    """One INSERT of a thousand."""
    for start in range(0, BATCHED, BATCH):
        minimal_queue.put_batch(connection, [{"id": start + number} for number in range(BATCH)])


Side = Callable[[Database, Connection], None]


def compare(database: Database, connection: Connection, sides: Sequence[Side], messages: int) -> float:
    """The rate of the first side over that of the last, medians; one round of each goes before, unmeasured."""
    found: dict[Side, list[Round]] = {side: [] for side in sides}
    for number in range(ROUNDS + 1):
        for side in sides if number % 2 == 0 else reversed(sides):
            connection.execute(f"TRUNCATE {OURS.name}, {MINIMAL.name}")
            connection.execute("CHECKPOINT")
            log_began, began = wal_position(connection), time.monotonic()
            side(database, connection)
            seconds = time.monotonic() - began
            if number:
                found[side].append(Round(messages, seconds, wal_position(connection) - log_began))
    for side, rounds in found.items():
        progress(
            f"{side.__name__}: {told(rounds, lambda each: each.rate)} messages/s,"
            f" {told(rounds, lambda each: each.wal / each.messages)} B of WAL each"
        )
    return median(each.rate for each in found[sides[0]]) / median(each.rate for each in found[sides[-1]])


def main() -> int:
    """One by one, then in batches."""
    with fresh_home() as home, migrated(home) as dsn:
        seed(dsn, home)
        log.configure(home.log_file)
        database = Database(dsn, "MIQ bench")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(minimal_queue.SCHEMA)
            one = compare(database, connection, (our_ones_at_once, our_ones, minimal_ones), ONES)
            batch = compare(database, connection, (our_batches, minimal_batches), BATCHED)
        database.close()
    return tell(
        [
            Figure("put_one_vs_minimal", one, "ratio", 0.45, least=True),
            Figure("put_batch_vs_minimal", batch, "ratio", 0.5, least=True),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
