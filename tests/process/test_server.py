"""The supervisor with real forks and signals: start, replace, stop, and what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from miq.channel import Slot
from tests.process.appliance import Appliance, appliance, eventually, running, title

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def server(dsn: str, home_path: Path) -> Appliance:  # type: ignore[misc]
    with appliance(dsn, home_path) as running_server:
        running_server.wait_for_workers(3)
        yield running_server


@pytest.fixture
def home_path(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_rows_titles_parents_and_backends(server: Appliance) -> None:
    rows = server.wait_for_workers(3)
    assert sorted(row[1] for row in rows) == ["MiqGenericWorker", "MiqGenericWorker", "MiqScheduleWorker"]
    for row_id, type_name, _, pid, queue_name in rows:
        assert title(pid) == f"MIQ: {type_name} id: {row_id}, queue: {queue_name or ''}".strip()
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent == server.process.pid
        assert os.getsid(pid) == pid
    assert title(server.process.pid) == "MIQ Server"
    (spids,) = server.sql(
        "SELECT count(*) FROM miq_workers w JOIN pg_stat_activity a ON a.pid = w.sql_spid"
        " JOIN miq_servers s ON s.id = w.miq_server_id JOIN zones z ON z.id = s.zone_id"
        " WHERE a.application_name = left(concat_ws('|', 'MIQ', w.pid, s.id, w.id, z.id, w.type, z.name), 64)"
    )
    assert spids[0] == 3
    assert server.sql(
        "SELECT 1 FROM miq_servers s JOIN pg_stat_activity a ON a.pid = s.sql_spid WHERE s.status = 'started'"
        " AND s.is_master AND a.application_name LIKE 'MIQ|%%|Server|default'"
    )


def test_roles_are_assigned_and_active(server: Appliance) -> None:
    names = [row[0] for row in server.sql(
        "SELECT r.name FROM assigned_server_roles a JOIN server_roles r ON r.id = a.server_role_id"
        " WHERE a.active ORDER BY 1"
    )]  # fmt: skip
    assert {"ems_inventory", "ems_operations", "event", "scheduler"} <= set(names)
    assert "smartproxy" not in names


def test_a_message_put_by_plain_sql_is_worked_on(server: Appliance) -> None:
    server.sql("INSERT INTO miq_queue (class_name, method_name) VALUES ('Diagnostics', 'noop')")
    eventually(lambda: not server.sql("SELECT 1 FROM miq_queue"), seconds=5, what="the message is gone")


def test_a_killed_worker_is_replaced_at_once_and_its_exit_kept(server: Appliance) -> None:
    victim = server.workers("MiqGenericWorker")[0]
    os.kill(victim[3], signal.SIGKILL)
    rows = eventually(
        lambda: (
            [row for row in server.workers("MiqGenericWorker") if row[0] > victim[0]][1:] or None
            if victim[0] not in [row[0] for row in server.workers()] and len(server.workers("MiqGenericWorker")) == 2
            else None
        ),
        seconds=3,
        what="a replacement",
    )
    assert rows
    assert server.sql("SELECT type, pid, signal, reason, back_off_until FROM miq_worker_exits") == [
        ("MiqGenericWorker", victim[3], 9, "SIGKILL", None)
    ]


def test_an_idempotent_message_runs_again_when_its_worker_is_killed(server: Appliance) -> None:
    ((message_id,),) = server.sql(
        "INSERT INTO miq_queue (class_name, method_name, args) VALUES ('Diagnostics', 'sleep', '[3]') RETURNING id"
    )
    pid = _handler_pid(server, message_id)
    os.kill(pid, signal.SIGKILL)
    again = eventually(lambda: other if (other := _handler_pid(server, message_id)) != pid else None, seconds=2)
    assert again != pid
    assert server.sql("SELECT attempts FROM miq_queue WHERE id = %s", message_id) == [(1,)]
    eventually(lambda: not server.sql("SELECT 1 FROM miq_queue"), what="it ended well")


def test_another_message_ends_as_error_when_its_worker_is_killed(server: Appliance) -> None:
    ((message_id,),) = server.sql(
        "INSERT INTO miq_queue (class_name, method_name, args) VALUES ('Diagnostics', 'once', '[30]') RETURNING id"
    )
    os.kill(_handler_pid(server, message_id), signal.SIGKILL)
    state = eventually(
        lambda: server.sql("SELECT state, last_error FROM miq_queue WHERE id = %s AND state = 'error'", message_id)
    )
    assert "SIGKILL" in state[0][1]


def _handler_pid(server: Appliance, message_id: int) -> int:
    """The pid of the worker that has started this message: claimed alone is not started."""

    def handler() -> int | None:
        found = server.sql(
            "SELECT w.pid, w.guid FROM miq_queue q JOIN miq_workers w ON w.id = q.handler_id"
            " WHERE q.id = %s AND q.state = 'dequeue' AND q.handler_type = 'MiqWorker'",
            message_id,
        )
        path = server.home / "run" / "slots" / str(found[0][1]) if found else None
        if path is None or not path.exists():
            return None
        slot = Slot(path)
        in_hand = slot.read().message_id
        slot.close()
        return int(found[0][0]) if in_hand == message_id else None

    pid = eventually(handler, seconds=5, what="somebody runs it")
    assert pid is not None
    return pid


def test_a_clean_stop_leaves_nothing(server: Appliance) -> None:
    pids = [row[3] for row in server.workers()]
    assert server.stop() == 0
    assert not [pid for pid in pids if running(pid)]
    assert server.sql("SELECT count(*) FROM miq_workers") == [(0,)]
    assert server.sql("SELECT status, is_master, stopped_on IS NOT NULL FROM miq_servers") == [("stopped", False, True)]
    assert server.sql("SELECT count(*) FROM assigned_server_roles WHERE active") == [(0,)]
    assert not list((server.home / "run" / "slots").iterdir())


def test_the_message_in_hand_is_finished_before_a_worker_leaves(server: Appliance) -> None:
    ((message_id,),) = server.sql(
        "INSERT INTO miq_queue (class_name, method_name, args) VALUES ('Diagnostics', 'once', '[1.5]') RETURNING id"
    )
    _handler_pid(server, message_id)
    assert server.stop() == 0
    assert server.sql("SELECT state FROM miq_queue") == []


def test_quiesce_kills_after_its_time(dsn: str, home_path: Path) -> None:
    with appliance(dsn, home_path, settings="server: {quiesce_timeout: 1.seconds}") as server:
        server.wait_for_workers(3)
        ((message_id,),) = server.sql(
            "INSERT INTO miq_queue (class_name, method_name, args) VALUES ('Diagnostics', 'sleep', '[60]') RETURNING id"
        )
        pid = _handler_pid(server, message_id)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        assert not running(pid)
        assert server.sql("SELECT status FROM miq_servers") == [("stopped",)]


def test_a_second_interrupt_kills(server: Appliance) -> None:
    ((message_id,),) = server.sql(
        "INSERT INTO miq_queue (class_name, method_name, args) VALUES ('Diagnostics', 'sleep', '[60]') RETURNING id"
    )
    pid = _handler_pid(server, message_id)
    server.process.send_signal(signal.SIGINT)
    eventually(lambda: server.sql("SELECT 1 FROM miq_servers WHERE status = 'quiesce'"))
    assert server.stop(signal.SIGINT, seconds=10) == 1
    eventually(lambda: not running(pid), seconds=3)
    assert server.sql("SELECT status FROM miq_servers") == [("killed",)]


def test_workers_die_with_a_killed_server_and_the_next_one_cleans_up(dsn: str, home_path: Path) -> None:
    with appliance(dsn, home_path) as server:
        server.wait_for_workers(3)
        ids = [
            server.sql(
                "INSERT INTO miq_queue (class_name, method_name, args) VALUES ('Diagnostics', %s, '[60]') RETURNING id",
                method,
            )[0][0]
            for method in ("sleep", "once")
        ]
        pids = [_handler_pid(server, message_id) for message_id in ids]
        server.process.kill()
        server.process.wait(10)
        eventually(lambda: not [pid for pid in pids if running(pid)], seconds=3, what="orphans are gone")
        old = [row[0] for row in server.sql("SELECT id FROM miq_workers")]
        assert len(old) == 3
    with appliance(dsn, home_path, settings="server: {quiesce_timeout: 1.seconds}") as server:
        eventually(lambda: len([row for row in server.workers() if row[0] not in old]) == 3)
        assert server.sql("SELECT count(*) FROM miq_workers WHERE id = ANY(%s)", old) == [(0,)]
        state: dict[str, str] = dict(server.sql("SELECT method_name, state FROM miq_queue"))
        assert state["once"] == "error"
        assert server.sql("SELECT attempts FROM miq_queue WHERE method_name = 'sleep'") == [(0,)]
        server.sql("DELETE FROM miq_queue")


def test_a_second_server_on_the_same_home_is_refused(server: Appliance, dsn: str) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "miq.workers.bin.server"],
        env={**os.environ, "MIQ_HOME": str(server.home), "DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1 and f"pid {server.process.pid}" in second.stderr
    assert server.process.poll() is None


def test_a_hanging_worker_is_killed_and_replaced(dsn: str, home_path: Path) -> None:
    settings = """
