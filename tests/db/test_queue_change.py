"""The other verbs of the queue, jobs by service, and what the reports say, on a real database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.db import Database
from miq.errors import BadMessage
from miq.models import ExtManagementSystem, MiqQueue, MiqRegion, MiqServer, MiqWorker, Zone
from miq.models.worker_types import WorkerType, worker_types
from miq.paths import Home
from miq.queue.change import (
    Failed,
    broadcast,
    choose_failed,
    later,
    purge_failed,
    requeue,
    retry_failed,
    sooner,
    unget,
    unqueue,
)
from miq.queue.claim import Handler, Route, claim
from miq.queue.jobs import submit_job
from miq.queue.message import Callback, Inherit, Message
from miq.queue.put import THE_CALL, put, put_unless_exists
from miq.queue.report import Stuck, read_health
from miq.queue.routes import orphans

AMAZON = "ManageIQ::Providers::Amazon::CloudManager"
NOTE = Message("Test", "note", zone=None)
ME = Handler("MiqWorker", 1)


@pytest.fixture
def database(database: Database) -> Database:
    """With the zones that the tests name, one of them for maintenance."""
    with database.session() as session:
        maintenance = Zone(name="maintenance", visible=False)
        session.add_all([Zone(name="default"), Zone(name="other"), maintenance])
        session.flush()
        session.add(MiqRegion(region=0, maintenance_zone_id=maintenance.id))
    return database


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session() as session:
        session.info["zone"] = "default"
        yield session


def rows(session: Session) -> list[MiqQueue]:
    found = select(MiqQueue).order_by(MiqQueue.id).execution_options(populate_existing=True)
    return list(session.scalars(found))


def ids(session: Session) -> list[int]:
    return [row.id for row in rows(session)]


def added(session: Session, message: Message = NOTE, **options: Any) -> int:
    message_id = put(session, replace(message, **options))
    assert message_id is not None
    return message_id


def failed(session: Session, state: str = "error", **options: Any) -> int:
    message_id = added(session, **options)
    row = session.get_one(MiqQueue, message_id)
    row.state, row.last_error, row.attempts, row.updated_on = state, "broken", 3, utc() - timedelta(hours=1)
    session.flush()
    return message_id


# -- priority ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priority", "by", "earlier", "behind"), [(100, 10, 90, 110), (5, 10, 0, 15), (195, 10, 185, 200), (0, 0, 0, 0)]
)
def test_priority_moves_within_its_limits(priority: int, by: int, earlier: int, behind: int) -> None:
    assert (sooner(priority, by), later(priority, by)) == (earlier, behind)


# -- unqueue, requeue, unget -------------------------------------------------------------------------------------------


def test_unqueue_takes_the_most_urgent_equal_one(session: Session) -> None:
    low, high, other = added(session, args=[1]), added(session, args=[1], priority=20), added(session, args=[2])
    assert unqueue(session, replace(NOTE, args=[1])) == high
    assert unqueue(session, replace(NOTE, args=[1])) == low
    assert unqueue(session, replace(NOTE, args=[1])) is None
    assert ids(session) == [other]


@pytest.mark.parametrize(
    ("waiting", "asked", "found"),
    [
        ({"zone": None}, {"zone": "default"}, True),
        ({"zone": "default"}, {"zone": Inherit.ZONE}, True),
        ({"zone": "other"}, {"zone": "default"}, False),
        ({"zone": "default"}, {"zone": None}, False),
        ({"role": "event"}, {}, True),
        ({"role": "event"}, {"role": "notifier"}, False),
        ({"instance_id": 3}, {"instance_id": 3}, True),
        ({"callback": Callback("A", "b")}, {"callback": Callback("A", "b")}, True),
        ({"callback": Callback("A", "b")}, {"callback": Callback("A", "c")}, False),
        ({"queue_name": "ems_1"}, {}, False),
    ],
)
def test_unqueue_compares_what_is_given(
    session: Session, waiting: dict[str, Any], asked: dict[str, Any], found: bool
) -> None:
    message_id = added(session, **waiting)
    assert unqueue(session, replace(NOTE, **asked)) == (message_id if found else None)


def test_unqueue_leaves_alone_what_runs_and_finds_what_plain_sql_put(database: Database, session: Session) -> None:
    added(session)
    session.commit()
    claim(database, ME, Route("generic", "default", [], None))
    assert unqueue(session, NOTE) is None
    session.commit()
    database.run("INSERT INTO miq_queue (class_name, method_name) VALUES ('Test', 'note')")
    assert (
        unqueue(session, replace(NOTE, args=[]), frozenset({"class_name", "method_name", "args", "role"})) is not None
    )


def test_requeue_puts_a_copy(session: Session) -> None:
    message = replace(NOTE, args=[{"a": 1}], data=[7], callback=Callback("A", "b", args=["c"]), task_id="t", user_id=4)
    first = failed(session, message=message)
    copy = requeue(session, first, priority=20, args=["other"])
    old, new = rows(session)
    assert (old.id, old.state, new.id, new.state, new.attempts, new.last_error) == (
        first,
        "error",
        copy,
        "ready",
        0,
        None,
    )
    assert (new.priority, new.args, old.args) == (20, '["other"]', '[{"a": 1}]')
    same = ("class_name", "method_name", "miq_callback", "msg_data", "task_id", "user_id", "zone", "queue_name")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]


@pytest.mark.parametrize(
    "garbage", [{"args": "[1,"}, {"args": '{"a": 1}'}, {"msg_data": b"\x04"}, {"miq_callback": "[]"}]
)
def test_requeue_names_what_it_cannot_copy(session: Session, garbage: dict[str, Any]) -> None:
    message_id = added(session)
    for column, value in garbage.items():
        setattr(session.get_one(MiqQueue, message_id), column, value)
    session.flush()
    with pytest.raises(BadMessage, match=f"message {message_id} cannot be put again"):
        requeue(session, message_id)
    with pytest.raises(BadMessage, match="there is no message 4711"):
        requeue(session, 4711)


def test_unget_puts_the_same_row_back(database: Database, session: Session) -> None:
    message_id = added(session)
    session.commit()
    assert unget(session, message_id) is False
    session.commit()
    claim(database, ME, Route("generic", "default", [], None))
    due = utc() + timedelta(hours=1)
    assert unget(session, message_id, deliver_on=due) is True
    (row,) = rows(session)
    assert (row.id, row.state, row.handler_type, row.handler_id, row.attempts) == (message_id, "ready", None, None, 0)
    assert row.deliver_on == due


def test_unget_happens_with_the_callers_transaction_or_not_at_all(database: Database, session: Session) -> None:
    message_id = added(session)
    session.commit()
    claim(database, ME, Route("generic", "default", [], None))
    assert unget(session, message_id)
    session.rollback()
    assert [row.state for row in rows(session)] == ["dequeue"]


# -- broadcast ---------------------------------------------------------------------------------------------------------


def test_broadcast_goes_to_every_active_server(session: Session) -> None:
    states = ("starting", "started", "stopped", "not responding", "quiesce")
    session.add_all(MiqServer(guid=state, status=state) for state in states)
    session.flush()
    assert broadcast(session, replace(NOTE, zone=Inherit.ZONE, queue_name="miq_server")) == ids(session)
    assert {row.server_guid: (row.zone, row.role) for row in rows(session)} == {
        "starting": (None, None),
        "started": (None, None),
    }


@pytest.mark.parametrize("given", [{"zone": "default"}, {"role": "event"}, {"server_guid": "x"}])
def test_broadcast_refuses_an_address(session: Session, given: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match=r"a broadcast of Test\.note goes to every server"):
        broadcast(session, replace(NOTE, **given))


# -- failed messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["error", "timeout", "warn", "expired"])
def test_retry_makes_a_failed_message_as_good_as_new(database: Database, session: Session, state: str) -> None:
    past = utc() - timedelta(minutes=1)
    message_id = failed(session, state, deliver_on=utc() + timedelta(hours=1), expires_on=past)
    assert retry_failed(session, Failed([message_id])) == [message_id]
    (row,) = rows(session)
    assert (row.state, row.attempts, row.deliver_on, row.expires_on) == ("ready", 0, None, None)
    assert row.last_error == "broken"
    session.commit()
    assert [each.id for each in claim(database, ME, Route("generic", "default", [], None))] == [message_id]


def test_retry_wakes_the_workers_of_the_queue_at_commit(dsn: str, session: Session) -> None:
    failed(session, queue_name="ems_7")
    session.commit()
    listener = Database(dsn)
    heard: list[str] = []
    listener.listen("miq_queue:ems_7", heard.append)
    retry_failed(session, Failed())
    listener.run("SELECT 1")
    listener.take_notifications()
    assert heard == []
    session.commit()
    listener.run("SELECT 1")
    listener.take_notifications()
    listener.close()
    assert heard == [""]


def test_only_failed_messages_that_agree_are_chosen(session: Session) -> None:
    ready = added(session)
    error = failed(session)
    timeout = failed(session, "timeout", queue_name="ems_1")
    other = failed(session, class_name="Other", method_name="call")
    choices = {
        Failed(): [error, timeout, other],
        Failed((ready, error)): [error],
        Failed(()): [],
        Failed(state="timeout"): [timeout],
        Failed(state="ready"): [],
        Failed(queue_name="ems_1"): [timeout],
        Failed(class_name="Test"): [error, timeout],
        Failed(class_name="Other", method_name="call"): [other],
        Failed(class_name="Test", queue_name="generic"): [error],
        Failed(older_than=3000): [error, timeout, other],
        Failed(older_than=7200): [],
    }
    assert {chosen: choose_failed(session, chosen) for chosen in choices} == choices
    assert purge_failed(session, Failed(state="timeout")) == 1
    assert purge_failed(session, Failed()) == 2
    assert ids(session) == [ready]


def twins(session: Session, count: int) -> list[int]:
    """Failed messages of one kind."""
    found = []
    for _ in range(count):
        message_id = put_unless_exists(session, NOTE, match=THE_CALL)
        assert message_id is not None
        session.get_one(MiqQueue, message_id).state = "error"
        session.flush()
        found.append(message_id)
    return found


def test_one_of_several_twins_stays_of_its_kind(session: Session) -> None:
    first, *others = twins(session, 3)
    retry_failed(session, Failed())
    keys = {row.id: row.merge_key is not None for row in rows(session)}
    assert keys == {first: True, **dict.fromkeys(others, False)}
    assert put_unless_exists(session, NOTE, match=THE_CALL) == first


def test_a_twin_that_waits_already_stays_the_one(session: Session) -> None:
    (message_id,) = twins(session, 1)
    waiting = put_unless_exists(session, NOTE, match=THE_CALL)
    retry_failed(session, Failed())
    assert {row.id: (row.state, row.merge_key is None) for row in rows(session)} == {
        message_id: ("ready", True),
        waiting: ("ready", False),
    }


def test_a_twin_that_is_put_at_the_same_moment(dsn: str, database: Database, session: Session) -> None:
    """The other transaction has put it and is not over when the retry looks: the index holds the retry up."""
    (message_id,) = twins(session, 1)
    session.commit()
    other = Database(dsn)
    retried = Database(dsn)

    def retry() -> None:
        with retried.session() as its_own:
            retry_failed(its_own, Failed())

    with other.session() as putting:
        waiting = put_unless_exists(putting, NOTE, match=THE_CALL)
        thread = threading.Thread(target=retry)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(10)
    retried.close()
    other.close()
    assert {row.id: (row.state, row.merge_key is None) for row in rows(session)} == {
        message_id: ("ready", True),
        waiting: ("ready", False),
    }


def test_a_retry_that_is_rolled_back_never_was(session: Session) -> None:
    failed(session)
    session.commit()
    retry_failed(session, Failed())
    session.rollback()
    assert [row.state for row in rows(session)] == ["error"]


# -- jobs --------------------------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """What a VM's row is to the queue."""

    ems_id: int | None


