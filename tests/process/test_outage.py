"""The database goes away under load: workers outlive it, nothing is lost, the server supervises on."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from miq.db import Database
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.schema import migrate
from tests.process.appliance import appliance, eventually

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def own_postgres() -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A PostgreSQL that this test may kill."""
    with tempfile.TemporaryDirectory(prefix="miq-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(Home(Path(folder)).make())
        dsn = postgres.acquire()
        database = Database(dsn)
        migrate(database, progress=lambda text: None)
        database.close()
        yield postgres, dsn
        postgres.release()


def test_workers_outlive_a_killed_database(own_postgres: tuple[EmbeddedPostgres, str], tmp_path: Path) -> None:
    postgres, dsn = own_postgres
    with appliance(dsn, tmp_path / "home") as server:
        pids = {row[3] for row in server.wait_for_workers(3)}
        server.sql(
            "INSERT INTO miq_queue (class_name, method_name, args)"
            " SELECT 'Diagnostics', CASE WHEN n % 2 = 0 THEN 'sleep' ELSE 'once' END, '[0.02]'"
            " FROM generate_series(1, 200) n",
        )
        time.sleep(0.5)
        master = postgres.postmaster_pid()
        assert master is not None
        os.kill(master, signal.SIGKILL)
        time.sleep(3)
        eventually(postgres.ensure_running, seconds=30)
        with psycopg.connect(dsn, autocommit=True) as connection:
            eventually(
                lambda: (
                    connection.execute("SELECT count(*) FROM miq_queue WHERE state IN ('ready', 'dequeue')").fetchone()
                    == (0,)
                ),
                seconds=40,
                what="every message ends",
            )
            failed = connection.execute("SELECT method_name, last_error FROM miq_queue").fetchall()
            assert [row for row in failed if row[0] == "sleep"] == [], "an idempotent message always ends well"
            assert len(failed) <= 2, "at most what was in hand"
            assert {row[0] for row in connection.execute("SELECT pid FROM miq_workers").fetchall()} == pids
            spids = connection.execute(
                "SELECT count(*) FROM miq_workers w JOIN pg_stat_activity a ON a.pid = w.sql_spid"
            ).fetchone()
            assert spids == (3,)
        assert server.process.poll() is None
        assert server.process.pid and server.stop() == 0


def test_a_worker_that_dies_during_the_outage_is_replaced_after_it(
    own_postgres: tuple[EmbeddedPostgres, str], tmp_path: Path
) -> None:
    postgres, dsn = own_postgres
    with appliance(dsn, tmp_path / "home") as server:
        victim = server.wait_for_workers(3)[0]
        master = postgres.postmaster_pid()
        assert master is not None
        os.kill(master, signal.SIGKILL)
        time.sleep(0.5)
        os.kill(victim[3], signal.SIGKILL)
        time.sleep(1)
        eventually(postgres.ensure_running, seconds=30)
        with psycopg.connect(dsn, autocommit=True) as connection:
            eventually(
                lambda: (
                    connection.execute(
                        "SELECT count(*) FROM miq_workers WHERE status = 'started' AND id <> %s", (victim[0],)
                    ).fetchone()
                    == (3,)
                ),
                seconds=20,
                what="the replacement",
            )
            exits = connection.execute("SELECT signal FROM miq_worker_exits WHERE pid = %s", (victim[3],)).fetchall()
            assert exits == [(9,)]


def test_the_server_restarts_its_embedded_database(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="miq-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        home = Home(Path(folder)).make()
        postgres = EmbeddedPostgres(home)
        database = Database(postgres.acquire())
        migrate(database, progress=lambda text: None)
        database.close()
        dsn = postgres.dsn()
        with appliance(dsn, home.path, DATABASE_URL="") as server:
            pids = {row[3] for row in server.wait_for_workers(3)}
            postgres.release()
            assert postgres.is_running(), "the server is a user too"
            master = postgres.postmaster_pid()
            assert master is not None
            os.kill(master, signal.SIGKILL)
            eventually(lambda: postgres.postmaster_pid() not in (None, master), seconds=30, what="another postmaster")

            def workers() -> set[int]:
                try:
                    with psycopg.connect(dsn, autocommit=True) as connection:
                        return {row[0] for row in connection.execute("SELECT pid FROM miq_workers").fetchall()}
                except psycopg.OperationalError:
                    return set()

            eventually(lambda: workers() == pids, seconds=20, what="the same workers")
            assert server.stop() == 0
        assert not postgres.is_running(), "the last user stops it"
