"""User schedules on a real database: what is put when they fire, what their actions put, and who hears of a change."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy.orm import Session

from miq.db import Database
from miq.models import MiqRegion, MiqSchedule, Zone
from miq.queue import schedules
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery, deliver
from miq.queue.methods import queue_method
from miq.queue.record import record
from miq.settings_loader import defaults
from miq.workers.timers import Put, system_timers

ME = Handler("MiqWorker", 1)
RUN_AT = '{"start_time": "2026-01-01T00:00:00Z", "tz": "UTC", "interval": {"unit": "daily", "value": 1}}'


@pytest.fixture(autouse=True)
def registered(registry: None) -> None:

    @queue_method("Test", "note")
    def note(session: Session, row: None, *args: Any) -> None: ...

    @queue_method("ExtManagementSystem", "touch", model=Zone)
    def touch(session: Session, row: Zone) -> None: ...


@pytest.fixture
def database(database: Database) -> Database:
    """With two zones, the one for maintenance, and a manager in the zone east."""
    with database.session() as session:
        closed = Zone(name="closed")
        session.add_all([Zone(name="default"), Zone(name="east"), closed])
        session.flush()
        session.add(MiqRegion(guid="region", maintenance_zone_id=closed.id))
    database.run(
        "INSERT INTO ext_management_systems (id, name, type, zone_id)"
        " SELECT 5, 'prod', 'ManageIQ::Providers::Amazon::CloudManager', id FROM zones WHERE name = 'east'"
    )
    return database


def schedule(database: Database, method: str = "note", resource: str = "Test", **columns: Any) -> int:
    action = {"method": method} | {name: columns.pop(name) for name in ("args", "options") if name in columns}
    values = {"name": "nightly", "sched_action": json.dumps(action), "run_at": RUN_AT, "enabled": True}
    with database.session() as session:
        row = MiqSchedule(**{**values, "resource_type": resource, "userid": "system", **columns})
        session.add(row)
        session.flush()
        return row.id


def fire(database: Database, schedule_id: int, at: str = "2026-03-01T00:00:00") -> None:
    (row,) = [row for row in schedules.enabled_rows(database) if row["id"] == schedule_id]
    with database.session() as session:
        session.info["zone"] = "default"
        schedules.fire(session, schedules.read(row), datetime.fromisoformat(at))


def work(database: Database) -> tuple[str, str]:
    """Deliver what was fired, as a worker of the zone default does: how it ended, and what was wrong."""
    delivery = Delivery(database, ME, info={"zone": "default"})
    (message,) = claim(database, ME, Route("generic", "default", [], None))
    assert message.command == "MiqSchedule.invoke_actions"
    outcome = deliver(message, delivery)
    if not outcome.written:
        record(outcome, delivery)
    return outcome.status, outcome.text


def waiting(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    return database.run(f"SELECT {', '.join(columns)} FROM miq_queue WHERE state = 'ready' ORDER BY id").fetchall()


def last_run(database: Database) -> datetime | None:
    row = database.run("SELECT last_run_on FROM miq_schedules").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


# -- firing ------------------------------------------------------------------------------------------------------------


def test_firing_puts_one_message_that_knows_the_last_time(database: Database) -> None:
    each = schedule(database)
    fire(database, each)
    fire(database, each, "2026-03-02T00:00:00")
    ((command, instance_id, args, timeout, zone, priority),) = waiting(
        database, "class_name || '.' || method_name", "instance_id", "args", "msg_timeout", "zone", "priority"
    )
    assert (command, instance_id) == ("MiqSchedule.invoke_actions", each)
    assert (json.loads(args), timeout, zone, priority) == (["note", "2026-03-02T00:00:00Z"], 1200, "default", 100)


def test_one_that_is_being_run_does_not_keep_the_next_from_waiting(database: Database) -> None:
    each = schedule(database)
    fire(database, each)
    claim(database, ME, Route("generic", "default", [], None))
    fire(database, each)
    assert len(waiting(database, "id")) == 1


# -- actions -----------------------------------------------------------------------------------------------------------


def test_the_test_action_writes_a_line(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    fire(database, schedule(database, "test", "Vm"))
    with caplog.at_level(logging.INFO):
        assert work(database) == ("ok", "")
    assert "MIQ(MiqSchedule#action_test) Schedule: [nightly]" in caplog.text
    assert "due at [2026-03-01T00:00:00Z]" in caplog.text
    assert last_run(database) is not None
    assert waiting(database, "id") == []


def test_a_class_call_with_args_and_options(database: Database) -> None:
    options = {"queue_name": "other", "role": "event", "zone": "east", "priority": 20, "msg_timeout": 30}
    fire(database, schedule(database, args=[1, {"a": "b"}], options=options))
    assert work(database) == ("ok", "")
    ((args, instance_id, *routing),) = waiting(
        database, "args", "instance_id", "queue_name", "role", "zone", "priority", "msg_timeout"
    )
    assert (json.loads(args), instance_id) == ([1, {"a": "b"}], None)
    assert routing == ["other", "event", "east", 20, 30]


def test_without_options_it_is_done_where_the_schedule_worker_is(database: Database) -> None:
    fire(database, schedule(database))
    work(database)
    assert waiting(database, "queue_name", "role", "zone", "priority") == [("generic", None, "default", 100)]


def test_a_managers_method_is_called_on_its_row_in_its_zone(database: Database) -> None:
    fire(database, schedule(database, "touch", "ManageIQ::Providers::Amazon::CloudManager", resource_id=5))
    assert work(database) == ("ok", "")
    assert waiting(database, "instance_id", "zone", "method_name") == [(5, "east", "touch")]


def test_a_second_run_finds_the_call_of_the_first(database: Database) -> None:
    each = schedule(database, options={"queue_name": "other"})
    for _ in range(2):
        fire(database, each)
        work(database)
    assert waiting(database, "method_name") == [("note",)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"method": "nothing"}, "Test.nothing is not a queue method of this installation"),
        ({"resource_id": 1}, "Test.note is a class method: leave the resource's id out"),
        (
            {"method": "touch", "resource": "ExtManagementSystem"},
            "ExtManagementSystem.touch is called for one row: give its id as ExtManagementSystem:ID",
        ),
        ({"options": {"zone": "nowhere"}}, "there is no zone 'nowhere'"),
        ({"options": {"priority": 300}}, "priority 300 of Test.note"),
    ],
)
def test_what_cannot_be_called_ends_the_message_and_is_no_run(
    database: Database, columns: dict[str, Any], said: str
) -> None:
    fire(database, schedule(database, **columns))
    status, text = work(database)
    assert (status, said in text) == ("error", True), text
    assert last_run(database) is None
    assert waiting(database, "id") == []


def test_a_filter_that_somebody_wrote_meanwhile_is_refused(database: Database) -> None:
    fire(database, schedule(database))
    database.run("UPDATE miq_schedules SET filter = 'x'")
    status, text = work(database)
    assert (status, "its filter is not evaluated" in text) == ("error", True)


def test_a_schedule_that_was_removed_meanwhile_is_no_error(database: Database) -> None:
    fire(database, schedule(database))
    database.run("DELETE FROM miq_schedules")
    assert work(database)[0] == "warn"


# -- hearing of changes ------------------------------------------------------------------------------------------------


def test_who_listens_hears_of_every_change_but_not_of_runs(dsn: str, database: Database) -> None:
    heard: list[str] = []
    database.listen("miq_schedules", heard.append)

    def told(statement: str) -> bool:
        heard.clear()
        with psycopg.connect(dsn, autocommit=True) as operator:
            operator.execute(statement)
            # what is told in order has arrived when a later word has
            operator.execute("NOTIFY miq_schedules, 'mark'")
        end = time.monotonic() + 5
        while "mark" not in heard and time.monotonic() < end:
            database.take_notifications()
            time.sleep(0.01)
        return heard != ["mark"]

    schedule(database)
    assert told("UPDATE miq_schedules SET enabled = false")
    assert told("UPDATE miq_schedules SET run_at = 'x'")
    assert not told("UPDATE miq_schedules SET last_run_on = utc_now()")
    assert told("DELETE FROM miq_schedules")


# -- timers of the system ----------------------------------------------------------------------------------------------


def test_the_timers_put_one_message_of_a_kind_and_one_per_zone_where_they_have_to(database: Database) -> None:
    for _ in range(2):
        for timer in system_timers(defaults(), "default"):
            assert isinstance(timer.job, Put)
            with database.session() as session:
                timer.job(session)
    found = waiting(database, "class_name || '.' || method_name", "zone", "role", "priority", "msg_timeout")
    assert len(found) == len(set(found)) == len(list(system_timers(defaults(), "default"))) + 1
    check = "ExtManagementSystem.authentication_check_schedule"
    assert [row[1:4] for row in found if row[0] == check] == [("default", None, 20), ("east", None, 20)]
    assert ("MiqQueue.check_for_timeout", None, None, 50, 600) in found
    assert ("MiqQueue.reindex", None, "database_operations", 50, 3600) in found