def manager(session: Session, type_name: str = AMAZON, parent: int | None = None) -> int:
    zone_id = session.scalar(select(Zone.id).where(Zone.name == "other"))
    ems = ExtManagementSystem(name=f"m{parent}{type_name}", type=type_name, zone_id=zone_id, parent_ems_id=parent)
    session.add(ems)
    session.flush()
    return ems.id


def place(session: Session, service: str, affinity: Any = None, **options: Any) -> tuple[Any, ...]:
    message_id = submit_job(
        session, service=service, affinity=affinity, message=replace(NOTE, zone="default", **options)
    )
    row = session.get_one(MiqQueue, message_id)
    return row.queue_name, row.role, row.zone


@pytest.mark.parametrize(
    ("service", "where"),
    [
        ("automate", ("generic", "automate", None)),
        ("ems_operations", ("generic", "ems_operations", "default")),
        ("event", ("ems", "event", "default")),
        ("generic", ("generic", None, "default")),
        ("notifier", ("generic", "notifier", None)),
        ("reporting", ("reporting", "reporting", None)),
        ("smartproxy", ("smartproxy", "smartproxy", "default")),
        ("smartstate", ("generic", "smartstate", "default")),
    ],
)
def test_where_a_service_is_done(session: Session, service: str, where: tuple[Any, ...]) -> None:
    assert place(session, service, queue_name="elsewhere", role="elsewhere") == where


