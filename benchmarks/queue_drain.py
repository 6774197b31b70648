"""Draining 20,000 messages: a real server's workers against the featureless loop, in turn, with 1 and with 4 processes.

What is fair: both stand in one database of one PostgreSQL; both sets of processes are up and wait, ours forked by a
`miq-server` with its schedule worker, log file and everything else on; the rows come in one transaction, so that all
become visible at its commit and one notification wakes everybody. The clock runs from the commit's return until the
last row is gone, so the waking counts and the starting of processes does not. Neither keeps anything: a message is
over when its row is deleted. One round of each, unmeasured, lets both prepare their statements.

What is not the same: the loop takes 100 rows at a time, which is how the figure is defined, and ours up to
`prefetch_max_per_worker`. A loop that takes as many is faster still: `minimal_queue.BATCH` tries it out.
"""

from __future__ import annotations

import sys
from statistics import median

import psycopg

from benchmarks import minimal_queue
from benchmarks.figures import Figure, progress, tell
from benchmarks.queue_rounds import MINIMAL, OURS, Round, Table, drain, tidy, told, wait_idle
from benchmarks.stand import fresh_home, migrated
from miq.paths import Home
from tests.process.appliance import appliance

MESSAGES, ROUNDS, WARM = 20_000, 7, 5_000
SETTINGS = "workers: {worker_base: {queue_worker_base: {generic_worker: {count: %d}}}}"


def compare(dsn: str, home: Home, count: int) -> float:
    """Our rate over that of the loop, medians."""
    found: dict[Table, list[Round]] = {OURS: [], MINIMAL: []}
    with (
        appliance(dsn, home.path, settings=SETTINGS % count) as server,
        minimal_queue.workers(dsn, count),
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        wait_idle(server, count)
        for table in found:
            drain(connection, table, WARM)
        for number in range(ROUNDS):
            for table in (OURS, MINIMAL) if number % 2 == 0 else (MINIMAL, OURS):
                tidy(connection, OURS, MINIMAL)
                found[table].append(drain(connection, table, MESSAGES))
        assert server.stop(seconds=60) == 0
    for table, rounds in found.items():
        progress(
            f"{table.name}, {count} workers: {told(rounds, lambda each: each.rate)} messages/s,"
            f" {told(rounds, lambda each: each.wal / each.messages)} B of WAL each"
        )
    ours, minimal = (median(each.rate for each in found[table]) for table in (OURS, MINIMAL))
    return ours / minimal


def main() -> int:
    """One worker, then four."""
    with fresh_home() as home, migrated(home) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(minimal_queue.SCHEMA)
        one, four = (compare(dsn, home, count) for count in (1, 4))
    return tell(
        [
            Figure("drain_1_vs_minimal", one, "ratio", 0.7, least=True),
            Figure("drain_4_vs_minimal", four, "ratio", 0.7, least=True),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
