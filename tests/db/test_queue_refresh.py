"""Asking for refreshes: one ready message per manager, tasks for those who wait."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.db import Database
from miq.ems_refresh import queue_refresh, refresh_all_ems_timer
from miq.models import ExtManagementSystem, MiqQueue, MiqTask, Zone
from miq.paths import Home
from miq.queue.methods import find_method, load_methods
from miq.settings import Settings
from tests.parts.managers import AMAZON


def add(session: Session, **values: Any) -> int:
    zone = session.scalars(select(Zone).where(Zone.name == "east")).first() or Zone(name="east")
    session.add(zone)
    session.flush()
    ems = ExtManagementSystem(**{"type": AMAZON, "zone_id": zone.id, "name": "aws", "enabled": True, **values})
    session.add(ems)
    session.flush()
    return ems.id


def messages(session: Session) -> list[MiqQueue]:
    return list(session.scalars(select(MiqQueue).order_by(MiqQueue.id).execution_options(populate_existing=True)))


def test_one_message_per_manager(database: Database, home: Home) -> None:
    with database.session() as session:
        first, second = add(session), add(session, name="other")
        assert queue_refresh(session, [first, second], cause="schedule") == []
        queue_refresh(session, [first], cause="user")
        one, other = messages(session)
        assert (one.class_name, one.method_name, one.role, one.zone) == (
            "EmsRefresh", "refresh", "ems_inventory", "east",
        )  # fmt: skip
        assert (one.queue_name, one.msg_timeout, one.state) == (f"ems_{first}", 7200, "ready")
        assert json.loads(one.args or "") == [[[AMAZON, first]], "schedule, user"]
        assert json.loads(other.args or "") == [[[AMAZON, second]], "schedule"]


def test_one_in_hand_does_not_take_more(database: Database, home: Home) -> None:
    with database.session() as session:
        ems_id = add(session)
        queue_refresh(session, [ems_id], cause="user")
        messages(session)[0].state = "dequeue"
        session.flush()
        queue_refresh(session, [ems_id], cause="user")
        queue_refresh(session, [ems_id], cause="user")
        assert [message.state for message in messages(session)] == ["dequeue", "ready"]


def test_targets_that_wait_are_kept(database: Database, home: Home) -> None:
    with database.session() as session:
        ems_id = add(session)
        queue_refresh(session, [ems_id], cause="user")
        messages(session)[0].args = json.dumps([[["ExtManagementSystem", 7]]])
        session.flush()
        queue_refresh(session, [ems_id], cause="event")
        assert json.loads(messages(session)[0].args or "") == [[["ExtManagementSystem", 7], [AMAZON, ems_id]], "event"]


def test_everyone_who_waits_gets_the_same_task(database: Database, home: Home) -> None:
    with database.session() as session:
        ems_id = add(session)
        queue_refresh(session, [ems_id], cause="schedule")
        (task_id,) = queue_refresh(session, [ems_id], cause="user", create_task=True)
        assert queue_refresh(session, [ems_id], cause="user", create_task=True) == [task_id]
        (task,) = session.scalars(select(MiqTask))
        assert (task.id, task.state) == (task_id, "Queued")
        assert task.name == "EmsRefresh(aws) Refreshing relationships and power states"
        (message,) = messages(session)
        callback = json.loads(message.miq_callback or "")
        assert message.miq_task_id == task_id
        assert (callback["class_name"], callback["method_name"], callback["instance_id"], callback["args"]) == (
            "MiqTask", "queue_callback", task_id, ["Finished"],
        )  # fmt: skip


def test_paused_and_unknown_managers_get_nothing(database: Database, home: Home) -> None:
    with database.session() as session:
        assert queue_refresh(session, [add(session, enabled=False), 4711], cause="user", create_task=True) == []
        assert messages(session) == []


def test_the_schedule_asks_for_every_manager_of_a_class(database: Database, home: Home) -> None:
    with database.session() as session:
        wanted = [add(session, name="a"), add(session, name="b")]
        add(session, name="paused", enabled=False)
        add(session, name="other", type="ManageIQ::Providers::Other::CloudManager")
        refresh_all_ems_timer(session, None, AMAZON)
        assert [message.queue_name for message in messages(session)] == [f"ems_{ems_id}" for ems_id in wanted]


def test_the_timeout_is_the_workers(database: Database, home: Home) -> None:
    values = {"workers": {"worker_base": {"queue_worker_base": {"ems_refresh_worker": {
        "defaults": {"queue_timeout": "1.hours"}, "ems_refresh_worker_amazon": {"queue_timeout": "5.minutes"},
    }}}}}  # fmt: skip
    with database.session() as session:
        queue_refresh(session, [add(session)], cause="user", settings=Settings(values))
        queue_refresh(session, [add(session, name="x", type="Nobody")], cause="user", settings=Settings(values))
        assert [message.msg_timeout for message in messages(session)] == [300, 3600]


@pytest.mark.parametrize(
    ("class_name", "method_name"),
    [("EmsRefresh", "refresh"), ("ExtManagementSystem", "refresh_all_ems_timer"), (AMAZON, "refresh_all_ems_timer")],
)
def test_messages_may_call_them(class_name: str, method_name: str) -> None:
    load_methods()
    assert find_method(class_name, method_name).idempotent
