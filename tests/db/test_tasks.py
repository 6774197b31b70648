"""Tasks on a real database: how they are made, how they end, what is told meanwhile, and when they may go."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.db import Database
from miq.errors import UsageError
from miq.models import Job, MiqQueue, MiqRegion, MiqServer, MiqTask, MiqWorker, Zone
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery, deliver
from miq.queue.message import Message
from miq.queue.methods import queue_method
from miq.queue.record import record
from miq.queue.tasks import (
    create_task,
    find_task,
    generic_action_with_callback,
    queue_callback,
    remove_task,
    tell_progress,
    update_status,
    wait_for_task,
)

seen: list[Any] = []


@pytest.fixture(autouse=True)
def registered(dsn: str, registry: None) -> None:
    seen.clear()

    def others_see() -> tuple[Any, ...]:
        other = Database(dsn)
        row = other.run("SELECT state, pct_complete, message FROM miq_tasks").fetchone()
        other.close()
        return row or ()

    @queue_method("Test", "steps", idempotent=True)
    def steps(session: Session, row: None, options: dict[str, Any]) -> dict[str, Any]:
        seen.append(others_see())
        tell_progress(session, pct_complete=40, message="collecting")
        seen.append(others_see())
        session.add(Zone(name="written"))
        session.flush()
        tell_progress(session, pct_complete=250)
        seen.append(others_see())
        session.commit()
        seen.append(others_see())
        return options

    @queue_method("Test", "fail", idempotent=True)
    def fail(session: Session, row: None) -> None:
        raise ValueError("broken")

    @queue_method("Test", "quiet", idempotent=True)
    def quiet(session: Session, row: None) -> None:
        tell_progress(session, pct_complete=1)


@pytest.fixture
def database(database: Database) -> Database:
    """With the zones that the tests name, one of them for maintenance."""
    with database.session() as session:
        maintenance = Zone(name="maintenance", visible=False)
        session.add_all([Zone(name="default"), maintenance])
        session.flush()
        session.add(MiqRegion(region=0, maintenance_zone_id=maintenance.id))
    return database


def task_of(database: Database, task_id: int) -> MiqTask:
    with database.session() as session:
        found = find_task(session, task_id)
    assert found is not None
    return found


def made(database: Database, state: str = "Queued") -> int:
    with database.session() as session:
        task_id = create_task(session, "try")
        session.get_one(MiqTask, task_id).state = state
    return task_id


def run_one(database: Database) -> str:
    """Be a worker of a server, for one message."""
    with database.session() as session:
        server = MiqServer(guid="s")
        session.add(server)
        session.flush()
        worker = MiqWorker(type="MiqGenericWorker", miq_server_id=server.id)
        session.add(worker)
    handler = Handler("MiqWorker", worker.id)
    (message,) = claim(database, handler, Route("generic", "default", [], None))
    delivery = Delivery(database, handler, server_id=server.id)
    outcome = deliver(message, delivery)
    if not outcome.written:
        record(outcome, delivery)
    return outcome.status


# -- an action that a user waits for -----------------------------------------------------------------------------------


def test_an_action_makes_a_task_and_its_message(database: Database) -> None:
    message = Message("Zone", "steps", [{"a": 1}, 2], instance_id=7, zone="default")
    with database.session() as session:
        task_id = generic_action_with_callback(session, "Try it", "admin", message)
        row = session.scalars(select(MiqQueue)).one()
    task = task_of(database, task_id)
    assert (task.name, task.userid, task.state, task.status, task.zone, task.identifier) == (
        "Try it", "admin", "Queued", "Ok", "default", "Zone:7",
    )  # fmt: skip
    assert task.message == "Queued the action: [Try it] being run for user: [admin]"
    assert task.started_on is None and task.created_on is not None and task.updated_on is not None
    assert row.miq_task_id == task_id
    assert json.loads(row.args or "") == [{"a": 1, "task_id": task_id}, 2]
    assert json.loads(row.miq_callback or "") == {
        "class_name": "MiqTask", "method_name": "queue_callback", "instance_id": task_id, "args": ["Finished"],
    }  # fmt: skip
    assert message.args == [{"a": 1}, 2]


def test_a_task_follows_its_message_to_the_end(database: Database) -> None:
    with database.session() as session:
        task_id = generic_action_with_callback(
            session, "Try", "system", Message("Test", "steps", [{"a": 1}], zone=None)
        )
    assert run_one(database) == "ok"
    assert [(row[0], row[1]) for row in seen] == [("Active", None), ("Active", 40), ("Active", 40), ("Active", 100)]
    assert [row[2] for row in seen] == ["Task starting", "collecting", "collecting", "collecting"]
    task = task_of(database, task_id)
    assert (task.state, task.status, task.message) == ("Finished", "Ok", "Task completed successfully")
    assert json.loads(task.results or "") == {"a": 1, "task_id": task_id, "miq_task_id": task_id}
    with database.session() as session:
        assert task.miq_server_id == session.scalars(select(MiqServer.id)).one()
    assert task.started_on is not None


def test_the_error_of_a_message_is_its_tasks(database: Database) -> None:
    with database.session() as session:
        task_id = generic_action_with_callback(session, "Try", "system", Message("Test", "fail", zone=None))
    assert run_one(database) == "error"
    task = task_of(database, task_id)
    assert (task.state, task.status, task.message, task.results) == ("Finished", "Error", "broken", None)


def test_a_task_whose_zone_is_in_maintenance_has_ended(database: Database) -> None:
    with database.session() as session:
        message = Message("Test", "fail", zone="maintenance")
        task_id = generic_action_with_callback(session, "Try", "system", message)
        assert session.scalars(select(MiqQueue)).all() == []
    task = task_of(database, task_id)
    assert (task.state, task.status, task.message) == ("Finished", "Error", "Zone maintenance is in maintenance")


def test_progress_of_a_message_without_a_task_is_nothing(database: Database) -> None:
    task_id = made(database, "Active")
    database.run("INSERT INTO miq_queue (class_name, method_name) VALUES ('Test', 'quiet')")
    assert run_one(database) == "ok"
    assert task_of(database, task_id).pct_complete is None


# -- statuses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "stored", "message"),
    [
        ("ok", "", "Ok", "Task completed successfully"),
        ("warn", "is gone", "Warn", "is gone"),
        ("error", "broken", "Error", "broken"),
        ("error", "", "Error", "Task did not complete successfully"),
        ("timeout", "timed out", "Timeout", "timed out"),
        ("expired", "too late", "Error", "too late"),
    ],
)
def test_the_callback_tells_how_the_message_ended(
    database: Database, status: str, said: str, stored: str, message: str
) -> None:
    task_id = made(database)
    with database.session() as session:
        queue_callback(session, session.get_one(MiqTask, task_id), "Finished", status, said, None)
    task = task_of(database, task_id)
    assert (task.state, task.status, task.message) == ("Finished", stored, message)


@pytest.mark.parametrize(
    ("result", "stored"),
    [(None, None), ([1, "a"], '[1, "a"]'), ({1, 2}, '"{1, 2}"'), (math.nan, '"nan"'), ({(1,): 2}, '"{(1,): 2}"')],
)
def test_a_task_ends_whatever_its_result(database: Database, result: Any, stored: str | None) -> None:
    task_id = made(database)
    with database.session() as session:
        assert update_status(session, task_id, "Finished", "Ok", "done", result=result)
    assert task_of(database, task_id).results == stored


def test_a_task_that_is_over_stays_as_it_is(database: Database) -> None:
    task_id = made(database, "Finished")
    with database.session() as session:
        assert not update_status(session, task_id, "Active", "Ok", "again")
        assert not update_status(session, task_id, "Finished", "Error", "again")
        assert not update_status(session, 4711, "Finished", "Ok", "nobody's")
        queue_callback(session, None, "Finished", "ok", "", None)
    task = task_of(database, task_id)
    assert (task.state, task.status, task.started_on) == ("Finished", "Ok", None)


def test_the_first_move_to_active_starts_the_clock(database: Database) -> None:
    task_id = made(database, "Initialized")
    with database.session() as session:
        assert update_status(session, task_id, "Active", "Ok", "first")
    first = task_of(database, task_id).started_on
    with database.session() as session:
        assert update_status(session, task_id, "Active", "Warn", "second")
    task = task_of(database, task_id)
    assert first is not None and first > utc() - timedelta(minutes=1)
    assert (task.started_on, task.status, task.message) == (first, "Warn", "second")


# -- waiting and removing ----------------------------------------------------------------------------------------------


def test_waiting_ends_with_the_task_or_in_time(database: Database) -> None:
    task_id = made(database)
    looks: list[str | None] = []

    def read() -> MiqTask | None:
        if len(looks) == 2:
            database.run("UPDATE miq_tasks SET state = 'Finished'")
        return task_of(database, task_id)

    ended = wait_for_task(read, seconds=20, seen=lambda task: looks.append(task.state), pause=0.01)
    assert ended is not None and ended.state == "Finished"
    assert looks == ["Queued", "Queued"]
    database.run("UPDATE miq_tasks SET state = 'Active'")
    looks[:] = ["", "", ""]
    assert wait_for_task(read, seconds=0.05, seen=lambda task: None, pause=0.01) is None


@pytest.mark.parametrize("state", ["Queued", "Finished"])
def test_a_task_that_is_not_at_work_can_be_removed_with_its_job(database: Database, state: str) -> None:
    task_id, other = made(database, state), made(database, state)
    with database.session() as session:
        session.add_all(Job(guid=str(each), state="finished", miq_task_id=each) for each in (task_id, other))
    with database.session() as session:
        remove_task(session, task_id)
    with database.session() as session:
        assert session.scalars(select(MiqTask.id)).all() == [other]
        assert session.scalars(select(Job.miq_task_id)).all() == [other]


@pytest.mark.parametrize(
    ("state", "job", "said"),
    [
        ("Active", None, "is Active: only one that is Queued or Finished"),
        ("Initialized", None, "is Initialized"),
        ("Finished", "scanning", "has a job that is at work"),
        (None, None, "no task"),
    ],
)
def test_a_task_that_is_at_work_stays(database: Database, state: str | None, job: str | None, said: str) -> None:
    task_id = made(database, state) if state else 4711
    with database.session() as session:
        if job:
            session.add(Job(guid="j", state=job, miq_task_id=task_id))
        session.flush()
        with pytest.raises(UsageError, match=f"task {task_id}.*{said}|{said} {task_id}"):
            remove_task(session, task_id)
    if state:
        assert task_of(database, task_id).state == state
