"""Every option of a put, and what it inherits from where it happens; the methods that are called note what they got."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.db import Database
from miq.errors import BadMessage
from miq.models import MiqQueue, MiqRegion, Zone
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery, deliver
from miq.queue.message import Callback, Inherit, Message, Origin
from miq.queue.methods import queue_method
from miq.queue.put import CALL_AND_ARGS, THE_CALL, put, put_many, put_now, put_or_update, put_unless_exists
from miq.queue.record import record

ME = Handler("MiqWorker", 1)
calls: list[Any] = []


@pytest.fixture(autouse=True)
def registered(registry: None) -> None:
    calls.clear()

    @queue_method("Test", "note", idempotent=True)
    def note(session: Session, row: None, *args: Any) -> None:
        calls.append(args)

    @queue_method("Test", "put_more", idempotent=True)
    def put_more(session: Session, row: None) -> None:
        put(session, Message("Test", "note", ["inherits"]))
        put(session, Message("Test", "note", ["leaves"], task_id=None))
        put_many(session, [Message("Test", "note", ["inherits too"])])


@pytest.fixture
def database(database: Database) -> Database:
    """With a zone `default` and a zone for maintenance."""
    with database.session() as session:
        maintenance = Zone(name="__maintenance__", visible=False)
        session.add_all([Zone(name="default"), maintenance])
        session.flush()
        session.add(MiqRegion(region=0, maintenance_zone_id=maintenance.id))
    return database


def rows(database: Database) -> list[MiqQueue]:
    with database.session() as session:
        return list(session.scalars(select(MiqQueue).order_by(MiqQueue.id)))


def run_all(database: Database, zone: str | None = "default") -> None:
    delivery = Delivery(database, ME, info={"zone": zone})
    for message in claim(database, ME, Route("generic", zone, [], None), limit=100):
        record(deliver(message, delivery), delivery)


def test_every_option_reaches_its_column(database: Database) -> None:
    later, end = utc().replace(microsecond=0), utc().replace(microsecond=0) + timedelta(days=1)
    options: dict[str, Any] = {
        "instance_id": 3, "target_id": 4, "queue_name": "ems_7", "zone": "default", "role": "event",
        "server_guid": "g", "priority": 20, "deliver_on": later, "expires_on": end, "msg_timeout": 7, "task_id": "t",
        "miq_task_id": 8, "tracking_label": "label", "user_id": 9, "group_id": 10, "tenant_id": 11,
    }  # fmt: skip
    message = Message("Test", "note", [1, {"a": None}], data={"d": 1}, callback=Callback("A", "b", 5, [6]), **options)
    with database.session() as session:
        put(session, message)
        put_many(session, [message])
    put_now(database, message)
    written = rows(database)
    assert len(written) == 3
    for row in written:
        assert {name: getattr(row, name) for name in options} == options
        assert (row.class_name, row.method_name, row.args, row.state) == ("Test", "note", '[1, {"a": null}]', "ready")
        assert row.msg_data == b'{"d": 1}'
        assert row.miq_callback == '{"class_name": "A", "method_name": "b", "instance_id": 5, "args": [6]}'
        assert (row.attempts, row.lock_version, row.created_on is not None) == (0, 0, True)


def test_what_is_not_given_is_as_in_the_modelled_system(database: Database) -> None:
    with database.session() as session:
        put(session, Message("Test", "note"))
    (row,) = rows(database)
    assert (row.queue_name, row.priority, row.msg_timeout, row.args, row.state) == ("generic", 100, 600, "[]", "ready")
    assert (row.zone, row.role, row.server_guid, row.task_id, row.miq_callback) == (None,) * 5


def test_the_zone_is_mine_or_any_for_a_role_of_the_region(database: Database) -> None:
    with database.session() as session:
        session.info["zone"] = "default"
        put(session, Message("Test", "note"))
        put(session, Message("Test", "note", role="ems_operations"))
        put(session, Message("Test", "note", role="notifier"))
        put(session, Message("Test", "note", role="notifier", zone="default"))
        put(session, Message("Test", "note", zone=None))
    assert [row.zone for row in rows(database)] == ["default", "default", None, "default", None]


def test_follow_ups_inherit_task_id_and_label_unless_they_leave_the_chain(database: Database) -> None:
    with database.session() as session:
        put(session, Message("Test", "put_more", task_id="chain", zone="default"))
    run_all(database)
    assert [(row.args, row.task_id, row.tracking_label, row.zone) for row in rows(database)] == [
        ('["inherits"]', "chain", "chain", "default"),
        ('["leaves"]', None, "chain", "default"),
        ('["inherits too"]', "chain", "chain", "default"),
    ]


def test_target_comes_first_and_data_last(database: Database) -> None:
    with database.session() as session:
        put(session, Message("Test", "note", ["a"], target_id=5, data={"d": 1}))
        put(session, Message("Test", "note", "not an array"))
        put(session, Message("Test", "note", data=[]))
    run_all(database)
    assert calls == [(5, "a", {"d": 1}), ("not an array",), ([],)]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Message("Test", "note", priority=201), "priority 201 of Test.note: write a number from 0"),
        (Message("Test", "note", priority=-1), "priority -1"),
        (Message("Test", "note", msg_timeout=0), "msg_timeout 0 of Test.note: write seconds"),
        (Message("Test", "note", [utc()]), "args of Test.note cannot be sent"),
        (Message("Test", "note", [float("nan")]), "args of Test.note cannot be sent"),
        (Message("Test", "note", ["\0"]), "NUL"),
        (Message("Test", "note", data=object()), "data of Test.note cannot be sent"),
        (Message("Test", "note", callback=Callback("A", "b", args=[object()])), "the callback's args cannot be sent"),
        (Message("Test", "note", zone="nowhere"), "there is no zone 'nowhere'"),
        (Message("Test", "note", instance_id=2**70), "Test.note does not fit its columns"),
    ],
)
def test_what_no_worker_could_take_is_refused_and_nothing_is_written(
    database: Database, message: Message, said: str
) -> None:
    for verb in (put, put_unless_exists):
        with pytest.raises(BadMessage, match=said.replace("(", "\\(")), database.session() as session:
            verb(session, message)
    assert rows(database) == []


def test_the_maintenance_zone_takes_nothing_and_the_log_says_so(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("miq"), "propagate", True)
    message = Message("Test", "note", zone="__maintenance__")
    with caplog.at_level(logging.WARNING, "miq"), database.session() as session:
        assert put(session, message) is None
        assert put_unless_exists(session, message) is None
        assert put_or_update(session, message, lambda waiting: {"args": [1]}) is None
        assert put_many(session, [message, Message("Test", "note", zone="default")]) == 1
    assert put_now(database, message) is None
    assert [record.message for record in caplog.records if "[__maintenance__] is in maintenance" in record.message]
    assert len([row for row in rows(database) if row.zone == "__maintenance__"]) == 0


def test_a_put_happens_with_its_session_or_not_at_all(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.session() as session:
        put(session, Message("Test", "note"))
        put_many(session, [Message("Test", "note")])
        raise ZeroDivisionError
    assert rows(database) == []


# -- at most one of a kind ---------------------------------------------------------------------------------------------


def one_of(database: Database, message: Message, **how: Any) -> int:
    with database.session() as session:
        found = put_unless_exists(session, message, **how)
    assert found is not None
    return found


def test_two_messages_are_one_when_all_that_was_given_is_equal(database: Database) -> None:
    first = one_of(database, Message("Test", "note", [1], priority=20))
    assert one_of(database, Message("Test", "note", [1], priority=20)) == first
    assert one_of(database, Message("Test", "note", [2], priority=20)) != first
    assert one_of(database, Message("Test", "note", [1])) != first
    assert one_of(database, Message("Test", "note", [1], priority=20, role="event")) != first
    assert one_of(database, Message("Test", "note", [1], priority=20, zone="default")) != first


def test_the_caller_says_what_makes_them_one(database: Database) -> None:
    first = one_of(database, Message("Test", "note", [1], priority=20), match=THE_CALL)
    assert one_of(database, Message("Test", "note", [2]), match=THE_CALL) == first
    other = one_of(database, Message("Test", "note", [{"b": 1, "a": 2}]), match=CALL_AND_ARGS)
    assert other != first
    assert one_of(database, Message("Test", "note", [{"a": 2, "b": 1}]), match=CALL_AND_ARGS) == other


def test_one_that_is_being_executed_counts_only_when_asked(database: Database) -> None:
    first = one_of(database, Message("Test", "note"), match=THE_CALL)
    assert [taken.id for taken in claim(database, ME, Route("generic", None, [], None))] == [first]
    assert one_of(database, Message("Test", "note"), match=THE_CALL, busy_too=True) == first
    second = one_of(database, Message("Test", "note"), match=THE_CALL)
    assert second != first
    assert one_of(database, Message("Test", "note"), match=THE_CALL, busy_too=True) in (first, second)
    assert len(rows(database)) == 2


def test_an_update_saves_what_it_is_told(database: Database) -> None:
    told: list[Any] = []

    def change(waiting: Any) -> dict[str, Any]:
        told.append(waiting)
        return {"args": [*(waiting.args if waiting else []), "x"], "priority": 20, "data": {"n": len(told)}}

    with database.session() as session:
        ids = {put_or_update(session, Message("Test", "note", data=[0]), change, match=THE_CALL) for _ in range(3)}
    assert len(ids) == 1
    (row,) = rows(database)
    assert (row.args, row.priority, row.msg_data, row.lock_version) == ('["x", "x", "x"]', 20, b'{"n": 3}', 2)
    assert (told[0], told[1].args, told[2].data) == (None, ["x"], {"n": 2})


def test_an_update_never_shortens_the_time_of_what_waits(database: Database) -> None:
    for timeout in (100, 50, 200):

        def change(waiting: Any, seconds: int = timeout) -> dict[str, Any]:
            return {"msg_timeout": seconds}

        with database.session() as session:
            put_or_update(session, Message("Test", "note", msg_timeout=timeout), change, match=THE_CALL)
            assert session.scalars(select(MiqQueue.msg_timeout)).one() == max(100, timeout)


def test_inheriting_is_part_of_what_is_compared(database: Database) -> None:
    message = Message("Test", "note")
    assert (message.zone, message.task_id) == (Inherit.ZONE, Inherit.TASK)
    mine, other = Origin(zone="a"), Origin(zone="b")
    assert message.key(THE_CALL, mine) != message.key(THE_CALL, other)
    assert message.key(THE_CALL, mine) == Message("Test", "note", zone="a").key(THE_CALL, other)
