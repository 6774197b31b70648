"""The hourly check of all managers' credentials, and the attempts after one that could not be made."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from miq import plugins
from miq.db import Database
from miq.errors import InvalidCredentials, ProviderUnreachable
from miq.models import Authentication, ExtManagementSystem, Zone
from miq.providers.base.manager import ConnectionSpec, Manager
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery, deliver
from miq.queue.message import Message
from miq.queue.methods import load_methods
from miq.queue.put import put
from miq.queue.record import record
from miq.settings import Settings

ME = Handler("MiqWorker", 1)
FAKE = "ManageIQ::Providers::Fake::CloudManager"
answers: list[Exception | None] = []


class CloudManager(Manager):
    """A manager whose check says what a test wants, in turn."""

    type = FAKE
    ems_type = "fake"
    description = "Fake cloud"
    check = f"{__name__}:check"


def check(spec: ConnectionSpec) -> None:
    answer = answers.pop(0)
    if answer is not None:
        raise answer


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> None:
    answers.clear()
    load_methods()
    record = SimpleNamespace(name="fake", managers=(CloudManager,), worker_types=(), settings={}, queue_methods=())
    monkeypatch.setattr(plugins, "_load", lambda: ({"fake": record}, {}))


@pytest.fixture
def zones(database: Database) -> dict[str, int]:
    with database.session() as session:
        found = {name: Zone(name=name) for name in ("default", "east")}
        session.add_all(found.values())
    return {name: zone.id for name, zone in found.items()}


def manager(database: Database, name: str, zone_id: int, **columns: Any) -> int:
    with database.session() as session:
        ems = ExtManagementSystem(**{"name": name, "type": FAKE, "zone_id": zone_id, "enabled": True, **columns})
        session.add(ems)
        session.flush()
        session.add(Authentication(authtype="default", resource_type="ExtManagementSystem", resource_id=ems.id))
        return ems.id


def work(database: Database, zone: str = "default") -> str:
    """Deliver the most urgent message, due or not, as a worker of the zone does; its result, or what went wrong."""
    database.run("UPDATE miq_queue SET deliver_on = NULL WHERE state = 'ready'")
    (message,) = claim(database, ME, Route("generic", zone, ["ems_operations"], None))
    delivery = Delivery(database, ME, info={"settings": Settings({}), "zone": zone})
    outcome = deliver(message, delivery)
    if not outcome.written:
        record(outcome, delivery)
    return str(outcome.result) if outcome.status == "ok" else outcome.text


def waiting(database: Database) -> list[tuple[int, str, str, int, int, int]]:
    """(manager, zone, role, priority, attempt, minutes until it is due) of the checks that wait."""
    rows = database.run(
        "SELECT instance_id, zone, role, priority, args, round(extract(epoch FROM deliver_on - utc_now()) / 60)::int"
        " FROM miq_queue WHERE method_name = 'authentication_check_types' AND state = 'ready' ORDER BY instance_id"
    ).fetchall()
    return [(*row[:4], json.loads(row[4])[-1]["attempt"], row[5]) for row in rows]


def schedule(database: Database, zone: str | None) -> str:
    with database.session() as session:
        put(session, Message("ExtManagementSystem", "authentication_check_schedule", zone=zone, priority=0))
    return work(database, zone or "default")


def test_every_enabled_manager_of_the_zone_is_checked_in_a_minute(database: Database, zones: dict[str, int]) -> None:
    one, two = (manager(database, name, zones["default"]) for name in ("one", "two"))
    east = manager(database, "east", zones["east"])
    manager(database, "paused", zones["default"], enabled=False)
    manager(database, "child", zones["default"], parent_ems_id=one)
    manager(database, "unknown", zones["default"], type="ManageIQ::Providers::Gone::CloudManager")
    assert schedule(database, "default") == "2"
    expected = [(each, "default", "ems_operations", 20, 1, 1) for each in (one, two)]
    assert waiting(database) == expected
    assert schedule(database, "default") == "2"
    assert [row[0] for row in waiting(database)] == [one, two]
    assert schedule(database, None) == "3"
    assert [row[0] for row in waiting(database)] == [one, two, east]


def test_five_attempts_with_growing_delays(database: Database, zones: dict[str, int]) -> None:
    ems_id = manager(database, "one", zones["default"])
    schedule(database, "default")
    answers.extend([ProviderUnreachable("no route"), RuntimeError("a bug")] * 3)
    seen = []
    for _ in range(5):
        assert work(database) in ("Unreachable", "Error")
        seen += [(attempt, minutes) for _, _, _, _, attempt, minutes in waiting(database)]
    assert seen == [(2, 2), (3, 4), (4, 8), (5, 16)]
    assert database.run("SELECT count(*) FROM miq_queue").fetchone() == (0,)
    assert len(answers) == 1
    row = database.run("SELECT status FROM authentications WHERE resource_id = %(id)s", {"id": ems_id}).fetchone()
    assert row == ("Unreachable",)


@pytest.mark.parametrize("answer", [None, InvalidCredentials("bad key")])
def test_an_answer_ends_the_attempts(database: Database, zones: dict[str, int], answer: Exception | None) -> None:
    manager(database, "one", zones["default"])
    schedule(database, "default")
    answers.extend([ProviderUnreachable("no route"), answer])
    assert work(database) == "Unreachable"
    assert work(database) in ("Valid", "Invalid")
    assert waiting(database) == []


def test_a_check_that_a_user_asked_for_is_not_made_again(database: Database, zones: dict[str, int]) -> None:
    ems_id = manager(database, "one", zones["default"])
    with database.session() as session:
        put(session, Message("ExtManagementSystem", "authentication_check_types", ["default"], instance_id=ems_id))
    answers.append(ProviderUnreachable("no route"))
    assert work(database) == "Unreachable"
    assert waiting(database) == []


def test_a_manager_that_was_paused_meanwhile_is_left_alone(database: Database, zones: dict[str, int]) -> None:
    manager(database, "one", zones["default"])
    schedule(database, "default")
    database.run("UPDATE ext_management_systems SET enabled = false")
    assert work(database) == "not checked: it is paused"
    assert waiting(database) == []


def test_the_hourly_check_does_not_overtake_an_attempt_that_waits(database: Database, zones: dict[str, int]) -> None:
    manager(database, "one", zones["default"])
    schedule(database, "default")
    answers.append(ProviderUnreachable("no route"))
    work(database)
    before = waiting(database)
    assert before[0][4] == 2
    with database.session() as session:
        put(session, Message("ExtManagementSystem", "authentication_check_schedule", zone="default", priority=0))
    (message,) = claim(database, ME, Route("generic", "default", [], None))
    delivery = Delivery(database, ME, info={"settings": Settings({}), "zone": "default"})
    assert deliver(message, delivery).result == 1
    assert waiting(database) == before
