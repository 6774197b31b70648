"""Workers that belong to managers come and go with them, told by the database alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from miq.paths import Home
from miq.secrets import Key
from tests.process.appliance import Appliance, appliance, eventually

pytestmark = pytest.mark.timeout(120)

REFRESH = "ManageIQ::Providers::Amazon::CloudManager::RefreshWorker"


@pytest.fixture
def server(dsn: str, tmp_path: Path) -> Iterator[Appliance]:
    with appliance(dsn, tmp_path / "home") as running_server:
        running_server.wait_for_workers(3)
        yield running_server


def add(server: Appliance, name: str, *, kind: str = "ManageIQ::Providers::Amazon::CloudManager") -> int:
    """A manager with valid credentials at an endpoint that refuses connections: its worker runs, its refresh fails."""
    key = Key.load(Home(server.home).key_file)
    ((ems_id,),) = server.sql(
        "INSERT INTO ext_management_systems (name, type, provider_region, zone_id)"
        " SELECT %s, %s, 'us-east-1', id FROM zones WHERE name = 'default' RETURNING id",
        name,
        kind,
    )
    server.sql(
        "INSERT INTO endpoints (role, url, resource_type, resource_id)"
        " VALUES ('default', 'http://127.0.0.1:1', 'ExtManagementSystem', %s)",
        ems_id,
    )
    server.sql(
        "INSERT INTO authentications (authtype, userid, password, status, resource_type, resource_id)"
        " VALUES ('default', 'AKIA', %s, 'Valid', 'ExtManagementSystem', %s)",
        key.encrypt("very secret"),
        ems_id,
    )
    return int(ems_id)


def queues(server: Appliance) -> list[str]:
    return sorted(row[4] for row in server.workers(REFRESH))


def test_two_managers_are_two_refresh_workers(server: Appliance) -> None:
    one, two = add(server, "one"), add(server, "two")
    eventually(lambda: queues(server) == [f"ems_{one}", f"ems_{two}"], seconds=5, what="a worker for each")
    eventually(
        lambda: (
            server.sql("SELECT count(*) FROM ext_management_systems WHERE last_refresh_error IS NOT NULL") == [(2,)]
        ),
        seconds=60,
        what="each asked for a refresh, which named the endpoint",
    )
    assert "very secret" not in server.log()


def test_a_worker_goes_when_its_manager_may_not_be_worked_on(server: Appliance) -> None:
    one, two = add(server, "one"), add(server, "two")
    eventually(lambda: len(queues(server)) == 2)
    server.sql("UPDATE authentications SET status = 'Invalid' WHERE resource_id = %s", one)
    eventually(lambda: queues(server) == [f"ems_{two}"], seconds=30, what="invalid credentials stop the worker")
    server.sql("UPDATE ext_management_systems SET enabled = false WHERE id = %s", two)
    eventually(lambda: queues(server) == [], seconds=30, what="a paused manager has no worker")
    server.sql("UPDATE authentications SET status = 'Valid' WHERE resource_id = %s", one)
    eventually(lambda: queues(server) == [f"ems_{one}"], seconds=5, what="it comes back at once")
    server.sql("DELETE FROM ext_management_systems WHERE id = %s", one)
    eventually(lambda: queues(server) == [], seconds=30, what="a manager that is gone")


def test_a_manager_of_a_type_nobody_knows_is_left_alone(server: Appliance) -> None:
    add(server, "foreign", kind="ManageIQ::Providers::Nobody::CloudManager")
    known = add(server, "one")
    eventually(lambda: queues(server) == [f"ems_{known}"], seconds=5)
    assert server.process.poll() is None


def test_the_schedule_asks_for_a_refresh(dsn: str, tmp_path: Path) -> None:
    """The 24 h timer, here every second: scheduler -> generic worker -> the manager's queue."""
    with appliance(dsn, tmp_path / "home", settings="ems_refresh: {refresh_interval: 1.seconds}") as server:
        server.wait_for_workers(3)
        add(server, "one")
        eventually(
            lambda: "schedule" in {row[0] for row in server.sql("SELECT cause FROM ems_refreshes")},
            seconds=60,
            what="a refresh that the schedule asked for",
        )