def test_an_urgent_report_does_not_wait_behind_the_long_ones(session: Session) -> None:
    assert place(session, "reporting", priority=20) == ("generic", "reporting", None)
    assert place(session, "reporting", priority=21) == ("reporting", "reporting", None)


def test_where_a_managers_work_is_done(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    ems_id = manager(session)
    network = manager(session, "ManageIQ::Providers::Amazon::NetworkManager", parent=ems_id)
    assert place(session, "ems_inventory", ems_id) == (f"ems_{ems_id}", "ems_inventory", "other")
    assert place(session, "ems_inventory", network) == (f"ems_{ems_id}", "ems_inventory", "other")
    assert place(session, "ems_operations", Machine(ems_id)) == ("generic", "ems_operations", "other")
    assert place(session, "smartstate", Machine(ems_id)) == ("generic", "smartstate", "other")
    assert place(session, "smartstate", Machine(None)) == ("generic", "smartstate", "default")

    class OperationsWorker(WorkerType):
        per, manager, required_roles = "manager", AMAZON, ("ems_operations",)

    monkeypatch.setitem(worker_types(), "Operations", OperationsWorker)
    assert place(session, "ems_operations", ems_id) == (f"ems_{ems_id}", "ems_operations", "other")


@pytest.mark.parametrize(
    ("service", "affinity", "said"),
    [
        ("generic", 1, "has no affinity"),
        ("ems_inventory", None, "give it as affinity"),
        ("ems_inventory", Machine(None), "give it as affinity"),
        ("ems_operations", 4711, "there is no manager 4711"),
        ("juggling", None, "no service 'juggling'; there are automate, ems_inventory"),
    ],
)
def test_a_job_that_cannot_be_placed(session: Session, service: str, affinity: Any, said: str) -> None:
    with pytest.raises(BadMessage, match=said):
        submit_job(session, NOTE, service=service, affinity=affinity)


# -- orphans -----------------------------------------------------------------------------------------------------------


def live_server(session: Session, *, silent: float = 0, status: str = "started") -> int:
    zone_id = session.scalar(select(Zone.id).where(Zone.name == "default"))
    server = MiqServer(guid="here", status=status, zone_id=zone_id, last_heartbeat=utc() - timedelta(seconds=silent))
    session.add(server)
    session.flush()
    session.execute(text("INSERT INTO server_roles (name) VALUES ('event'), ('ems_inventory'), ('smartstate')"))
    session.execute(
        text(
            "INSERT INTO assigned_server_roles (miq_server_id, server_role_id, active)"
            f" SELECT {server.id}, id, name <> 'smartstate' FROM server_roles"
        )
    )
    return server.id


def reasons(database: Database) -> dict[str | None, str]:
    return {orphan.queue_name: orphan.reason for orphan in orphans(database)}


def test_orphans_by_address_with_counts(home: Home, database: Database, session: Session) -> None:
    live_server(session)
    added(session, zone="default", role="event")
    for method in ("b", "a", "b"):
        added(session, method_name=method, role="smartstate", priority=50)
    added(session, role="smartstate", queue_name="x")
    added(session, role="smartstate", deliver_on=utc() + timedelta(hours=1))
    added(session, role="smartstate", expires_on=utc() - timedelta(seconds=1))
    failed(session, role="smartstate")
    session.commit()
    first, second = orphans(database)
    assert (first.queue_name, first.zone, first.role, first.count, first.methods, first.reason) == (
        "generic", None, "smartstate", 3, ("Test.a", "Test.b"), "role 'smartstate' is active nowhere",
    )  # fmt: skip
    assert (second.queue_name, second.count) == ("x", 1)
    assert first.oldest <= second.oldest


def test_nobody_cries_while_a_live_server_would_start_the_worker(
    home: Home, database: Database, session: Session
) -> None:
    live_server(session)
    for queue_name in ("generic", "x"):
        added(session, queue_name=queue_name)
    session.commit()
    assert reasons(database) == {"x": "no worker serves queue 'x'"}


def test_settings_decide_what_a_server_would_start(home: Home, database: Database, session: Session) -> None:
    server_id = live_server(session)
    added(session)
    session.commit()
    count = "/workers/worker_base/queue_worker_base/generic_worker/count"
    database.run(
        "INSERT INTO settings_changes (resource_type, resource_id, key, value)"
        " VALUES ('MiqServer', %(id)s, %(key)s, '0')",
        {"id": server_id, "key": count},
    )
    assert reasons(database) == {"generic": "no worker serves queue 'generic'"}
    database.run("UPDATE settings_changes SET value = 'many'")
    assert reasons(database) == {}


@pytest.mark.parametrize(("silent", "status"), [(3600, "started"), (0, "stopped"), (0, "not responding")])
def test_a_dead_server_starts_nobody_and_its_workers_are_dead(
    home: Home, database: Database, session: Session, silent: float, status: str
) -> None:
    server_id = live_server(session, silent=silent, status=status)
    worker = MiqWorker(type="MiqGenericWorker", status="started", queue_name="generic", miq_server_id=server_id)
    session.add(worker)
    added(session)
    session.commit()
    assert reasons(database) == {"generic": "no server runs"}
    worker.unsupervised = True
    session.commit()
    assert reasons(database) == {}


def test_a_worker_for_a_queue_of_its_own_counts_while_it_runs(home: Home, database: Database, session: Session) -> None:
    server_id = live_server(session)
    worker = MiqWorker(type="MiqGenericWorker", status="started", queue_name="x", miq_server_id=server_id)
    session.add_all([worker, MiqWorker(type="MiqScheduleWorker", status="started", queue_name="y")])
    added(session, queue_name="x")
    added(session, queue_name="y")
    session.commit()
    assert reasons(database) == {"y": "no worker serves queue 'y'"}
    worker.status = "stopping"
    session.commit()
    assert set(reasons(database)) == {"x", "y"}


# -- health ------------------------------------------------------------------------------------------------------------


def test_health_counts_each_queue(database: Database, session: Session) -> None:
    old = added(session, queue_name="a")
    session.get_one(MiqQueue, old).created_on = utc() - timedelta(hours=2)
    added(session, queue_name="a")
    added(session, queue_name="a", deliver_on=utc() + timedelta(hours=1))
    added(session, queue_name="a", expires_on=utc() - timedelta(hours=1))
    failed(session, queue_name="a")
    added(session, queue_name="b")
    session.commit()
    claim(database, ME, Route("b", "default", [], None))
    a, b = read_health(database).queues
    assert (a.queue_name, a.ready, a.deferred, a.running, a.failed) == ("a", 2, 1, 0, 1)
    assert a.age is not None and 7190 < a.age < 7300
    assert a.oldest == session.get_one(MiqQueue, old).created_on
    assert (b.queue_name, b.ready, b.running, b.oldest, b.age) == ("b", 0, 1, None, None)


def test_health_names_what_is_stuck(database: Database, session: Session) -> None:
    server = MiqServer(guid="s", name="EVM", pid=1)
    session.add(server)
    session.flush()
    worker = MiqWorker(type="MiqGenericWorker", pid=7, miq_server_id=server.id)
    session.add(worker)
    session.flush()

    def held(kind: str | None, handler_id: int | None, seconds: int) -> int:
        message_id = added(session)
        row = session.get_one(MiqQueue, message_id)
        row.state, row.handler_type, row.handler_id = "dequeue", kind, handler_id
        row.updated_on = utc() - timedelta(seconds=seconds)
        session.flush()
        return message_id

    late = held("MiqWorker", worker.id, 700)
    held("MiqWorker", worker.id, 500)
    gone = held("MiqWorker", worker.id + 1, 50)
    nobody = held(None, None, 40)
    held("MiqServer", server.id, 30)
    session.commit()
    stuck = read_health(database).stuck

    def told(message: Stuck) -> tuple[Any, ...]:
        return message.id, message.worker_type, message.pid, message.server, message.reason

    assert [told(message) for message in stuck] == [
        (late, "MiqGenericWorker", 7, "EVM", "it runs past its msg_timeout"),
        (gone, None, None, None, "its handler is gone"),
        (nobody, None, None, None, "its handler is gone"),
    ]
    assert [message.held is not None and message.held > 30 for message in stuck] == [True] * 3


def test_health_of_the_table(database: Database, session: Session) -> None:
    for _ in range(3):
        added(session)
    session.commit()
    database.run("DELETE FROM miq_queue")
    database.run("SELECT pg_stat_force_next_flush()")
    before = read_health(database).table
    assert (before.live_rows, before.dead_rows, before.last_vacuum, before.last_autovacuum) == (0, 3, None, None)
    database.run("VACUUM ANALYZE miq_queue")
    after = read_health(database).table
    assert (after.live_rows, after.dead_rows) == (0, 0)
    assert after.last_vacuum is not None and abs((utc() - after.last_vacuum).total_seconds()) < 60
    assert after.bytes > 0
