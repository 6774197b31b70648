"""The schedule worker of a real server: it acts when something is due, not when it happens to look.

Its poll is ten minutes here, so that whatever comes sooner came because it was due, or heard of.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.db import Database
from miq.launch import Launch, Place
from miq.settings_loader import defaults
from miq.workers.schedule_worker import ScheduleWorker
from miq.workers.timers import Timer
from tests.process.appliance import Appliance, appliance, eventually

pytestmark = pytest.mark.timeout(120)

PATIENT = "schedule_worker: {poll: 10.minutes, queue_timeout_interval: %s, orphan_check_interval: %s}"


def settings(*, timeouts: str = "1.hours", orphans: str = "1.hours", more: str = "") -> str:
    return f"workers: {{worker_base: {{{PATIENT % (timeouts, orphans)}}}}}\n{more}"


@pytest.fixture
def server(dsn: str, tmp_path: Path) -> Iterator[Appliance]:
    with appliance(dsn, tmp_path / "home", settings=settings()) as running_server:
        running_server.wait_for_workers(3)
        yield running_server


def once(server: Appliance, name: str, seconds: float, **columns: Any) -> None:
    """A schedule whose test action writes its name to the log, in so many seconds."""
    start = (utc() + timedelta(seconds=seconds)).isoformat()
    run_at = json.dumps({"start_time": start, "tz": "UTC", "interval": {"unit": "once"}})
    values = {"name": name, "run_at": run_at, "sched_action": '{"method": "test"}', "enabled": True}
    values |= {"resource_type": "Vm", **columns}
    marks = ", ".join("%s" for _ in values)
    server.sql(f"INSERT INTO miq_schedules ({', '.join(values)}) VALUES ({marks})", *values.values())


def has_run(server: Appliance, name: str) -> bool:
    return bool(server.sql("SELECT 1 FROM miq_schedules WHERE name = %s AND last_run_on IS NOT NULL", name))


def told(server: Appliance, words: str) -> int:
    return server.log().count(words)


def test_schedules_run_when_they_are_due_as_they_are_then(server: Appliance) -> None:
    once(server, "removed", 6)
    once(server, "disabled", 6)
    once(server, "put off", 6)
    once(server, "senseless", 6, run_at="nonsense")
    once(server, "last", 7)
    once(server, "first", 1)
    eventually(lambda: has_run(server, "first"), what="one that was added while the worker slept")
    server.sql("DELETE FROM miq_schedules WHERE name = 'removed'")
    server.sql("UPDATE miq_schedules SET enabled = false WHERE name = 'disabled'")
    server.sql("UPDATE miq_schedules SET run_at = replace(run_at, '\"20', '\"21') WHERE name = 'put off'")
    eventually(lambda: has_run(server, "last"))
    assert [name for name in ("disabled", "put off", "senseless") if has_run(server, name)] == []
    assert told(server, "not run: schedule 'senseless' (id 4): run_at is not JSON") == 1
    fired = re.findall(r"queue_scheduled_work\) Schedule: \[([^]]*)\]", server.log())
    assert fired == ["first", "last"]


def test_it_hears_of_schedules_after_its_connection_was_lost(server: Appliance) -> None:
    spid = "SELECT sql_spid FROM miq_workers WHERE type = 'MiqScheduleWorker'"
    ((before,),) = server.sql(spid)
    server.sql("SELECT pg_terminate_backend(%s)", before)
    once(server, "meanwhile", 2)
    eventually(lambda: server.sql(spid) != [(before,)], what="a new connection")
    once(server, "afterwards", 2)
    eventually(lambda: has_run(server, "meanwhile") and has_run(server, "afterwards"))


def test_timers_and_users_schedules_go_and_come_back_with_the_role_scheduler(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home", settings=settings(timeouts="0.1.seconds")) as server:
        server.wait_for_workers(3)
        eventually(lambda: told(server, "check_for_timeout") > 0, what="timers of the role")
        server.sql(
            "INSERT INTO settings_changes (resource_type, resource_id, key, value)"
            " SELECT 'MiqServer', id, '/server/role', 'ems_operations' FROM miq_servers"
        )
        scheduler = (
            "SELECT 1 FROM assigned_server_roles JOIN server_roles r ON r.id = server_role_id"
            " WHERE r.name = 'scheduler' AND active"
        )
        eventually(lambda: not server.sql(scheduler))
        time.sleep(1.5)  # the worker reads its roles spread over a second
        before = told(server, "check_for_timeout")
        once(server, "without the role", 0.5)
        time.sleep(1.5)
        assert told(server, "check_for_timeout") == before
        server.sql("DELETE FROM settings_changes")
        eventually(lambda: server.sql(scheduler))
        once(server, "with the role", 2)
        eventually(lambda: has_run(server, "with the role"))
        assert told(server, "check_for_timeout") > before
        assert not has_run(server, "without the role")


def test_lost_and_late_messages_end_by_themselves(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home", settings=settings(timeouts="0.5.seconds")) as server:
        server.wait_for_workers(3)
        server.sql(
            "INSERT INTO miq_queue (class_name, method_name, state, handler_type, handler_id, updated_on, priority,"
            " expires_on, zone) VALUES"
            " ('Diagnostics', 'noop', 'dequeue', 'MiqWorker', 4711, utc_now() - interval '11 s', 100, NULL, NULL),"
            " ('Diagnostics', 'noop', 'ready', NULL, NULL, NULL, NULL, NULL, NULL),"
            " ('Diagnostics', 'noop', 'ready', NULL, NULL, NULL, 100, utc_now() + interval '1 s', 'nowhere')"
        )
        ended = "SELECT state, last_error FROM miq_queue WHERE class_name = 'Diagnostics' AND last_error IS NOT NULL"
        eventually(lambda: len(server.sql(ended)) == 3)
        assert sorted(row[0] for row in server.sql(ended)) == ["error", "error", "expired"]


def test_a_warning_names_what_nobody_can_take_once(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home", settings=settings(orphans="0.3.seconds")) as server:
        server.wait_for_workers(3)
        server.sql(
            "INSERT INTO miq_queue (class_name, method_name, zone) VALUES ('Diagnostics', 'noop', 'nowhere'),"
            " ('Diagnostics', 'noop', 'nowhere')"
        )
        line = (
            "MIQ(MiqQueue.check_orphans) no running worker can take 2 messages"
            " (zone [nowhere], role [none], queue [generic]): zone 'nowhere' does not exist"
        )
        eventually(lambda: told(server, line) == 1)
        time.sleep(1.5)
        assert told(server, "check_orphans") == 1
        assert told(server, "WARN") >= 1


# -- jobs that fail ----------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(dsn: str, tmp_path: Path) -> Iterator[ScheduleWorker]:
    """The worker without its loop, with a connection of its own."""
    (tmp_path / "run" / "slots").mkdir(parents=True)
    made = ScheduleWorker(Launch("guid", "MiqScheduleWorker", None, dsn, str(tmp_path)))
    made.place = Place(1, 1, "server-guid", "EVM", 1, "default", 1, ["scheduler"])
    made.settings = defaults()
    made.config_loaded()
    yield made
    made.database.close()
    for end in (made.wires._wake_r, made.wires._wake_w):
        end.close()


def test_a_job_that_errs_is_logged_and_the_others_run(worker: ScheduleWorker, caplog: pytest.LogCaptureFixture) -> None:
    ran = []

    def bad(session: Session) -> None:
        session.info["database"].run("SELECT nonsense")

    def good(session: Session) -> None:
        ran.append(session.info["zone"])

    worker.agenda.replace([Timer("bad", 0.01, bad), Timer("good", 0.01, good)])
    time.sleep(0.02)
    with caplog.at_level(logging.ERROR):
        worker.do_work()
    assert ran == ["default"]
    assert 'job [bad]: column "nonsense" does not exist' in caplog.text


def test_a_lost_database_is_the_loops_to_handle_and_the_job_stays_due(
    worker: ScheduleWorker, database: Database
) -> None:
    ran = []

    def good(session: Session) -> None:
        session.info["database"].run("SELECT 1")
        ran.append(1)

    worker.do_work()
    worker.agenda.replace([Timer("good", 0.01, good)])
    time.sleep(0.02)
    database.run("SELECT pg_terminate_backend(%(pid)s)", {"pid": worker.database.backend_pid})
    with pytest.raises(psycopg.OperationalError):
        worker.do_work()
    assert ran == []
    worker.do_work()
    assert ran == [1]


def test_it_sleeps_until_the_next_thing_is_due(worker: ScheduleWorker, database: Database) -> None:
    worker.agenda.replace([])
    assert worker.idle_seconds() == 15.0
    worker.agenda.replace([Timer("soon", 5.0, lambda session: None)])
    assert 4.0 < worker.idle_seconds() <= 5.0
    start = (utc() + timedelta(seconds=2)).isoformat()
    database.run(
        "INSERT INTO miq_schedules (name, sched_action, resource_type, run_at, enabled)"
        " VALUES ('x', '{\"method\": \"test\"}', 'Vm', %(run_at)s, true)",
        {"run_at": json.dumps({"start_time": start, "interval": {"unit": "once"}})},
    )
    worker.do_work()
    assert 1.0 < worker.idle_seconds() <= 2.0
