"""What a message costs the database: WAL and commits, beside a long queue, and beside an open report.

One real worker drains 20,000 messages in every round.

- WAL and commits: counted from the filling's commit on, the server's and the schedule worker's own included.
- A long queue: the first 20,000 of 1,000,000 against 20,000 of 20,000. The worker is stopped while the rows are put,
  vacuumed and checkpointed, and let go at once, so that no filling is in the measure.
- An open report: 20,000 after 20,000 that were drained before and not vacuumed, beside a REPEATABLE READ transaction
  with a transaction id, under which nothing dead can be taken out, against the same without it.

Both comparisons take the time per message and the CPU time of the worker's backend, and tell the worse of the two.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psycopg

from benchmarks.figures import Figure, progress, tell
from benchmarks.queue_rounds import (
    OURS,
    Connection,
    Round,
    drain,
    fill,
    held,
    only_worker,
    tidy,
    told,
    wait_idle,
    watch,
)
from benchmarks.stand import cpu_seconds, fresh_home, migrated
from tests.process.appliance import Appliance, appliance, eventually

MESSAGES, BACKLOG, ROUNDS = 20_000, 1_000_000, 5
SETTINGS = "workers: {worker_base: {queue_worker_base: {generic_worker: {count: 1}}}}"


@contextmanager
def open_report(dsn: str) -> Iterator[None]:
    """A transaction that sees the database as it is now, and wrote something: it holds up every vacuum."""
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT pg_current_xact_id()")
        yield


def commits(server: Appliance) -> int:
    """Transactions of this database. Backends tell their counts a second later, with the next statement."""
    time.sleep(1.2)
    server.sql("INSERT INTO miq_queue (class_name, method_name) VALUES ('Diagnostics', 'noop')")
    eventually(lambda: not server.sql("SELECT 1 FROM miq_queue"), what="the message is gone")
    time.sleep(0.1)
    server.sql("SELECT pg_stat_force_next_flush()")
    ((count,),) = server.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return int(count)


def plain(server: Appliance, connection: Connection) -> tuple[list[Round], float]:
    """Drains of an otherwise empty queue, and the commits of a message."""
    rounds, counts = [], []
    for _ in range(ROUNDS):
        tidy(connection, OURS)
        before = commits(server)
        rounds.append(drain(connection, OURS, MESSAGES, only_worker(server)))
        counts.append((commits(server) - before) / MESSAGES)
    progress(
        f"plain: {told(rounds, lambda each: each.wal / each.messages)} B of WAL a message,"
        f" commits a message {median(counts):.4f} [{min(counts):.4f}..{max(counts):.4f}]"
    )
    return rounds, median(counts)


def of_backlog(server: Appliance, connection: Connection, backlog: int) -> Round:
    """The first 20,000 of so many that stand there; the others are taken away."""
    connection.execute("TRUNCATE miq_queue")
    pids = only_worker(server)
    with held(server):
        first, _ = fill(connection, OURS, backlog)
        tidy(connection, OURS)
        before = [cpu_seconds(pid) for pid in pids]
        began = time.monotonic()
    ended, done = watch(connection, OURS, first, MESSAGES)
    spent = [cpu_seconds(pid) - start for pid, start in zip(pids, before, strict=True)]
    connection.execute("TRUNCATE miq_queue")
    return Round(done, ended - began, 0.0, *spent)


def after_another(server: Appliance, connection: Connection) -> Round:
    """The second of two drains without a vacuum in between."""
    pids = only_worker(server)
    drain(connection, OURS, MESSAGES)
    return drain(connection, OURS, MESSAGES, pids)


def cost(name: str, rounds: list[Round], base: list[Round]) -> float:
    """How much dearer the rounds are than the base: in time or in CPU time of the backend, whichever is more."""
    for label, each in (("with", rounds), ("without", base)):
        progress(
            f"{name}, {label}: {told(each, lambda r: r.micro(r.seconds), 1)} us a message,"
            f" backend {told(each, lambda r: r.micro(r.backend_cpu), 1)} us CPU,"
            f" worker {told(each, lambda r: r.micro(r.worker_cpu), 1)} us CPU"
        )
    return max(
        median(each.micro(each.seconds) for each in rounds) / median(each.micro(each.seconds) for each in base),
        median(each.micro(each.backend_cpu) for each in rounds) / median(each.micro(each.backend_cpu) for each in base),
    )


def measure(server: Appliance, dsn: str) -> list[Figure]:
    """All of it, what is compared in turn."""
    long, short, beside, free = [], [], [], []
    with psycopg.connect(dsn, autocommit=True) as connection:
        drain(connection, OURS, MESSAGES)
        rounds, each_commits = plain(server, connection)
        for _ in range(ROUNDS):
            short.append(of_backlog(server, connection, MESSAGES))
            long.append(of_backlog(server, connection, BACKLOG))
            tidy(connection, OURS)
            free.append(after_another(server, connection))
            tidy(connection, OURS)
            with open_report(dsn):
                beside.append(after_another(server, connection))
    return [
        Figure("wal_per_message", median(each.wal / each.messages for each in rounds), "B", 700),
        Figure("commits_per_message", each_commits, "commits", 0.05),
        Figure("backlog_cost", cost("a backlog of 1,000,000", long, short), "ratio", 1.2),
        Figure("open_report_cost", cost("an open report", beside, free), "ratio", 1.3),
    ]


def main() -> int:
    """One server, one worker."""
    with fresh_home() as home, migrated(home) as dsn, appliance(dsn, home.path, settings=SETTINGS) as server:
        wait_idle(server, 1)
        figures = measure(server, dsn)
        assert server.stop(seconds=60) == 0
    return tell(figures)


if __name__ == "__main__":
    sys.exit(main())
