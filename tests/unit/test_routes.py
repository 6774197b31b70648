"""Who can take which messages, and what is said of those that nobody can take. Pure."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from miq.models.worker_types import MiqGenericWorker, WorkerType
from miq.queue.claim import Route
from miq.queue.region import Manager, Region, Server, startable
from miq.queue.routes import Address, takers, why_nobody

AMAZON = "ManageIQ::Providers::Amazon::CloudManager"
HERE = Server(1, "here", "default", ("ems_inventory", "event"))
EAST = Server(2, "east", "east", ("event",))
GENERIC = Route("generic", "default", HERE.roles, "here", 200)
REFRESH = Route("ems_1", "default", ("ems_inventory",), "here", 200)
PRIORITY = Route("urgent", "default", HERE.roles, "here", 20)
REGION = Region(
    servers=[HERE, EAST],
    workers=[GENERIC, REFRESH, PRIORITY],
    managers={
        1: Manager("prod", AMAZON, "default", True, "Valid"),
        2: Manager("paused", AMAZON, "default", False, "Valid"),
        3: Manager("wrong", AMAZON, "default", True, "Invalid"),
        4: Manager("new", AMAZON, "default", True, None),
        5: Manager("served nowhere", AMAZON, "default", True, "Valid"),
    },
    zones=frozenset({"default", "east", "west"}),
    roles=frozenset({"ems_inventory", "event", "smartstate"}),
)


def to(queue_name: str | None = "generic", **options: Any) -> Address:
    return Address(
        **{"queue_name": queue_name, "zone": None, "role": None, "server_guid": None, "priority": 100} | options
    )


@pytest.mark.parametrize(
    ("address", "who"),
    [
        (to(), [GENERIC]),
        (to(zone="default", role="event", server_guid="here"), [GENERIC]),
        (to("ems_1", role="ems_inventory"), [REFRESH]),
        (to("ems_1", role="event"), []),
        (to("urgent", priority=20), [PRIORITY]),
        (to("urgent", priority=21), []),
        (to(zone="east"), []),
        (to(server_guid="east"), []),
        (to(None), []),
        (to(priority=None), []),
    ],
)
def test_takers(address: Address, who: list[Route]) -> None:
    assert takers(REGION.workers, [address]) == {address: who}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (to(), None),
        (to("x"), "no worker serves queue 'x'"),
        (to(None), "it names no queue"),
        (to(priority=None), "it has no priority"),
        (to(zone="mars"), "zone 'mars' does not exist"),
        (to(zone="west"), "no server of zone 'west' runs"),
        (to(zone="east"), "no worker of zone 'east' serves queue 'generic'"),
        (to(role="juggler"), "role 'juggler' does not exist"),
        (to(role="smartstate"), "role 'smartstate' is active nowhere"),
        (to("ems_1", role="event"), "no worker with role 'event' serves queue 'ems_1'"),
        (to(server_guid="gone"), "server gone does not run"),
        (to(server_guid="east"), "no worker of server east serves queue 'generic'"),
        (to("urgent"), "only workers with a priority limit of 20 serve it"),
        (to("ems_2"), "manager 'paused' is paused"),
        (to("ems_3"), "the credentials of manager 'wrong' are Invalid"),
        (to("ems_4"), "the credentials of manager 'new' are not checked"),
        (to("ems_5"), "no worker serves queue 'ems_5'"),
        (to("ems_9"), "there is no manager 9"),
        (to("x", zone="mars", role="juggler"), "zone 'mars' does not exist"),
    ],
)
def test_the_reason(address: Address, reason: str | None) -> None:
    assert why_nobody(address, REGION) == reason


def test_without_any_server_that_is_the_reason() -> None:
    nothing = Region(zones=REGION.zones, roles=REGION.roles)
    assert why_nobody(to(zone="default", role="event", server_guid="here"), nothing) == "no server runs"


def test_there_is_a_reason_exactly_where_there_is_no_taker() -> None:
    queues = (None, "generic", "ems_1", "ems_2", "ems_9", "urgent", "x")
    zones = (None, "default", "east", "west", "mars")
    roles = (None, "event", "ems_inventory", "smartstate", "juggler")
    guids = (None, "here", "east", "gone")
    priorities = (None, 0, 20, 100, 300)
    addresses = list(itertools.starmap(Address, itertools.product(queues, zones, roles, guids, priorities)))
    taken = takers(REGION.workers, addresses)
    assert {bool(who) for who in taken.values()} == {True, False}
    assert [each for each in addresses if bool(taken[each]) is (why_nobody(each, REGION) is not None)] == []


# -- workers that a server would start ---------------------------------------------------------------------------------


def started(server: Server, count: int = 2) -> dict[str, Route]:
    def count_of(kind: type[WorkerType]) -> float:
        return count if kind is MiqGenericWorker else 1

    return {route.queue_name: route for route in startable(server, REGION.managers, count_of)}


def test_a_server_starts_pools_and_a_worker_for_each_valid_manager_of_its_zone() -> None:
    found = started(HERE)
    assert {"generic", "ems_1", "ems_5"} <= set(found)
    assert not {"ems_2", "ems_3", "ems_4"} & set(found)
    assert found["generic"] == GENERIC
    assert found["ems_1"] == REFRESH


def test_what_keeps_a_server_from_starting_a_worker() -> None:
    assert "generic" not in started(HERE, count=0)
    assert "ems_1" not in started(Server(1, "here", "default", ("event",)))
    assert "ems_1" not in started(Server(1, "here", "east", ("ems_inventory",)))
