"""The saver's set semantics, on a real PostgreSQL: what is written, what is left alone, what comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest

from miq.db import Database
from miq.ems_refresh.inventory_collection import (
    Collections,
    Definition,
    Reconnect,
    Reference,
    Vanish,
)
from miq.ems_refresh.saver import Counts, Saver
from miq.errors import RefreshFailed
from miq.models import Vm
from miq.providers.amazon.inventory.persister import CloudPersister
from tests.parts.written import Watch, nothing_written

Fill = Callable[[Collections], None]


@pytest.fixture(autouse=True)
def managers(database: Database) -> None:
    database.run("INSERT INTO ext_management_systems (name) VALUES ('one'), ('two'), ('three')")


def test_a_manager_that_was_removed_meanwhile_gets_no_rows(database: Database) -> None:
    database.run("DELETE FROM ext_management_systems WHERE id = 1")
    with pytest.raises(RefreshFailed, match="was removed while it was refreshed"):
        save(database, two)
    assert rows(database, "vms") == []


def save(database: Database, fill: Fill, *, ems_id: int = 1, incomplete: tuple[str, ...] = ()) -> dict[str, Counts]:
    """One refresh."""
    collections = CloudPersister().collections
    for name in incomplete:
        collections[name].complete = False
    with Saver(database, ems_id, collections) as saver:
        fill(collections)
        return saver.save()


def instance(inventory: Collections, ref: str, **values: Any) -> None:
    """An instance with hardware and one disk."""
    disks = values.pop("disks", ("sda1",))
    power = {"raw_power_state": "running", "power_state": "on"}
    vm = inventory["vms"].build(ems_ref=ref, name=f"vm {ref}", **{**power, **values})
    hardware = inventory["hardwares"].build(vm_or_template_id=vm, cpu_sockets=2)
    for name in disks:
        inventory["disks"].build(hardware_id=hardware, device_name=name)


def image(inventory: Collections, ref: str, system: str = "linux_redhat") -> None:
    """An image that says what its guest is."""
    template = inventory["miq_templates"].build(ems_ref=ref, name=ref)
    inventory["miq_template_hardwares"].build(vm_or_template_id=template, guest_os=system)


def one(database: Database, table: str, where: str = "true") -> dict[str, Any]:
    """The only row."""
    found = rows(database, table, where)
    assert len(found) == 1
    return found[0]


def rows(database: Database, table: str, where: str = "true") -> list[dict[str, Any]]:
    cursor = database.run(f"SELECT * FROM {table} WHERE {where} ORDER BY id")
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def two(inventory: Collections) -> None:
    inventory["availability_zones"].build(ems_ref="a", name="a")
    instance(inventory, "i-1", availability_zone_id=inventory["availability_zones"].lazy("a"))
    instance(inventory, "i-2")


def test_new_rows_and_what_they_hang_on(database: Database) -> None:
    counts = save(database, two)
    assert (counts["vms"].seen, counts["vms"].created, counts["disks"].created) == (2, 2, 2)
    zone = one(database, "availability_zones")
    vm = one(database, "vms", "ems_ref = 'i-1'")
    assert vm["availability_zone_id"] == zone["id"]
    assert (vm["ems_id"], vm["template"], vm["vendor"]) == (1, False, "amazon")
    assert vm["guid"] and vm["created_on"] == vm["updated_on"] == vm["state_changed_on"]
    hardware = one(database, "hardwares", f"vm_or_template_id = {vm['id']}")
    assert one(database, "disks", f"hardware_id = {hardware['id']}")["device_name"] == "sda1"


def test_unchanged_writes_nothing(database: Database) -> None:
    save(database, two)
    with nothing_written(database):
        counts = save(database, two)
    assert {name: count.unchanged for name, count in counts.items() if count.seen} == {
        "availability_zones": 1, "vms": 2, "hardwares": 2, "disks": 2,
    }  # fmt: skip
    assert not any(count.created or count.updated or count.archived for count in counts.values())


def test_a_change_writes_its_own_row_only(database: Database) -> None:
    save(database, two)
    before = {row["ems_ref"]: row for row in rows(database, "vms")}
    watch = Watch(database)

    counts = save(database, renamed)
    writes = watch.writes()
    assert (counts["vms"].updated, counts["vms"].unchanged) == (1, 1)
    assert (writes.rows, writes.numbers) == (2, 0)  # the old version and the new one
    after = {row["ems_ref"]: row for row in rows(database, "vms")}
    assert after["i-1"]["name"] == "other"
    assert after["i-1"]["updated_on"] > before["i-1"]["updated_on"]
    assert after["i-1"]["created_on"] == before["i-1"]["created_on"]
    assert after["i-2"] == before["i-2"]


def renamed(inventory: Collections) -> None:
    inventory["availability_zones"].build(ems_ref="a", name="a")
    zone = inventory["availability_zones"].lazy("a")
    vm = inventory["vms"].build(
        ems_ref="i-1", name="other", raw_power_state="running", power_state="on", availability_zone_id=zone
    )
    hardware = inventory["hardwares"].build(vm_or_template_id=vm, cpu_sockets=2)
    inventory["disks"].build(hardware_id=hardware, device_name="sda1")
    instance(inventory, "i-2")


def test_a_change_of_power_is_remembered(database: Database) -> None:
    save(database, lambda inventory: instance(inventory, "i-1"))
    first = one(database, "vms")
    save(database, lambda inventory: instance(inventory, "i-1", raw_power_state="stopped", power_state="off"))
    second = one(database, "vms")
    assert (second["power_state"], second["previous_state"]) == ("off", "on")
    assert second["state_changed_on"] > first["state_changed_on"]


def test_what_vanishes_is_archived_and_keeps_what_hung_on_it(database: Database) -> None:
    save(database, two)
    counts = save(database, lambda inventory: instance(inventory, "i-2"))
    assert (counts["vms"].archived, counts["availability_zones"].archived) == (1, 1)
    vm = one(database, "vms", "ems_ref = 'i-1'")
    assert (vm["ems_id"], vm["former_ems_id"], vm["availability_zone_id"]) == (None, 1, None)
    assert (vm["raw_power_state"], vm["power_state"], vm["previous_state"]) == ("unknown", "unknown", "on")
    assert isinstance(vm["archived_on"], datetime) and vm["archived_on"] == vm["updated_on"]
    assert rows(database, "availability_zones") == []
    assert len(rows(database, "hardwares")) == len(rows(database, "disks")) == 2


def test_nothing_vanishes_from_what_was_not_read_whole(database: Database) -> None:
    save(database, two)
    counts = save(
        database, lambda inventory: instance(inventory, "i-3"), incomplete=("vms", "hardwares", "availability_zones")
    )
    assert (counts["vms"].archived, counts["vms"].complete, counts["vms"].created) == (0, False, 1)
    assert len(rows(database, "vms", "ems_id = 1")) == 3
    assert len(rows(database, "availability_zones")) == 1


def test_children_vanish_below_parents_that_were_read(database: Database) -> None:
    def with_disks(inventory: Collections) -> None:
        instance(inventory, "i-1", disks=("sda1", "sdb"))
        instance(inventory, "i-2", disks=("sda1", "sdb"))

    save(database, with_disks)
    counts = save(database, lambda inventory: instance(inventory, "i-1"), incomplete=("vms",))
    assert counts["disks"].archived == 1
    assert sorted(row["device_name"] for row in rows(database, "disks")) == ["sda1", "sda1", "sdb"]


def test_an_archived_row_comes_back(database: Database) -> None:
    save(database, two)
    before = one(database, "vms", "ems_ref = 'i-1'")
    save(database, lambda inventory: None)
    counts = save(database, two)
    assert (counts["vms"].updated, counts["vms"].created) == (2, 0)
    after = one(database, "vms", "ems_ref = 'i-1'")
    assert (after["id"], after["guid"], after["created_on"]) == (before["id"], before["guid"], before["created_on"])
    assert (after["ems_id"], after["former_ems_id"], after["archived_on"]) == (1, None, None)
    assert (after["power_state"], after["previous_state"]) == ("on", "unknown")
    assert counts["hardwares"].unchanged == 2


def test_an_account_that_is_added_again_finds_its_rows_the_oldest_first(database: Database) -> None:
    save(database, two)
    save(database, lambda inventory: None)
    save(database, two, ems_id=2)
    assert [(row["id"], row["ems_id"]) for row in rows(database, "vms")] == [(1, 2), (2, 2)]
    database.run("INSERT INTO vms (ems_ref, type, template) SELECT ems_ref, type, false FROM vms WHERE id = 1")
    save(database, lambda inventory: None, ems_id=2)
    save(database, two, ems_id=3)
    assert [(row["id"], row["ems_id"]) for row in rows(database, "vms")] == [(1, 3), (2, 3), (3, None)]


def test_templates_do_not_come_back_as_vms(database: Database) -> None:
    save(database, lambda inventory: image(inventory, "x-1"))
    save(database, lambda inventory: None)
    save(database, lambda inventory: instance(inventory, "x-1"))
    assert [(row["template"], row["ems_id"]) for row in rows(database, "vms")] == [(True, None), (False, 1)]


def test_two_managers_do_not_touch_each_other(database: Database) -> None:
    save(database, two)
    save(database, two, ems_id=2)
    with nothing_written(database):
        save(database, two)
    save(database, lambda inventory: None)
    assert len(rows(database, "vms", "ems_id = 2")) == 2


def test_the_last_of_several_objects_with_one_identity_counts(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def twice(inventory: Collections) -> None:
        instance(inventory, "i-1", raw_power_state="stopped", power_state="off")
        instance(inventory, "i-1")

    with caplog.at_level(logging.INFO, "miq.ems_refresh.saver"):
        counts = save(database, twice)
    assert (counts["vms"].seen, counts["vms"].created) == (1, 1)
    assert one(database, "vms")["power_state"] == "on"
    assert "vms: 1 objects came more than once" in caplog.text


def test_what_hangs_on_nothing_is_skipped_and_named(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    def stray(inventory: Collections) -> None:
        hardware = inventory["hardwares"].lazy(inventory["vms"].lazy("i-9"))
        inventory["disks"].build(hardware_id=hardware, device_name="sda1")
        instance(inventory, "i-1")

    counts = save(database, stray)
    assert (counts["disks"].skipped, counts["disks"].created) == (1, 1)
    assert "disks: 1 skipped" in caplog.text and "i-9/sda1" in caplog.text


def test_a_row_whose_object_could_not_be_parsed_stays(database: Database) -> None:
    save(database, two)

    def one_is_bad(inventory: Collections) -> None:
        inventory["vms"].keep("i-1")
        instance(inventory, "i-2", disks=("sdb",))

    counts = save(database, one_is_bad)
    assert (counts["vms"].archived, counts["vms"].seen, counts["vms"].unchanged) == (0, 1, 1)
    assert len(rows(database, "vms", "ems_id = 1")) == 2
    assert sorted(row["device_name"] for row in rows(database, "disks")) == ["sda1", "sdb"]


def test_the_guest_is_that_of_the_image_even_of_one_that_is_gone(database: Database) -> None:
    def from_image(inventory: Collections) -> None:
        template = inventory["miq_templates"].lazy("ami-1")
        vm = inventory["vms"].build(ems_ref="i-1", ancestry=template)
        system = inventory["miq_template_hardwares"].lazy(template)
        inventory["hardwares"].build(vm_or_template_id=vm, guest_os=system)
        inventory["operating_systems"].build(vm_or_template_id=vm, product_name=system)

    def both(inventory: Collections) -> None:
        image(inventory, "ami-1")
        from_image(inventory)

    save(database, both)
    template, vm = rows(database, "vms")
    assert vm["ancestry"] == str(template["id"])
    assert one(database, "hardwares", f"vm_or_template_id = {vm['id']}")["guest_os"] == "linux_redhat"
    assert one(database, "operating_systems")["product_name"] == "linux_redhat"
    counts = save(database, from_image)
    assert counts["miq_templates"].archived == 1
    with nothing_written(database):
        save(database, from_image)
    assert one(database, "hardwares", f"vm_or_template_id = {vm['id']}")["guest_os"] == "linux_redhat"
    assert one(database, "vms", "template = false")["ancestry"] == str(template["id"])


def test_an_optional_column_keeps_what_another_refresh_found(database: Database) -> None:
    save(database, lambda inventory: instance(inventory, "i-1"))
    database.run("UPDATE disks SET size = 8589934592")
    with nothing_written(database):
        save(database, lambda inventory: instance(inventory, "i-1"))
    assert one(database, "disks")["size"] == 8589934592


def test_labels_of_users_are_not_ours(database: Database) -> None:
    def labelled(inventory: Collections) -> None:
        vm = inventory["vms"].build(ems_ref="i-1")
        inventory["vm_labels"].build(resource_id=vm, name="owner", value="me")

    save(database, labelled)
    vm = one(database, "vms")
    database.run(
        "INSERT INTO custom_attributes (resource_type, resource_id, section, name) "
        "VALUES ('VmOrTemplate', %(id)s, NULL, 'note')",
        {"id": vm["id"]},
    )

    def bare(inventory: Collections) -> None:
        inventory["vms"].build(ems_ref="i-1")

    counts = save(database, bare)
    assert counts["vm_labels"].archived == 1
    assert [row["name"] for row in rows(database, "custom_attributes")] == ["note"]


def test_all_or_nothing(database: Database) -> None:
    """A merge that fails half way leaves the old inventory, and no staging table."""
    save(database, lambda inventory: instance(inventory, "i-1"))
    database.run("ALTER TABLE disks ADD CONSTRAINT refused CHECK (device_name <> 'bad')")
    before = [rows(database, table) for table in ("vms", "hardwares", "disks")]
    with pytest.raises(psycopg.errors.CheckViolation):
        save(database, lambda inventory: instance(inventory, "i-1", power_state="off", disks=("bad",)))
    assert [rows(database, table) for table in ("vms", "hardwares", "disks")] == before
    left = database.run("SELECT relname FROM pg_class WHERE relname LIKE 'stage_%'").fetchall()
    assert left == []


def test_no_transaction_is_open_between_pages(database: Database) -> None:
    collections = CloudPersister().collections
    with Saver(database, 1, collections) as saver:
        for number in range(3):
            instance(collections, f"i-{number}")
            saver.stage()
            assert collections["vms"].page == []
            assert database.connection.info.transaction_status.name == "IDLE"
            assert rows(database, "vms") == []
        assert saver.save()["vms"].created == 3


def test_references_in_a_circle_are_resolved_in_one_save(database: Database) -> None:
    definition = Definition(
        "machines",
        Vm,
        ("ems_ref", "name"),
        references=(Reference("host_id", "machines"),),
        vanish=Vanish.ARCHIVE,
        reconnect=Reconnect.MANAGER,
    )

    def ring() -> dict[str, Counts]:
        collections = Collections([definition])
        with Saver(database, 1, collections) as saver:
            machines = collections["machines"]
            machines.build(ems_ref="a", name="a", host_id=machines.lazy("b"))
            machines.build(ems_ref="b", name="b", host_id=machines.lazy("a"))
            return saver.save()

    assert ring()["machines"].created == 2
    first, second = rows(database, "vms")
    assert (first["host_id"], second["host_id"]) == (second["id"], first["id"])
    with nothing_written(database):
        assert ring()["machines"].unchanged == 2


def test_a_large_page_goes_through(database: Database) -> None:
    def many(inventory: Collections) -> None:
        for number in range(3000):
            instance(inventory, f"i-{number}")

    assert save(database, many)["disks"].created == 3000
    with nothing_written(database):
        assert save(database, many)["disks"].unchanged == 3000
