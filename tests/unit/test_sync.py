"""Who should run and who does: pure comparison of sets."""

from __future__ import annotations

from miq.models.worker_types import BaseRefreshWorker, MiqGenericWorker, MiqScheduleWorker
from miq.server.sync import ManagerFact, Present, plan, wanted

EC2 = "ManageIQ::Providers::Amazon::CloudManager"


class Refresh(BaseRefreshWorker):
    name = f"{EC2}::RefreshWorker"
    manager = EC2


TYPES = (MiqGenericWorker, MiqScheduleWorker, Refresh)
EXCLUSIVE = [MiqScheduleWorker.name, Refresh.name]


def test_two_managers_are_two_refresh_workers() -> None:
    want = wanted(TYPES, ["ems_inventory"], [ManagerFact(1, EC2), ManagerFact(2, EC2)], lambda kind: 2)
    assert want == {
        ("MiqGenericWorker", "generic"): 2,
        ("MiqScheduleWorker", None): 1,
        (Refresh.name, "ems_1"): 1,
        (Refresh.name, "ems_2"): 1,
    }


def test_a_manager_of_another_type_gets_none() -> None:
    want = wanted([Refresh], ["ems_inventory"], [ManagerFact(1, "Foreign")], lambda kind: 1)
    assert want == {}


def test_without_its_role_a_type_is_not_wanted() -> None:
    assert wanted([Refresh], ["event"], [ManagerFact(1, EC2)], lambda kind: 1) == {}


def test_same_length_different_members_are_noticed() -> None:
    """Upstream compares list lengths and misses this."""
    present = [Present((Refresh.name, "ems_1"), "g1")]
    todo = plan({(Refresh.name, "ems_2"): 1}, present, EXCLUSIVE, [])
    assert todo.starts == [(Refresh.name, "ems_2")]
    assert todo.stops == [("g1", "no longer wanted")]


def test_a_stopping_refresh_worker_counts_as_present() -> None:
    key = (Refresh.name, "ems_1")
    assert plan({key: 1}, [Present(key, "g1", stopping=True)], EXCLUSIVE, []).starts == []


def test_a_stopping_generic_worker_is_replaced_at_once() -> None:
    key = (MiqGenericWorker.name, "generic")
    assert plan({key: 1}, [Present(key, "g1", stopping=True)], EXCLUSIVE, []).starts == [key]


def test_an_unsupervised_worker_replaces_its_twin() -> None:
    key = (Refresh.name, "ems_1")
    present = [Present(key, "mine"), Present(key, "by hand", mine=False)]
    todo = plan({key: 1}, present, EXCLUSIVE, [])
    assert (todo.starts, todo.stops) == ([], [("mine", "more than wanted")])


def test_an_unsupervised_worker_is_never_stopped() -> None:
    key = (Refresh.name, "ems_1")
    assert plan({}, [Present(key, "by hand", mine=False)], EXCLUSIVE, []).stops == []


def test_back_off_holds_a_key_back() -> None:
    key = (MiqGenericWorker.name, "generic")
    assert plan({key: 2}, [], EXCLUSIVE, [key]).starts == []


def test_surplus_is_stopped_from_the_end() -> None:
    key = (MiqGenericWorker.name, "generic")
    present = [Present(key, f"g{number}") for number in (1, 2, 3)]
    assert plan({key: 1}, present, EXCLUSIVE, []).stops == [("g3", "more than wanted"), ("g2", "more than wanted")]
