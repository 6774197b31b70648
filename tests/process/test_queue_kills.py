"""Workers and databases are killed under load: every message ends, none that must not run twice does.

Real servers, forks and signals. The messages leave a trace that outlives whatever is killed (`tests/parts/queue_trace`,
`tests/parts/queue_load`).
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.server.validation import OVERDUE
from tests.parts import queue_load as load
from tests.parts.queue_load import (
    GENERIC,
    NOOPS,
    Kept,
    chains,
    kept,
    kill_workers,
    lost,
    put,
    settings,
    twice,
    wait_for_all,
)
from tests.parts.queue_trace import Run, overlaps, runs, whom_told
from tests.process.appliance import Appliance, appliance, eventually, running

pytestmark = pytest.mark.timeout(120)


def test_sixty_kills_lose_nothing_and_run_nothing_twice(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home", settings=settings(4)) as server:
        server.wait_for_workers(4, GENERIC)
        put(server.connection, 2600, 0.02)
        server.sql(NOOPS, 1000)
        killed = kill_workers(server, 60, 10, random.Random(60))
        wait_for_all(server.connection)
        found, failed = runs(server.home), kept(server.connection)
        assert max(run.began for run in found) > max(killed.values()), "they were killed at work"
        assert (lost(found, failed, 2600), twice(found)) == ([], [])
        assert all(each.state == "error" and "SIGKILL" in each.error for each in failed)
        assert server.sql("SELECT 1 FROM miq_queue WHERE class_name = 'Diagnostics' OR state = 'dequeue'") == []
        server.wait_for_workers(4, GENERIC)
        assert all(running(row[0]) for row in server.sql("SELECT pid FROM miq_workers"))
        assert server.sql("SELECT count(*) FROM miq_worker_exits WHERE pid = ANY(%s)", list(killed)) == [(60,)]
        assert server.stop() == 0


def test_a_claim_that_outlives_its_worker_takes_nothing_away(dsn: str, tmp_path: Path) -> None:
    """The worker is killed while its claim waits in the database, and is swept before the claim goes on."""
    with appliance(dsn, tmp_path / "home", settings=settings(1)) as server, psycopg.connect(dsn) as locker:
        ((_, _, _, pid, _),) = server.wait_for_workers(1, GENERIC)
        put(locker, 4, 0)
        locker.execute("LOCK TABLE miq_queue IN SHARE MODE")
        server.sql("SELECT pg_notify('miq_queue:generic', '')")
        waits = (
            "SELECT 1 FROM pg_stat_activity JOIN miq_workers ON sql_spid = pg_stat_activity.pid"
            " WHERE miq_workers.pid = %s AND wait_event_type = 'Lock'"
        )
        eventually(lambda: server.sql(waits, pid), seconds=5, what="its claim waits")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.sql("SELECT 1 FROM miq_worker_exits WHERE pid = %s", pid), what="its end is recorded")
        locker.commit()
        wait_for_all(server.connection, seconds=5)
        assert kept(server.connection) == []


def test_a_callback_that_nobody_can_read_does_not_harm_the_server(dsn: str, tmp_path: Path) -> None:
    """The server puts the callback of a message whose worker died, whatever stands there."""
    with appliance(dsn, tmp_path / "home", settings=settings(1)) as server:
        ((_, _, _, pid, _),) = server.wait_for_workers(1, GENERIC)
        server.sql(
            "INSERT INTO miq_queue (class_name, method_name, args, miq_callback)"
            " VALUES ('Trace', 'once', '[1, 60]', %s)",
            '{"class_name": "Trace", "method_name": "told", "instance_id": "text"}',
        )
        begun(server, 1)
        os.kill(pid, signal.SIGKILL)
        wait_for_all(server.connection, seconds=10)
        assert [each.state for each in kept(server.connection)] == ["error"]
        assert server.wait_for_workers(1, GENERIC)[0][3] != pid
        assert server.stop() == 0


@pytest.fixture
def own_postgres() -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A PostgreSQL that this test may kill."""
    with tempfile.TemporaryDirectory(prefix="miq-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with load.own_postgres(Home(Path(folder)).make()) as own:
            yield own


def test_a_database_that_is_killed_and_stays_away_under_load(
    own_postgres: tuple[EmbeddedPostgres, str], tmp_path: Path
) -> None:
    """First one backend, which takes all others with it, then the whole server, for eight seconds."""
    postgres, dsn = own_postgres
    with appliance(dsn, tmp_path / "home", settings=settings(4)) as server:
        workers = {row[3] for row in server.wait_for_workers(4, GENERIC)}
        put(server.connection, 2000, 0.01)
        time.sleep(1)
        load.kill_backend(server, dsn)
        time.sleep(1.5)
        began = len(runs(server.home))
        load.outage(postgres, 8)
        with psycopg.connect(dsn, autocommit=True) as connection:
            wait_for_all(connection)
            found = runs(server.home)
            assert (lost(found, [], 2000), twice(found)) == ([], []), "their ends were kept, and written later"
            assert overlaps(found, chains(2000), {}) == []
            assert 100 < began < 1900, "it went away under load, both times"
            alive = connection.execute("SELECT pid FROM miq_workers WHERE type = %s", (GENERIC,)).fetchall()
            assert {row[0] for row in alive} == workers
        assert server.stop() == 0


def test_messages_of_one_task_id_do_not_overlap_while_workers_are_killed(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home", settings=settings(4)) as server:
        server.wait_for_workers(4, GENERIC)
        put(server.connection, 900, 0.02)
        killed = kill_workers(server, 20, 4, random.Random(20))
        wait_for_all(server.connection)
        found = runs(server.home)
        assert (lost(found, kept(server.connection), 900), twice(found)) == ([], [])
        assert overlaps(found, chains(900), killed) == []
        assert len({run.pid for run in found}) > 4, "it went from one worker to another"


def test_the_checks_find_what_they_look_for() -> None:
    one, inside, behind = Run(1, 11, 1.0, 3.0), Run(2, 12, 2.0, 2.5), Run(3, 13, 3.0, 4.0)
    broken_off, after = Run(4, 14, 5.0), Run(5, 15, 5.5, 6.0)
    chain = dict.fromkeys(range(1, 6), "chain")
    assert overlaps([behind, one], chain, {}) == []
    assert overlaps([behind, inside, one], chain, {}) == [(one, inside)]
    assert overlaps([inside, one], {1: "a", 2: "b"}, {}) == overlaps([inside, one], {1: "a"}, {}) == []
    assert overlaps([broken_off, after], chain, {14: 5.6}) == [(broken_off, after)]
    assert overlaps([broken_off, after], chain, {14: 5.4}) == []
    assert lost([one, inside, broken_off], [], 4) == [3, 4]
    assert lost([one, inside], [Kept(3, "once", "error", "it died")], 3) == []
    assert lost([one], [Kept(2, "again", "error", "it died")], 2) == [2]
    assert twice([one, inside, inside, behind, behind]) == [3]


# -- one that runs for long, and what is held behind it ----------------------------------------------------------------


def begun(server: Appliance, number: int) -> Run:
    """The message's run, as soon as there is one."""
    (run,) = eventually(
        lambda: [run for run in runs(server.home) if run.number == number], what=f"message {number} begins"
    )
    return run


def put_before(server: Appliance, first: str) -> None:
    """A message, and sixty short ones behind it, for workers that have learnt to take many at once."""
    for _ in range(2):
        server.sql(NOOPS, 3000)
        wait_for_all(server.connection)
    with server.connection.transaction():
        server.sql(first)
        put(server.connection, 60, 0.001)


def held_by(server: Appliance, pid: int) -> int:
    """How many messages a worker has taken."""
    ((count,),) = server.sql(
        "SELECT count(*) FROM miq_queue JOIN miq_workers w ON w.id = handler_id WHERE w.pid = %s", pid
    )
    return int(count)


def test_a_message_that_hangs_in_c_is_ended_by_the_server(dsn: str, tmp_path: Path) -> None:
    """Its worker cannot give back what it holds either: that is taken by others as soon as the worker is ended."""
    with appliance(dsn, tmp_path / "home", settings=settings(2)) as server:
        server.wait_for_workers(2, GENERIC)
        put_before(
            server,
            "INSERT INTO miq_queue (class_name, method_name, args, msg_timeout, priority, miq_callback) VALUES"
            """ ('Trace', 'hang', '[1000]', 2, 50, '{"class_name": "Trace", "method_name": "told", "args": [1000]}')""",
        )
        hanging = begun(server, 1000)
        assert held_by(server, hanging.pid) > 20
        ((task,),) = server.sql(
            "INSERT INTO miq_tasks (name, state, status) VALUES ('try', 'Queued', 'Ok') RETURNING id"
        )
        server.sql(
            "INSERT INTO miq_queue (class_name, method_name, args, msg_timeout, priority, miq_task_id)"
            " VALUES ('Trace', 'hang', '[1001]', 2, 50, %s)",
            task,
        )
        wait_for_all(server.connection, seconds=20)
        failed = sorted(kept(server.connection), key=lambda each: each.number)
        assert [(each.number, each.state) for each in failed] == [(1000, "timeout"), (1001, "timeout")]
        assert all("timed out" in each.error for each in failed)
        eventually(lambda: whom_told(server.home) == [(1000, "timeout")], what="the callback is told, once")
        assert server.sql("SELECT state, status FROM miq_tasks") == [("Finished", "Timeout")]
        assert not running(hanging.pid)
        short = [run for run in runs(server.home) if run.number < 1000]
        assert sorted(run.number for run in short) == list(range(1, 61))
        ended_at = hanging.began + 2 + OVERDUE
        assert all(run.ended is not None and run.ended < ended_at + 2 and run.pid != hanging.pid for run in short)


def test_a_slow_message_does_not_keep_the_short_ones_behind_it(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home", settings=settings(2)) as server:
        server.wait_for_workers(2, GENERIC)
        put_before(
            server,
            "INSERT INTO miq_queue (class_name, method_name, args, priority) VALUES ('Trace', 'once', '[1001, 5]', 50)",
        )
        slow = begun(server, 1001)
        assert held_by(server, slow.pid) > 20, "its worker holds the short ones"
        wait_for_all(server.connection, seconds=20)
        assert kept(server.connection) == []
        found = runs(server.home)
        (slow,) = [run for run in found if run.number == 1001]
        short = [run for run in found if run.number != 1001]
        assert slow.ended is not None and slow.ended - slow.began >= 5
        assert sorted(run.number for run in short) == list(range(1, 61))
        assert all(run.ended is not None and run.ended < slow.ended and run.pid != slow.pid for run in short)
