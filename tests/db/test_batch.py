"""What a worker holds: run one after the other, ended together, and given back when it may not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from miq.channel import Slot
from miq.db import Database
from miq.errors import ExitNow
from miq.models import MiqQueue, MiqTask, Zone
from miq.queue.batch import Batch
from miq.queue.claim import BEGINNING, Claimer, Handler, Route, claim
from miq.queue.deliver import Delivery
from miq.queue.give_back import give_back
from miq.queue.message import Message
from miq.queue.methods import queue_method
from miq.queue.put import THE_CALL, put, put_many, put_or_update, put_unless_exists
from miq.queue.tasks import create_task, task_callback
from miq.session import run_in

ME, OTHER = Handler("MiqWorker", 1), Handler("MiqWorker", 2)
ROUTE = Route("generic", None, [], None)
ran: list[Any] = []
during: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def registered(registry: None) -> None:
    ran.clear()
    during.clear()

    @queue_method("Test", "note", idempotent=True)
    def note(session: Session, row: None, *args: Any) -> None:
        ran.append(args)
        for act in during:
            act()

    @queue_method("Test", "once")
    def once(session: Session, row: None, *args: Any) -> None:
        note(session, row, *args)

    @queue_method("Test", "write", idempotent=True)
    def write(session: Session, row: None, name: str) -> None:
        session.add(Zone(name=name))
        session.flush()
        for act in during:
            act()

    @queue_method("Test", "sleep", idempotent=True)
    def sleep(session: Session, row: None, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        ran.append("slept")


@pytest.fixture
def batch(database: Database, tmp_path: Path) -> Batch:
    return Batch(Delivery(database, ME, Slot(tmp_path / "slot")), lambda: False)


def add(database: Database, *messages: Message) -> None:
    with database.session() as session:
        put_many(session, messages)


def states(database: Database) -> list[tuple[str | None, int | None]]:
    with database.session() as session:
        return [(row.state, row.handler_id) for row in session.scalars(select(MiqQueue).order_by(MiqQueue.id))]


def states_from_outside(dsn: str) -> list[tuple[str | None, int | None]]:
    with closing(Database(dsn)) as other:
        return states(other)


def test_short_messages_are_ended_together(database: Database, batch: Batch) -> None:
    add(database, *(Message("Test", "note", [n]) for n in range(300)))
    commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    database.run("SELECT pg_stat_force_next_flush()")
    before = database.run(commits).fetchone()
    batch.work(claim(database, ME, ROUTE, limit=300))
    database.run("SELECT pg_stat_force_next_flush()")
    after = database.run(commits).fetchone()
    assert ran == [(n,) for n in range(300)]
    assert states(database) == []
    assert before is not None and after is not None and after[0] - before[0] <= 8


def test_one_that_must_not_run_twice_is_ended_before_the_next_one_starts(
    dsn: str, database: Database, batch: Batch
) -> None:
    left: list[int] = []

    def look() -> None:
        with psycopg.connect(dsn) as other:
            left.extend(other.execute("SELECT count(*) FROM miq_queue").fetchone() or ())

    during.append(look)
    add(database, *(Message("Test", "once", [n]) for n in range(3)))
    batch.work(claim(database, ME, ROUTE, limit=3))
    assert left == [3, 2, 1]


def test_what_a_method_did_and_that_it_was_done_are_one_transaction(dsn: str, database: Database, batch: Batch) -> None:
    """The backend is killed after the work, before its commit: neither the row is there nor the message gone."""
    add(database, Message("Test", "write", ["lost"]), Message("Test", "write", ["kept"]))
    pid = database.backend_pid

    def kill() -> None:
        during.clear()
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))

    during.append(kill)
    with pytest.raises(psycopg.OperationalError):
        batch.work(claim(database, ME, ROUTE, limit=2))
    assert states_from_outside(dsn) == [("dequeue", 1), ("dequeue", 1)]
    batch.recover()
    assert states(database) == [("ready", None), ("ready", None)]
    batch.work(claim(database, ME, ROUTE, limit=2))
    with database.session() as session:
        assert sorted(session.scalars(select(Zone.name)).all(), key=str) == ["kept", "lost"]
    assert states(database) == []


def test_an_end_that_could_not_be_written_is_written_first(dsn: str, database: Database, batch: Batch) -> None:
    """The database goes away while a message that must not run twice runs: it is over, and the slot says so."""
    pid = database.backend_pid
    slot = batch.delivery.slot
    assert slot is not None

    def kill() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))

    during.append(kill)
    add(database, Message("Test", "once", [1]), Message("Test", "once", [2]))
    with pytest.raises(psycopg.OperationalError):
        batch.work(claim(database, ME, ROUTE, limit=2))
    assert (slot.read().message_id > 0, slot.read().over, slot.read().finished) == (True, True, 1)
    assert states_from_outside(dsn) == [("dequeue", 1), ("dequeue", 1)]
    batch.recover()
    assert (slot.read().message_id, states(database), ran) == (0, [("ready", None)], [(1,)])


@pytest.mark.parametrize(
    ("method", "options", "waits"),
    [("once", {}, True), ("note", {"task_id": "t"}, True), ("note", {}, False)],
    ids=["it must not run twice", "it keeps others out", "it may run again"],
)
def test_a_claim_is_on_disk_before_what_relies_on_it_starts(
    dsn: str, database: Database, batch: Batch, method: str, options: dict[str, Any], waits: bool
) -> None:
    """A crash of PostgreSQL may forget a claim that was committed without waiting: then another worker takes it."""
    add(database, Message("Test", method, **options))
    flushed: list[bool] = []
    with psycopg.connect(dsn, autocommit=True) as other:
        written = "SELECT pg_current_wal_insert_lsn()"
        taken = claim(database, ME, ROUTE)
        (position,) = other.execute(written).fetchone() or ()
        look = "SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn"
        during.append(lambda: flushed.extend(other.execute(look, (position,)).fetchone() or ()))
        batch.work(taken)
    assert batch.delivery.lasting is waits
    if waits:
        assert flushed == [True]


def test_what_waits_behind_a_long_message_goes_to_others_while_it_runs(
    dsn: str, database: Database, batch: Batch
) -> None:
    add(
        database,
        Message("Test", "note"),
        Message("Test", "sleep", [2.5]),
        Message("Test", "note"),
        Message("Test", "note"),
    )
    taken = claim(database, ME, ROUTE, limit=4)
    seen: list[Any] = []

    def watch() -> None:
        time.sleep(1.8)
        mine = Database(dsn)
        seen.append([each.id for each in claim(mine, OTHER, ROUTE, limit=10)])
        seen.append(states(mine))
        mine.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    batch.work(taken)
    watcher.join(10)
    assert seen == [[each.id for each in taken[2:]], [("dequeue", 1), ("dequeue", 2), ("dequeue", 2)]]
    assert ran == [(), "slept"]
    assert states(database) == [("dequeue", 2), ("dequeue", 2)]


def test_a_time_out_ends_the_worker_and_gives_the_rest_back(database: Database, batch: Batch) -> None:
    add(database, Message("Test", "note"), Message("Test", "sleep", [30], msg_timeout=1), Message("Test", "note"))
    with pytest.raises(ExitNow) as left:
        batch.work(claim(database, ME, ROUTE, limit=3))
    assert left.value.code == 1
    assert states(database) == [("timeout", None), ("ready", None)]


@pytest.mark.parametrize("way", ["plain", "orm", "swallowed"])
def test_a_time_out_in_the_middle_of_a_statement(database: Database, batch: Batch, way: str) -> None:
    @queue_method("Test", "wait_long")
    def wait_long(session: Session, row: None) -> None:
        session.add(Zone(name="half done"))
        try:
            run_in(session, "SELECT pg_sleep(30)") if way == "plain" else session.execute(text("SELECT pg_sleep(30)"))
        except Exception:
            if way != "swallowed":
                raise
            raise ValueError("something else") from None

    add(database, Message("Test", "wait_long", msg_timeout=1))
    began = time.monotonic()
    with pytest.raises(ExitNow):
        batch.work(claim(database, ME, ROUTE))
    assert time.monotonic() - began < 10
    assert database.run("SELECT state, last_error FROM miq_queue").fetchall() == [
        ("timeout", "timed out after 1 seconds")
    ]
    assert database.run("SELECT count(*) FROM zones").fetchone() == (0,)
    running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(30)'"
    assert database.run(running + " AND state = 'active' AND pid <> pg_backend_pid()").fetchone() == (0,)


def test_a_stop_finishes_the_message_in_hand_and_gives_the_rest_back(database: Database, tmp_path: Path) -> None:
    add(database, *(Message("Test", "note", [n]) for n in range(3)))
    batch = Batch(Delivery(database, ME, Slot(tmp_path / "slot")), lambda: len(ran) == 1)
    batch.work(claim(database, ME, ROUTE, limit=3))
    assert (ran, states(database)) == ([(0,)], [("ready", None), ("ready", None)])


def test_what_is_not_ours_any_more_is_neither_ended_nor_told(dsn: str, database: Database, batch: Batch) -> None:
    """The server took the worker for dead while it ran: the message belongs to another one now."""
    with database.session() as session:
        task_id = create_task(session, "try")
        put(session, Message("Test", "once", miq_task_id=task_id, callback=task_callback(task_id)))

    def steal() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("UPDATE miq_queue SET handler_id = 2")

    during.append(steal)
    batch.work(claim(database, ME, ROUTE))
    assert states(database) == [("dequeue", 2)]
    with database.session() as session:
        assert session.get_one(MiqTask, task_id).state == "Active"


# -- coming back -------------------------------------------------------------------------------------------------------


def held_twins(database: Database, args: list[Any], waiting: list[Any], *, both_wait: bool) -> tuple[int, int]:
    """A message that is held and a ready one of its kind, each with a task if `both_wait`, else only the first."""
    with database.session() as session:
        tasks = [create_task(session, "held"), create_task(session, "waits")]
        put_unless_exists(
            session,
            Message("Test", "note", args, miq_task_id=tasks[0], callback=task_callback(tasks[0])),
            match=THE_CALL,
        )
    (held,) = claim(database, ME, ROUTE)
    callback = task_callback(tasks[1]) if both_wait else None
    with database.session() as session:
        twin = Message("Test", "note", waiting, miq_task_id=tasks[1] if both_wait else None, callback=callback)
        put_or_update(session, twin, lambda found: None, match=THE_CALL)
    return held.id, tasks[0]


@pytest.mark.parametrize(
    ("args", "waiting", "both_wait", "left"),
    [([1], [1], False, 1), ([1], [1], True, 2), ([1], [2], False, 2)],
    ids=["it does the work of both", "somebody waits for each", "it asks for something else"],
)
def test_one_that_comes_back_to_a_waiting_twin(
    database: Database, args: list[Any], waiting: list[Any], both_wait: bool, left: int
) -> None:
    held, task_id = held_twins(database, args, waiting, both_wait=both_wait)
    with database.transaction() as connection:
        give_back(connection, ME, [held])
    with database.session() as session:
        rows = session.scalars(select(MiqQueue).order_by(MiqQueue.id)).all()
        assert (len(rows), {row.state for row in rows}) == (left, {"ready"})
        assert task_id in {row.miq_task_id for row in rows}
        assert sum(row.merge_key is not None for row in rows) == 1


def test_two_of_a_kind_come_back_at_once(database: Database) -> None:
    ids = []
    for _ in range(2):
        with database.session() as session:
            put_unless_exists(session, Message("Test", "note"), match=THE_CALL)
        ids += [each.id for each in claim(database, ME, ROUTE)]
    with database.transaction() as connection:
        give_back(connection, ME, ids)
    assert states(database) == [("ready", None), ("ready", None)]


# -- the place of the last claim ---------------------------------------------------------------------------------------


def test_a_claimer_goes_on_behind_what_it_took_and_hears_of_what_comes_before(database: Database) -> None:
    add(database, *(Message("Test", "note", priority=100) for _ in range(4)))
    claimer = Claimer(database, ME, ROUTE)
    first = claimer.take(2)
    database.run("UPDATE miq_queue SET state = 'ready' WHERE id = %(id)s", {"id": first[0].id})
    assert [each.id for each in claimer.take(1)] == [first[1].id + 1], "it does not look at the beginning"
    claimer.heard("100")
    assert claimer._after != BEGINNING
    claimer.heard("20")
    assert [each.id for each in claimer.take(1)] == [first[0].id], "something more urgent was told of"


def test_a_claimer_that_finds_nothing_behind_looks_from_the_beginning(database: Database) -> None:
    add(database, Message("Test", "note"), Message("Test", "note"))
    claimer = Claimer(database, ME, ROUTE)
    taken = claimer.take(2)
    database.run("UPDATE miq_queue SET state = 'ready'")
    assert [each.id for each in claimer.take(2)] == [each.id for each in taken]


def test_the_next_of_a_task_id_is_told_to_the_queue_where_it_waits(database: Database, batch: Batch) -> None:
    add(database, Message("Test", "note", task_id="t"), Message("Test", "note", task_id="t", queue_name="elsewhere"))
    taken = claim(database, ME, ROUTE)
    heard: list[str] = []
    database.listen("miq_queue:elsewhere", heard.append)
    assert claim(database, OTHER, Route("elsewhere", None, [], None)) == []
    batch.work(taken)
    database.run("SELECT 1")
    database.take_notifications()
    assert heard == [""]
    assert len(claim(database, OTHER, Route("elsewhere", None, [], None))) == 1


def test_a_claim_takes_one_of_each_task_id(database: Database) -> None:
    add(database, *(Message("Test", "note", task_id=task_id) for task_id in ("a", "a", "b", None, "b", None)))
    first = claim(database, ME, ROUTE, limit=10)
    assert [each.task_id for each in first] == ["a", "b", None, None]
    assert claim(database, OTHER, ROUTE, limit=10) == []
    with database.session() as session:
        run_in(session, "DELETE FROM miq_queue WHERE state = 'dequeue' AND task_id = 'a'")
    assert [each.task_id for each in claim(database, OTHER, ROUTE, limit=10)] == ["a"]


def test_a_time_out_whose_end_could_not_be_written_ends_the_worker_after_the_outage(
    dsn: str, database: Database, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, Message("Test", "sleep", [30], msg_timeout=1))
    taken = claim(database, ME, ROUTE)
    monkeypatch.setattr(database, "dsn", f"{dsn}&port=1" if "?" in dsn else f"{dsn}?port=1")
    with pytest.raises(psycopg.OperationalError):
        batch.work(taken)
    monkeypatch.setattr(database, "dsn", dsn)
    assert states(database) == [("dequeue", 1)]
    with pytest.raises(ExitNow):
        batch.recover()
    assert states(database) == [("timeout", None)]
