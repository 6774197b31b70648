"""Building objects: values that fit, references that flatten, and bad objects that cost only themselves."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from miq.ems_refresh.inventory_collection import Collections
from miq.ems_refresh.inventory_object import BadObject, Lazy
from miq.providers.amazon.inventory.persister import CloudPersister


@pytest.fixture
def collections() -> Collections:
    return CloudPersister().collections


def built(collections: Collections, name: str) -> dict[str, Any]:
    """The last object of a collection, by plain column."""
    collection = collections[name]
    return dict(zip(["_keep", *collection.definition.columns], collection.page[-1], strict=False))


def test_defaults_and_missing_values(collections: Collections) -> None:
    collections["vms"].build(ems_ref="i-1", name="web")
    row = built(collections, "vms")
    assert (row["ems_ref"], row["name"], row["vendor"]) == ("i-1", "web", "amazon")
    assert row["type"] == "ManageIQ::Providers::Amazon::CloudManager::Vm"
    assert row["boot_time"] is None


def test_references_are_flattened_to_plain_values(collections: Collections) -> None:
    vm = collections["vms"].build(ems_ref="i-1")
    hardware = collections["hardwares"].build(vm_or_template_id=vm)
    collections["disks"].build(hardware_id=hardware, device_name="sda1")
    assert hardware == Lazy("hardwares", ("i-1",)) == collections["hardwares"].lazy(collections["vms"].lazy("i-1"))
    assert collections["disks"].page[-1][-1] == "i-1"


def test_a_reference_to_nothing_is_null(collections: Collections) -> None:
    assert collections["flavors"].lazy(None) is None
    collections["vms"].build(ems_ref="i-1", flavor_id=None)
    assert collections["vms"].page[-1][-3:] == (None, None, None)


def test_times_become_naive_utc(collections: Collections) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    collections["vms"].build(ems_ref="i-1", boot_time=noon)
    assert built(collections, "vms")["boot_time"] == datetime(2026, 1, 1, 10)


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [
        ("vms", {"ems_ref": "i-1", "name": "a\0b"}, r"vms\.name: a NUL"),
        ("vms", {"ems_ref": "i-1", "name": "\ud800"}, r"vms\.name: .*surrogate"),
        ("vms", {"ems_ref": "i-1", "boot_time": "yesterday"}, r"vms\.boot_time: .*not a time"),
        ("vms", {"ems_ref": "i-1", "colour": "red"}, "vms has no colour"),
        ("vms", {"name": "web"}, "ems_ref must be given"),
        ("vms", {"ems_ref": "i-1", "flavor_id": "m5.large"}, r"vms\.flavor_id is not a reference"),
        ("flavors", {"ems_ref": "f", "cpu_total_cores": 2**31}, r"flavors\.cpu_total_cores: .*32 bits"),
        ("flavors", {"ems_ref": "f", "memory": 2**63}, r"flavors\.memory: .*64 bits"),
        ("flavors", {"ems_ref": "f", "memory": "much"}, r"flavors\.memory"),
        ("flavors", {"ems_ref": "f", "enabled": "yes"}, r"flavors\.enabled: .*neither true nor false"),
    ],
)
def test_what_does_not_fit_is_a_bad_object(
    collections: Collections, name: str, values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadObject, match=complaint):
        collections[name].build(**values)
    assert collections[name].page == []


@pytest.mark.parametrize(("name", "ref"), [("vms", None), ("vms", "i\0"), ("hardwares", "i-1")])
def test_what_has_no_name_cannot_be_kept(collections: Collections, name: str, ref: str | None) -> None:
    with pytest.raises(BadObject):
        collections[name].keep(ref)
    assert collections[name].page == []


def test_a_kept_row_is_nothing_but_its_name(collections: Collections) -> None:
    collections["vms"].keep("i-1")
    row = built(collections, "vms")
    assert (row.pop("_keep"), row.pop("ems_ref")) == (True, "i-1")
    assert set(row.values()) == {None}
