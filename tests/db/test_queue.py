"""Put, claim, deliver, record and sweep, on a real database; the methods are registered here."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.channel import InHand, Slot
from miq.clock import utc
from miq.db import Database
from miq.errors import RetryLater, StopRequested
from miq.models import MiqQueue, MiqTask, Zone
from miq.queue.claim import Claimed, Handler, Route, claim, seconds_until_due
from miq.queue.deliver import Delivery, deliver
from miq.queue.message import Callback, Message
from miq.queue.methods import queue_method
from miq.queue.put import THE_CALL, Waiting, put, put_or_update, put_unless_exists
from miq.queue.record import record
from miq.queue.sweep import Death, sweep
from miq.queue.tasks import create_task, task_callback

ME = Handler("MiqWorker", 1)
GENERIC = Route("generic", "default", ["event"], "my-guid")
calls: list[Any] = []


@pytest.fixture(autouse=True)
def registered(registry: None) -> None:
    calls.clear()

    @queue_method("Test", "note", idempotent=True)
    def note(session: Session, row: None, *args: Any) -> str:
        calls.append(args)
        return "noted"

    @queue_method("Test", "fail")
    def fail(session: Session, row: None) -> None:
        session.add(Zone(name="half written"))
        session.flush()
        raise ValueError("broken\0 inside")

    @queue_method("Test", "later", idempotent=True)
    def later(session: Session, row: None) -> None:
        raise RetryLater(utc() + timedelta(hours=1))

    @queue_method("Test", "stopped", idempotent=True)
    def stopped(session: Session, row: None) -> None:
        raise StopRequested("asked")

    @queue_method("Test", "slow", idempotent=True)
    def slow(session: Session, row: None) -> None:
        time.sleep(30)

    @queue_method("Test", "zone", idempotent=True, model=Zone)
    def zone(session: Session, row: Zone) -> None:
        calls.append(row.name)


@pytest.fixture
def database(database: Database) -> Database:
    """With the zones that the tests name."""
    with database.session() as session:
        session.add_all([Zone(name="default"), Zone(name="other")])
    return database


def add(database: Database, method: str = "note", **options: Any) -> int:
    with database.session() as session:
        return _id(put(session, Message("Test", method, **options)))


def _id(message_id: int | None) -> int:
    assert message_id is not None
    return message_id


def rows(database: Database) -> list[MiqQueue]:
    with database.session() as session:
        return list(session.scalars(select(MiqQueue).order_by(MiqQueue.id)))


def take(database: Database, route: Route = GENERIC, limit: int = 1) -> list[Claimed]:
    return claim(database, ME, route, limit=limit)


def run_one(database: Database) -> str:
    delivery = Delivery(database, ME)
    outcome = deliver(take(database)[0], delivery)
    record(outcome, delivery)
    return outcome.status


# -- claim -------------------------------------------------------------------------------------------------------------


def test_most_urgent_first_then_oldest(database: Database) -> None:
    low, high, high2 = add(database, priority=150), add(database, priority=20), add(database, priority=20)
    assert [take(database)[0].id for _ in range(3)] == [high, high2, low]
    assert take(database) == []


@pytest.mark.parametrize(
    ("options", "mine"),
    [
        ({}, True),
        ({"queue_name": "ems_7"}, False),
        ({"zone": "default"}, True),
        ({"zone": "other"}, False),
        ({"role": "event"}, True),
        ({"role": "smartstate"}, False),
        ({"server_guid": "my-guid"}, True),
        ({"server_guid": "another"}, False),
        ({"deliver_on": utc() - timedelta(seconds=1)}, True),
        ({"deliver_on": utc() + timedelta(hours=1)}, False),
        ({"expires_on": utc() + timedelta(hours=1)}, True),
        ({"expires_on": utc() - timedelta(seconds=1)}, False),
    ],
)
def test_routing(database: Database, options: dict[str, Any], mine: bool) -> None:
    add(database, **options)
    assert bool(take(database)) is mine


def test_priority_ceiling(database: Database) -> None:
    add(database, priority=21)
    assert take(database, Route("generic", "default", [], None, max_priority=20)) == []


def test_a_claimed_row_says_who_has_it_and_counts_no_attempt(database: Database) -> None:
    add(database)
    take(database)
    row = rows(database)[0]
    assert (row.state, row.handler_type, row.handler_id, row.attempts, row.lock_version) == (
        "dequeue",
        "MiqWorker",
        1,
        0,
        1,
    )
    assert row.updated_on is not None


def test_a_busy_task_id_is_not_selectable(database: Database) -> None:
    first, _, other = add(database, task_id="t"), add(database, task_id="t"), add(database, task_id="u")
    assert [take(database)[0].id, take(database)[0].id] == [first, other]
    assert take(database) == []


def test_two_claimers_never_share_a_task_id(dsn: str, database: Database) -> None:
    """Many threads claim many messages of few task ids: the index lets no two of one id be out at once."""
    with database.session() as session:
        for number in range(60):
            put(session, Message("Test", "note", task_id=f"t{number % 3}"))
    out: dict[str, int] = {}
    overlaps: list[str] = []
    done: list[int] = []
    lock = threading.Lock()

    def work(handler_id: int) -> None:
        mine = Database(dsn)
        while len(done) < 60:
            for message in claim(mine, Handler("MiqWorker", handler_id), GENERIC):
                task_id = str(message.task_id)
                with lock:
                    out[task_id] = out.get(task_id, 0) + 1
                    if out[task_id] > 1:
                        overlaps.append(task_id)
                time.sleep(0.002)
                with lock:
                    out[task_id] -= 1
                mine.run("DELETE FROM miq_queue WHERE id = %(id)s", {"id": message.id})
                with lock:
                    done.append(message.id)
        mine.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (sorted(set(done)) == sorted(done), len(done), overlaps) == (True, 60, [])


def test_next_due(database: Database) -> None:
    assert seconds_until_due(database, "generic") is None
    add(database, deliver_on=utc() + timedelta(seconds=60))
    due = seconds_until_due(database, "generic")
    assert due is not None and 50 < due <= 60


def test_a_plain_insert_wakes_the_listeners_of_its_queue(dsn: str, database: Database) -> None:
    heard: list[str] = []
    database.listen("miq_queue:generic", lambda payload: heard.append("generic"))
    database.listen("miq_queue:other", lambda payload: heard.append("other"))
    with psycopg.connect(dsn, autocommit=True) as operator:
        operator.execute("INSERT INTO miq_queue (class_name, method_name) VALUES ('Test', 'note'), ('Test', 'note')")
    end = time.monotonic() + 5
    while not heard and time.monotonic() < end:
        database.take_notifications()
    assert heard == ["generic"]
    assert run_one(database) == "ok"


# -- deliver -----------------------------------------------------------------------------------------------------------


def test_a_message_that_ends_well_is_deleted(database: Database) -> None:
    add(database, args=[1, "two", None], target_id=9)
    assert run_one(database) == "ok"
    assert (calls, rows(database)) == ([(9, 1, "two", None)], [])


def test_a_failure_is_kept_and_leaves_nothing_half_written(database: Database) -> None:
    add(database, "fail")
    assert run_one(database) == "error"
    row = rows(database)[0]
    assert (row.state, row.last_error, row.handler_id) == ("error", "broken inside", None)
    with database.session() as session:
        assert session.scalars(select(Zone).where(Zone.name == "half written")).first() is None


def test_a_time_out_is_kept(database: Database) -> None:
    add(database, "slow", msg_timeout=1)
    began = time.monotonic()
    delivery = Delivery(database, ME)
    outcome = deliver(take(database)[0], delivery)
    assert (outcome.status, time.monotonic() - began < 10) == ("timeout", True)
    database.close()
    record(outcome, delivery)
    assert [row.state for row in rows(database)] == ["timeout"]


def test_retry_later_gives_the_message_back(database: Database) -> None:
    add(database, "later")
    assert run_one(database) == "retry"
    row = rows(database)[0]
    assert (row.state, row.attempts, row.deliver_on is not None and row.deliver_on > utc()) == ("ready", 0, True)


def test_a_stop_gives_the_message_back_without_an_attempt(database: Database) -> None:
    add(database, "stopped")
    assert run_one(database) == "stopped"
    assert [(row.state, row.attempts, row.handler_id) for row in rows(database)] == [("ready", 0, None)]


def test_an_instance_call_gets_its_row_and_warns_when_it_is_gone(database: Database) -> None:
    with database.session() as session:
        zone = Zone(name="z")
        session.add(zone)
        session.flush()
        put(session, Message("Test", "zone", instance_id=zone.id))
        put(session, Message("Test", "zone", instance_id=zone.id + 99))
    assert [run_one(database), run_one(database)] == ["ok", "warn"]
    assert calls == ["z"]
    assert [row.state for row in rows(database)] == ["warn"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"class_name": "Os", "method_name": "system"}, "Os.system is not a queue method"),
        ({"class_name": None, "method_name": None}, "None.None is not a queue method"),
        ({"class_name": "Test", "method_name": "note", "args": "[1,"}, "args are not JSON"),
        ({"class_name": "Test", "method_name": "note", "args": '{"a": 1}'}, "args are dict, not an array"),
        ({"class_name": "Test", "method_name": "note", "instance_id": 3}, "is a class method"),
        ({"class_name": "Test", "method_name": "zone", "args": "[1, 2, 3]", "instance_id": None}, "argument"),
    ],
)
def test_a_row_that_cannot_be_delivered_ends_as_error(database: Database, columns: dict[str, Any], said: str) -> None:
    names = ", ".join(columns)
    values = ", ".join(f"%({name})s" for name in columns)
    database.run(f"INSERT INTO miq_queue ({names}) VALUES ({values})", columns)
    assert run_one(database) == "error"
    row = rows(database)[0]
    assert row.state == "error" and said in (row.last_error or "")


def test_the_callback_is_called_with_the_outcome(database: Database) -> None:
    add(database, args=["x"], callback=Callback("Test", "note", args=["back"]))
    run_one(database)
    assert calls == [("x",), ("back", "ok", "", "noted")]


def test_a_callback_that_fails_does_not_keep_the_message(database: Database) -> None:
    add(database, callback=Callback("Test", "fail"))
    assert run_one(database) == "ok"
    assert rows(database) == []


@pytest.mark.parametrize(("method", "state", "status"), [("note", "Finished", "Ok"), ("fail", "Finished", "Error")])
def test_a_task_follows_its_message(database: Database, method: str, state: str, status: str) -> None:
    with database.session() as session:
        task_id = create_task(session, "try")
        put(session, Message("Test", method, miq_task_id=task_id, callback=task_callback(task_id)))
    run_one(database)
    with database.session() as session:
        task = session.get_one(MiqTask, task_id)
        assert (task.state, task.status, task.started_on is not None) == (state, status, True)
        assert task.results == ('"noted"' if method == "note" else None)


# -- merge -------------------------------------------------------------------------------------------------------------


def test_put_unless_exists_counts_args_and_ignores_what_is_being_done(database: Database) -> None:
    def try_it(*args: Any) -> int:
        with database.session() as session:
            return _id(put_unless_exists(session, Message("Test", "note", args)))

    first = try_it(1)
    assert try_it(1) == first
    assert try_it(2) != first
    take(database)
    again = try_it(1)
    assert again != first


def test_put_or_update_changes_the_one_that_waits(database: Database) -> None:
    def merge(waiting: Waiting | None) -> dict[str, Any] | None:
        return {"args": [*waiting.args, 2]} if waiting else None

    with database.session() as session:
        first = put_or_update(session, Message("Test", "note", [1]), merge, match=THE_CALL)
        second = put_or_update(session, Message("Test", "note", [2]), merge, match=THE_CALL)
    assert first == second
    assert [row.args for row in rows(database)] == ["[1, 2]"]


def test_two_putters_at_once_make_one_row(dsn: str, database: Database) -> None:
    barrier = threading.Barrier(4)

    def work() -> None:
        mine = Database(dsn)
        barrier.wait(10)
        for _ in range(20):
            with mine.session() as session:
                put_unless_exists(session, Message("Test", "note", [1]))
        mine.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(rows(database)) == 1


# -- sweep -------------------------------------------------------------------------------------------------------------


def died(database: Database, in_hand: InHand | None, *, counts: bool = True) -> tuple[list[int], list[int]]:
    with database.transaction() as connection:
        swept = sweep(connection, Death("MiqWorker", 1, in_hand, "worker 1 died: SIGKILL", counts))
    return swept.returned, swept.failed


def hand(message_id: int, *, idempotent: bool) -> InHand:
    return InHand(message_id, 0.0, idempotent, 0)


def test_held_messages_go_back_free_and_the_one_in_hand_counts(database: Database) -> None:
    first, second = add(database), add(database)
    take(database, limit=2)
    assert died(database, hand(first, idempotent=True)) == ([second, first], [])
    assert [(row.state, row.attempts, row.handler_id) for row in rows(database)] == [
        ("ready", 1, None),
        ("ready", 0, None),
    ]


def test_a_message_that_is_not_idempotent_ends_as_error_and_its_callback_becomes_a_message(database: Database) -> None:
    message = add(database, callback=Callback("Test", "note", args=["back"]))
    take(database)
    assert died(database, hand(message, idempotent=False)) == ([], [message])
    kept, callback = rows(database)
    assert kept.state == "error" and "SIGKILL" in (kept.last_error or "")
    assert (callback.class_name, callback.method_name) == ("Test", "note")
    assert run_one(database) == "ok"
    assert calls[0][:2] == ("back", "error")


def test_the_third_death_at_one_message_is_the_last(database: Database) -> None:
    message = add(database)
    for attempt in (1, 2):
        database.run("UPDATE miq_queue SET deliver_on = NULL")
        assert [taken.id for taken in take(database)] == [message]
        assert died(database, hand(message, idempotent=True)) == ([message], [])
        assert rows(database)[0].attempts == attempt
    database.run("UPDATE miq_queue SET deliver_on = NULL")
    take(database)
    assert died(database, hand(message, idempotent=True)) == ([], [message])
    assert (rows(database)[0].state, rows(database)[0].attempts) == ("error", 3)


def test_a_commanded_stop_is_no_attempt(database: Database) -> None:
    message = add(database)
    take(database)
    assert died(database, hand(message, idempotent=True), counts=False) == ([message], [])
    assert rows(database)[0].attempts == 0


def test_redelivery_that_meets_a_waiting_twin_merges_into_it(database: Database) -> None:
    with database.session() as session:
        task_id = create_task(session, "try")
        waited_for = Message("Test", "note", miq_task_id=task_id, callback=task_callback(task_id))
        first = _id(put_unless_exists(session, waited_for, match=THE_CALL))
    take(database)
    with database.session() as session:
        twin = put_unless_exists(session, Message("Test", "note"), match=THE_CALL)
    died(database, hand(first, idempotent=True))
    left = rows(database)
    assert [(row.id, row.state, row.miq_task_id) for row in left] == [(twin, "ready", task_id)]
    assert left[0].miq_callback is not None


def test_the_task_of_a_lost_message_is_told(database: Database) -> None:
    with database.session() as session:
        task_id = create_task(session, "try")
        message = _id(put(session, Message("Test", "note", miq_task_id=task_id)))
    take(database)
    died(database, hand(message, idempotent=False))
    with database.session() as session:
        task = session.get_one(MiqTask, task_id)
        assert (task.state, task.status) == ("Finished", "Error") and "SIGKILL" in (task.message or "")


def test_the_slot_knows_the_message_while_it_runs(database: Database, tmp_path: Path) -> None:
    slot = Slot(tmp_path / "slot")
    seen: list[InHand] = []

    @queue_method("Test", "look", idempotent=True)
    def look(session: Session, row: None) -> None:
        seen.append(slot.read())

    message = add(database, "look", msg_timeout=50)
    delivery = Delivery(database, ME, slot)
    record(deliver(take(database)[0], delivery), delivery)
    assert (seen[0].message_id, seen[0].idempotent, seen[0].finished) == (message, True, 0)
    assert 0 < seen[0].deadline - time.monotonic() <= 50
    assert (slot.read().message_id, slot.read().finished) == (0, 1)
    slot.remove()
