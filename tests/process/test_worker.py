"""`miq-worker`: one worker by hand, beside a server and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.process.appliance import appliance, eventually, running

pytestmark = pytest.mark.timeout(120)

COMMAND = [sys.executable, "-m", "miq.workers.bin.worker"]


def run(dsn: str, home: Path, *arguments: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "MIQ_HOME": str(home), "DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@contextmanager
def started(dsn: str, home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "MIQ_HOME": str(home), "DATABASE_URL": dsn}
    with subprocess.Popen([*COMMAND, *arguments], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def sql(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_list(dsn: str, tmp_path: Path) -> None:
    listed = json.loads(run(dsn, tmp_path / "home", "-l", "--json").stdout)
    assert {"MiqGenericWorker", "MiqScheduleWorker", "Amazon::CloudManager::RefreshWorker"} <= {
        each["class"] for each in listed
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["NoSuchWorker"], "unknown worker class 'NoSuchWorker'"),
        ([], "which worker class"),
        (["Amazon::CloudManager::RefreshWorker"], "works for one manager"),
        (["Amazon::CloudManager::RefreshWorker", "99"], "no manager has the id 99"),
        (["MiqGenericWorker", "1"], "belongs to no manager"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(dsn: str, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(dsn, tmp_path / "home", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert sql(dsn, "SELECT count(*) FROM miq_workers") == [(0,)]


def test_without_a_server_it_delivers_one_message_and_leaves_nothing(dsn: str, tmp_path: Path) -> None:
    sql(dsn, "INSERT INTO miq_queue (class_name, method_name) VALUES ('Diagnostics', 'noop'), ('Diagnostics', 'noop')")
    done = run(dsn, tmp_path / "home", "--once", "MiqGenericWorker")
    assert done.returncode == 0, done.stderr
    assert sql(dsn, "SELECT count(*) FROM miq_queue") == [(1,)]
    assert sql(dsn, "SELECT count(*) FROM miq_workers") == [(0,)]
    assert sql(dsn, "SELECT type, exit_code, reason FROM miq_worker_exits") == [("MiqGenericWorker", 0, "run by hand")]
    assert not list((tmp_path / "home" / "run" / "slots").iterdir())


def test_dry_run_says_what_it_would_take_and_takes_nothing(dsn: str, tmp_path: Path) -> None:
    sql(dsn, "INSERT INTO miq_queue (class_name, method_name) VALUES ('Diagnostics', 'noop')")
    done = run(dsn, tmp_path / "home", "--dry-run", "--json", "MiqGenericWorker")
    assert done.returncode == 0
    assert "Diagnostics.noop" in json.loads(done.stdout)["would_take"][0]
    assert sql(dsn, "SELECT state FROM miq_queue") == [("ready",)]
    assert sql(dsn, "SELECT count(*) FROM miq_workers") == [(0,)]


def test_a_guid_of_ones_own_and_a_liveness_file(dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(dsn, home, "--guid", "my-guid", "--heartbeat", "MiqGenericWorker") as process:
        eventually(lambda: sql(dsn, "SELECT 1 FROM miq_workers WHERE guid = 'my-guid' AND status = 'started'"))
        assert sql(dsn, "SELECT unsupervised, pid FROM miq_workers") == [(True, process.pid)]
        eventually(lambda: (home / "run" / "my-guid.hb").is_file())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert sql(dsn, "SELECT count(*) FROM miq_workers") == [(0,)]


def test_beside_a_server_it_takes_the_twins_place_and_gives_it_back(dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with appliance(dsn, home) as server:
        server.wait_for_workers(3)
        twin = server.workers("MiqScheduleWorker")[0]
        with started(dsn, home, "MiqScheduleWorker") as process:
            eventually(lambda: not running(twin[3]), what="the server stops its own")
            rows = eventually(lambda: server.workers("MiqScheduleWorker"))
            assert [row[3] for row in rows] == [process.pid]
            process.terminate()
            assert process.wait(20) == 0
        again = eventually(lambda: server.workers("MiqScheduleWorker"))
        assert again[0][3] not in (process.pid, twin[3])


def test_a_killed_hand_run_worker_is_swept_by_the_server(dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = "server: {worker_monitor_frequency: 0.5.seconds}"
    with appliance(dsn, home, settings=settings) as server:
        server.wait_for_workers(3)
        with started(dsn, home, "MiqScheduleWorker") as process:
            eventually(lambda: [row[3] for row in server.workers("MiqScheduleWorker")] == [process.pid])
            process.kill()
            process.wait(10)
        rows = eventually(lambda: [row for row in server.workers("MiqScheduleWorker") if row[3] != process.pid])
        assert len(rows) == 1
        assert server.sql("SELECT count(*) FROM miq_workers WHERE unsupervised") == [(0,)]


def test_the_server_neither_times_out_nor_kills_it(dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = """
server: {worker_monitor_frequency: 0.2.seconds}
workers: {worker_base: {defaults: {heartbeat_timeout: 0.5.seconds, heartbeat_freq: 0.1.seconds}}}
"""
    with appliance(dsn, home, settings=settings) as server:
        server.wait_for_workers(3)
        with started(dsn, home, "MiqScheduleWorker") as process:
            eventually(lambda: [row[3] for row in server.workers("MiqScheduleWorker")] == [process.pid])
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(3)
            assert server.sql("SELECT status FROM miq_workers WHERE unsupervised") == [("started",)]
            process.send_signal(signal.SIGCONT)


def test_beside_only_watches(dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with appliance(dsn, home) as server:
        server.wait_for_workers(3)
        watched = server.workers("MiqScheduleWorker")[0]
        environment = {**os.environ, "MIQ_HOME": str(home), "DATABASE_URL": dsn}
        argv = [*COMMAND, "--beside", "MiqScheduleWorker"]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"worker {watched[0]} pid {watched[3]} started: idle, 0 finished\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        assert server.workers("MiqScheduleWorker") == [watched]
        assert server.sql("SELECT count(*) FROM miq_workers") == [(3,)]
