"""The order of saving: what is pointed to comes first, cycles are written in a second pass."""

from __future__ import annotations

import pytest

from miq.ems_refresh.graph import IdentityCycle, order
from miq.ems_refresh.inventory_collection import Definition, Reference
from miq.models import Disk, Hardware, Vm
from miq.providers.amazon.inventory.persister import CloudPersister


def definition(name: str, *references: Reference, ref: tuple[str, ...] = ("ems_ref",)) -> Definition:
    return Definition(name, Vm, ("ems_ref",), manager_ref=ref, references=references)


def test_what_is_pointed_to_comes_first() -> None:
    definitions = {each.name: each for each in CloudPersister().definitions()}
    found = order(definitions)
    place = {name: number for number, name in enumerate(found.names)}
    assert set(place) == set(definitions)
    assert not found.second_pass
    for each in definitions.values():
        assert all(place[reference.to] < place[each.name] for reference in each.references)


def test_a_reference_to_itself_is_written_later() -> None:
    parent = Reference("ancestry", "vms")
    found = order({"vms": definition("vms", parent)})
    assert found.names == ("vms",)
    assert found.second_pass == {"vms": (parent,)}


def test_a_cycle_is_opened_at_one_reference() -> None:
    there, back = Reference("host_id", "b"), Reference("storage_id", "a")
    found = order({"a": definition("a", there), "b": definition("b", back)})
    assert found.names == ("b", "a")
    assert found.second_pass == {"b": (back,)}


def test_a_cycle_of_identities_is_a_mistake() -> None:
    hardware = Definition(
        "hardwares", Hardware, (), manager_ref=("host_id",), references=(Reference("host_id", "disks"),)
    )
    disk = Definition(
        "disks", Disk, (), manager_ref=("hardware_id",), references=(Reference("hardware_id", "hardwares"),)
    )
    with pytest.raises(IdentityCycle, match=r"disks|hardwares"):
        order({"hardwares": hardware, "disks": disk})


def test_a_reference_to_nothing_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        order({"vms": definition("vms", Reference("host_id", "hosts"))})