server: {worker_monitor_frequency: 0.5.seconds}
workers: {worker_base: {defaults: {heartbeat_timeout: 1.seconds, heartbeat_freq: 0.2.seconds}}}
"""
    with appliance(dsn, home_path, settings=settings) as server:
        victim = server.wait_for_workers(1, "MiqScheduleWorker")[0]
        os.kill(victim[3], signal.SIGSTOP)
        eventually(
            lambda: server.sql("SELECT 1 FROM miq_workers WHERE id = %s AND status = 'stopping'", victim[0]), seconds=8
        )
        replaced = eventually(
            lambda: [row for row in server.workers("MiqScheduleWorker") if row[0] != victim[0]], seconds=25
        )
        assert replaced and not running(victim[3])
        assert (
            "not responding, killed"
            in server.sql("SELECT reason FROM miq_worker_exits WHERE pid = %s", victim[3])[0][0]
        )


def test_a_worker_over_its_memory_is_stopped_and_replaced(dsn: str, home_path: Path) -> None:
    settings = """
server: {worker_monitor_frequency: 0.5.seconds}
workers: {worker_base: {schedule_worker: {memory_threshold: 1000.bytes}}}
"""
    with appliance(dsn, home_path, settings=settings) as server:
        exits = eventually(
            lambda: server.sql(
                "SELECT reason, memory_usage > 1000 FROM miq_worker_exits WHERE type = 'MiqScheduleWorker'"
            )
        )
        assert exits[0] == ("memory exceeded", True)
        eventually(
            lambda: server.sql(
                "SELECT 1 FROM miq_worker_exits WHERE type = 'MiqScheduleWorker' AND back_off_until IS NOT NULL"
            ),
            what="repeated memory deaths back off",
        )


def test_settings_by_sql_reach_the_server_at_once(server: Appliance) -> None:
    server.sql(
        "INSERT INTO settings_changes (resource_type, resource_id, key, value)"
        " SELECT 'MiqServer', id, '/workers/worker_base/queue_worker_base/generic_worker/count', '4' FROM miq_servers"
    )
    server.wait_for_workers(4, "MiqGenericWorker")
    server.sql("UPDATE settings_changes SET value = '1'")
    server.wait_for_workers(1, "MiqGenericWorker")


def test_a_dead_mold_is_replaced(server: Appliance) -> None:
    mold = _mold_pid(server)
    os.kill(mold, signal.SIGKILL)
    eventually(lambda: _mold_pid(server) not in (mold, 0), what="another mold")
    victim = server.workers("MiqScheduleWorker")[0]
    os.kill(victim[3], signal.SIGKILL)
    eventually(lambda: [row for row in server.workers("MiqScheduleWorker") if row[0] != victim[0]])


def _mold_pid(server: Appliance) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return next((int(pid) for pid in children if running(int(pid)) and title(int(pid)) == "MIQ Mold"), 0)


def test_the_server_tells_the_service_manager(dsn: str, home_path: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        with appliance(dsn, home_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
            assert manager.recv(100) == b"READY=1"
            server.process.terminate()
            seen = set()
            while b"STOPPING=1" not in seen:
                seen.add(manager.recv(100))
            assert server.process.wait(20) == 0
            assert server.workers() == []


def test_workers_share_the_molds_memory(server: Appliance) -> None:
    """The guard of the mold.

    Without a frozen heap, or with a lazy import left in the workers, each costs tens of MB.
    """
    time.sleep(1)
    for _, type_name, _, pid, _ in server.wait_for_workers(3):
        own = sum(
            int(line.split()[1])
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith(("Private_Dirty:", "Private_Clean:"))
        )
        assert own < 9 * 1024, f"{type_name} has {own} kB of its own"
