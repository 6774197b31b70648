"""Upkeep, by messages: what nobody would ever end is ended, what is old goes, and busy tables are kept small."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from miq.db import Database
from miq.models import Base
from miq.queue import upkeep
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery, deliver
from miq.queue.message import Message
from miq.queue.methods import load_methods
from miq.queue.put import put
from miq.queue.record import Outcome, record
from miq.queue.statements import statement
from miq.queue.upkeep import AT_ONCE
from miq.settings import Settings

ME = Handler("MiqWorker", 1)
SETTINGS = Settings({"task": {"active_task_timeout": "6.hours", "history": {"keep_tasks": "1.weeks"}}})


@pytest.fixture(autouse=True)
def registered() -> None:
    load_methods()


def run(database: Database, class_name: str, method_name: str, *args: Any, **info: Any) -> Outcome:
    """Put the message, urgent, and deliver it as a worker does."""
    with database.session() as session:
        put(session, Message(class_name, method_name, args, zone=None, priority=0))
    delivery = Delivery(database, ME, info={"settings": SETTINGS, **info})
    (message,) = claim(database, ME, Route("generic", "default", [], None))
    outcome = deliver(message, delivery)
    if not outcome.written:
        record(outcome, delivery)
    return outcome


def check(database: Database) -> dict[str, int]:
    outcome = run(database, "MiqQueue", "check_for_timeout")
    assert outcome.status == "ok", outcome.text
    counts: dict[str, int] = outcome.result
    return counts


def sql(database: Database, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    cursor = database.run(query, parameters or None)
    return cursor.fetchall() if cursor.description else []


def insert(database: Database, table: str = "miq_queue", **columns: Any) -> int:
    """A row as anybody may write it; times are SQL."""
    times = {name: value for name, value in columns.items() if name.endswith("_on") and isinstance(value, str)}
    names = ", ".join(columns)
    values = ", ".join(times.get(name, f"%({name})s") for name in columns)
    row = sql(database, f"INSERT INTO {table} ({names}) VALUES ({values}) RETURNING id", **columns)
    return int(row[0][0])


def message(database: Database, **columns: Any) -> int:
    return insert(database, **{"class_name": "Test", "method_name": "note", **columns})


def held(database: Database, handler_type: str | None, handler_id: int | None, **columns: Any) -> int:
    by = {"handler_type": handler_type, "handler_id": handler_id, "updated_on": "utc_now() - interval '11 s'"}
    return message(database, **{"state": "dequeue", **by, **columns})


def states(database: Database) -> dict[int, tuple[str, str | None]]:
    return {row[0]: (row[1], row[2]) for row in sql(database, "SELECT id, state, last_error FROM miq_queue")}


# -- messages that nobody will end -------------------------------------------------------------------------------------


def test_a_message_whose_handler_is_gone_ends_and_one_whose_handler_lives_never_does(database: Database) -> None:
    worker = insert(database, "miq_workers", type="MiqGenericWorker", status="started")
    server = insert(database, "miq_servers", name="EVM", status="started")
    old = "utc_now() - interval '1 year'"
    living = [held(database, "MiqWorker", worker, updated_on=old), held(database, "MiqServer", server, updated_on=old)]
    gone = [held(database, "MiqWorker", 4711), held(database, "MiqServer", 4711), held(database, "Nobody", worker)]
    unheld = [held(database, None, None), held(database, "MiqWorker", None, updated_on=None, created_on=old)]
    fresh = [
        held(database, "MiqWorker", 4712, updated_on="utc_now()"),
        held(database, None, None, updated_on="utc_now()"),
    ]
    assert check(database) == {"lost": 5, "expired": 0, "unclaimable": 0}
    found = states(database)
    assert [found[each] for each in living + fresh] == [("dequeue", None)] * 4
    assert [found[each][0] for each in gone + unheld] == ["error"] * 5
    assert found[gone[0]][1] == "MiqWorker 4711 has no row any more; whether Test.note had started, nobody knows"
    assert found[unheld[0]][1] == "no handler holds it; whether Test.note had started, nobody knows"
    assert check(database)["lost"] == 0


def test_who_waits_for_a_lost_message_is_told(database: Database) -> None:
    task = insert(database, "miq_tasks", name="try", state="Active", status="Ok")
    called = json.dumps({"class_name": "Test", "method_name": "note", "instance_id": 3, "args": ["mine"]})
    held(database, "MiqWorker", 4711, miq_task_id=task)
    held(database, "MiqWorker", 4711, miq_callback=called)
    assert check(database)["lost"] == 2
    assert sql(database, "SELECT state, status FROM miq_tasks") == [("Finished", "Error")]
    ((instance_id, args),) = sql(database, "SELECT instance_id, args FROM miq_queue WHERE state = 'ready'")
    assert (instance_id, json.loads(args)[:2]) == (3, ["mine", "error"])


def test_a_message_that_nobody_took_in_time_expires(database: Database) -> None:
    task = insert(database, "miq_tasks", name="try", state="Queued", status="Ok")
    called = json.dumps({"class_name": "Test", "method_name": "note", "args": []})
    past = "utc_now() - interval '1 s'"
    plain = message(database, expires_on=past)
    waited_for = message(database, expires_on=past, miq_task_id=task)
    called_back = message(database, expires_on=past, miq_callback=called)
    left = [message(database, expires_on="utc_now() + interval '1 hour'"), message(database)]
    running = message(database, expires_on=past, state="dequeue", handler_type="MiqWorker", handler_id=1)
    assert check(database)["expired"] == 3
    found = states(database)
    assert {found[each][0] for each in (plain, waited_for, called_back)} == {"expired"}
    assert str(found[plain][1]).startswith("no worker took it before it expired at 20")
    assert [found[each][0] for each in left] == ["ready", "ready"]
    assert found[running][0] == "dequeue"
    assert sql(database, "SELECT state, status FROM miq_tasks") == [("Finished", "Error")]
    ((args,),) = sql(database, "SELECT args FROM miq_queue WHERE priority = 20")
    assert json.loads(args)[0] == "expired"
    assert sql(database, "SELECT DISTINCT attempts FROM miq_queue") == [(0,)]
    assert check(database)["expired"] == 0


def test_what_no_claim_can_find_ends_with_what_is_wrong(database: Database) -> None:
    wrong = [
        message(database, queue_name=None),
        message(database, priority=None),
        message(database, queue_name="other", priority=None),
        message(database, priority=201),
        message(database, queue_name=None, priority=None),
        message(database, state=None),
    ]
    right = [message(database, priority=200), message(database, priority=-1, queue_name="other"), message(database)]
    assert check(database)["unclaimable"] == 6
    found = states(database)
    assert [found[each][1] for each in wrong] == [
        "queue_name is NULL: no worker serves it; write one, e.g. generic",
        "priority is NULL: no worker takes it; write 0 (soon) to 200",
        "priority is NULL: no worker takes it; write 0 (soon) to 200",
        "priority is 201: no worker takes it; write 0 (soon) to 200",
        "queue_name is NULL: no worker serves it; write one, e.g. generic",
        "state is NULL: no worker looks for it; write ready",
    ]
    assert [found[each][0] for each in right] == ["ready"] * 3
    assert check(database)["unclaimable"] == 0


def test_a_run_is_bounded_and_the_next_one_goes_on(database: Database) -> None:
    many = AT_ONCE + 5
    sql(
        database,
        "INSERT INTO miq_queue (class_name, expires_on) SELECT 'Test', utc_now() FROM generate_series(1, %(many)s)",
        many=many,
    )
    sql(
        database,
        "INSERT INTO miq_queue (class_name, priority) SELECT 'Test', NULL FROM generate_series(1, %(many)s)",
        many=many,
    )
    sql(
        database,
        "INSERT INTO miq_queue (class_name, state, updated_on)"
        " SELECT 'Test', 'dequeue', utc_now() - interval '1 hour' FROM generate_series(1, %(many)s)",
        many=many,
    )
    assert check(database) == {"lost": AT_ONCE, "expired": AT_ONCE, "unclaimable": AT_ONCE}
    assert check(database) == {"lost": 5, "expired": 5, "unclaimable": 5}
    assert check(database) == {"lost": 0, "expired": 0, "unclaimable": 0}


def test_a_row_that_somebody_claims_at_this_moment_is_not_waited_for(dsn: str, database: Database) -> None:
    message(database, expires_on="utc_now() - interval '1 s'")
    with psycopg.connect(dsn) as other:
        other.execute("SELECT id FROM miq_queue FOR UPDATE")
        assert check(database)["expired"] == 0
    assert check(database)["expired"] == 1


# -- tasks -------------------------------------------------------------------------------------------------------------


def task(database: Database, state: str, age: str, **columns: Any) -> int:
    times = {"updated_on": f"utc_now() - interval '{age}'"}
    return insert(database, "miq_tasks", **{"name": "try", "state": state, "status": "Ok", **times, **columns})


def test_active_tasks_that_nobody_touches_end(database: Database) -> None:
    silent = task(database, "Active", "6 hours 1 second")
    never_touched = task(database, "Active", "0", updated_on=None, created_on="utc_now() - interval '7 hours'")
    of_a_job = task(database, "Active", "7 hours")
    insert(database, "jobs", guid="job", state="finished", miq_task_id=of_a_job)
    others = [
        task(database, "Active", "5 hours"),
        task(database, "Queued", "9 days"),
        task(database, "Finished", "1 d"),
    ]
    assert run(database, "MiqTask", "update_status_for_timed_out_active_tasks").result == 2
    found = {row[0]: row[1:] for row in sql(database, "SELECT id, state, status, message FROM miq_tasks")}
    told = f"Task [{silent}] timed out - not active for more than 21600 seconds"
    assert found[silent] == ("Finished", "Error", told)
    assert found[never_touched][:2] == ("Finished", "Error")
    assert [found[each][0] for each in (of_a_job, *others)] == ["Active", "Active", "Queued", "Finished"]
    assert run(database, "MiqTask", "update_status_for_timed_out_active_tasks").result == 0


def test_finished_tasks_go_after_a_week(database: Database) -> None:
    task(database, "Finished", "8 days")
    done = task(database, "Finished", "8 days")
    insert(database, "jobs", guid="done", state="finished", miq_task_id=done)
    kept = [
        task(database, "Finished", "6 days"),
        task(database, "Queued", "8 days"),
        task(database, "Active", "1 year"),
    ]
    at_work = task(database, "Finished", "8 days")
    insert(database, "jobs", guid="at work", state="waiting", miq_task_id=at_work)
    assert run(database, "MiqTask", "purge_timer").result == 2
    assert sql(database, "SELECT array_agg(id ORDER BY id) FROM miq_tasks") == [([*kept, at_work],)]


def test_tasks_go_in_batches_that_are_committed_and_may_be_stopped_between(dsn: str, database: Database) -> None:
    sql(
        database,
        "INSERT INTO miq_tasks (state, updated_on) SELECT 'Finished', utc_now() - interval '8 days'"
        " FROM generate_series(1, %(many)s)",
        many=2 * AT_ONCE + 7,
    )
    seen: list[int] = []
    with psycopg.connect(dsn, autocommit=True) as other:

        def look() -> bool:
            row = other.execute("SELECT count(*) FROM miq_tasks").fetchone()
            assert row is not None
            seen.append(row[0])
            return len(seen) == 2

        delivery = Delivery(database, ME, stop_requested=look, info={"settings": SETTINGS})
        with database.session() as session:
            put(session, Message("MiqTask", "purge_timer", zone=None))
        outcome = deliver(claim(database, ME, Route("generic", None, [], None))[0], delivery)
    assert (outcome.status, seen) == ("stopped", [AT_ONCE + 7, 7])
    record(outcome, delivery)
    sql(database, "DELETE FROM miq_queue")
    assert run(database, "MiqTask", "purge_timer").result == 7


# -- tables ------------------------------------------------------------------------------------------------------------


def index_files(database: Database, table: str) -> dict[str, int]:
    return dict(
        sql(
            database,
            "SELECT c.relname, c.relfilenode::bigint FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = %(table)s::regclass",
            table=table,
        )
    )


def test_reindex_builds_every_index_anew_and_clears_what_an_interrupted_one_left(database: Database) -> None:
    before = index_files(database, "miq_queue")
    sql(database, "CREATE INDEX miq_queue_get_idx_ccnew ON miq_queue (priority)")
    sql(database, "CREATE INDEX odd ON miq_queue (class_name)")
    sql(
        database,
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid IN ('miq_queue_get_idx_ccnew'::regclass, 'odd'::regclass)",
    )
    assert run(database, "MiqQueue", "reindex").status == "ok"
    after = index_files(database, "miq_queue")
    assert after.keys() == before.keys() | {"odd"}
    assert [name for name in before if before[name] == after[name]] == []


def test_vacuum_and_analyze(database: Database) -> None:
    run(database, "MiqTask", "vacuum")
    task(database, "Queued", "0")
    outcome = run(database, "MiqTask", "vacuum")
    assert outcome.status == "ok", outcome.text
    assert sql(database, "SELECT reltuples::int FROM pg_class WHERE relname = 'miq_tasks'") == [(1,)]


def test_every_table_can_be_kept_up(database: Database) -> None:
    for model in Base.__subclasses__():
        assert run(database, model.__name__, "vacuum").status == "ok", model


def test_reindex_does_not_wait_for_ever(dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LOCK_TIMEOUT", 0.3)
    with psycopg.connect(dsn) as other:
        other.execute("LOCK TABLE miq_tasks IN ACCESS SHARE MODE")
        other.execute("SELECT 1 FROM miq_tasks")
        outcome = run(database, "MiqTask", "reindex")
    assert (outcome.status, "lock timeout" in outcome.text) == ("error", True)
    assert run(database, "MiqTask", "reindex").status == "ok"
    assert sql(database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    assert sql(database, "SHOW lock_timeout") == [("0",)]


def test_check_for_timeout_stays_quick_when_much_waits(database: Database) -> None:
    """It reads by index, whatever waits: counted in pages, not in seconds."""
    sql(
        database,
        "INSERT INTO miq_queue (class_name, queue_name, priority)"
        " SELECT 'Test', 'q' || n % 7, n % 200 FROM generate_series(1, 50000) AS n",
    )
    sql(database, "VACUUM ANALYZE miq_queue")
    for name, parameters in (
        ("end_unclaimable", {"limit": 10}),
        ("expire", {"limit": 10}),
        ("lost_handlers", {"limit": 10, "grace": 1.0}),
        ("adopt_unheld", {"limit": 10, "grace": 1.0}),
    ):
        plan = sql(database, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement(name)}", **parameters)
        root = plan[0][0][0]["Plan"]
        assert root["Shared Hit Blocks"] + root["Shared Read Blocks"] < 150, name
