"""Refreshing an Amazon account: real calls over HTTP to a simulated account, real rows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from miq import settings as settings_module
from miq import settings_loader
from miq.db import Database
from miq.ems_refresh import refresh
from miq.errors import RefreshFailed, StopRequested
from miq.models import (
    AvailabilityZone,
    CustomAttribute,
    Disk,
    EmsRefresh,
    ExtManagementSystem,
    Flavor,
    Hardware,
    Network,
    OperatingSystem,
    Vm,
)
from miq.paths import Home
from miq.queue.claim import Claimed, Handler
from miq.queue.deliver import Delivery, deliver
from miq.settings import Settings
from tests.parts import moto
from tests.parts.certificate import self_signed
from tests.parts.front import Gate, front
from tests.parts.managers import AMAZON, SECRET, add_amazon
from tests.parts.written import nothing_written


@pytest.fixture
def session(database: Database, home: Home) -> Iterator[Session]:
    """A session as the delivery of a message lends it; pages of two reservations."""
    values = settings_module.merge([*settings_loader.shipped(), {"ems_refresh": {"ec2": {"page_size": 5}}}])
    with database.session() as session:
        session.info["settings"] = Settings(values)
        yield session


@pytest.fixture
def gate(aws: str) -> Iterator[Gate]:
    """A front before the account."""
    with front(aws) as gate:
        yield gate


def run(session: Session, *managers: ExtManagementSystem) -> EmsRefresh:
    """Refresh as a message does; the record of the last one."""
    refresh(session, None, [[AMAZON, ems.id] for ems in managers], "test")
    return last(session, managers[-1])


def last(session: Session, ems: ExtManagementSystem) -> EmsRefresh:
    """The record of the last refresh; the manager is read again too."""
    session.refresh(ems)
    found = session.scalars(select(EmsRefresh).where(EmsRefresh.ems_id == ems.id).order_by(EmsRefresh.id.desc()))
    return found.first() or pytest.fail("no refresh was recorded")


def vm(session: Session, ref: str) -> Vm:
    return session.scalars(select(Vm).where(Vm.ems_ref == ref).execution_options(populate_existing=True)).one()


def count(session: Session, model: Any, *where: Any) -> int:
    return session.scalar(select(func.count()).select_from(model).where(*where)) or 0


# -- a whole refresh ---------------------------------------------------------------------------------------------------


def test_full_refresh_to_rows(session: Session, home: Home, aws: str) -> None:
    ec2 = moto.client(aws)
    image = moto.register_image(ec2, "web server")
    (ref,) = moto.run_instances(ec2, image, kind="c5d.large", name="web")
    ec2.stop_instances(InstanceIds=moto.run_instances(ec2, image, kind="t3.micro"))
    ems = add_amazon(session, home, aws)
    record = run(session, ems)
    assert (record.state, record.error, record.cause, record.kind) == ("ok", None, "test", "full")
    assert (record.started_on < record.finished_on) if record.finished_on else False
    assert record.seconds and record.seconds > 0 and record.memory_peak
    assert record.collections["vms"] == {
        "seen": 2, "created": 2, "updated": 0, "unchanged": 0, "archived": 0, "skipped": 0, "complete": True,
    }  # fmt: skip
    assert ems.last_refresh_error is None
    assert ems.last_refresh_date == ems.last_refresh_success_date == record.finished_on

    web = vm(session, ref)
    truth = ec2.describe_instances(InstanceIds=[ref])["Reservations"][0]["Instances"][0]
    assert (web.name, web.uid_ems, web.vendor, web.type) == ("web", ref, "amazon", f"{AMAZON}::Vm")
    assert (web.raw_power_state, web.power_state, web.connection_state) == ("running", "on", "connected")
    assert (web.template, web.cloud, web.location) == (False, True, truth["PublicDnsName"])
    assert web.boot_time == truth["LaunchTime"].replace(tzinfo=None)
    zone = session.get_one(AvailabilityZone, web.availability_zone_id)
    assert (zone.ems_ref, zone.type) == (truth["Placement"]["AvailabilityZone"], f"{AMAZON}::AvailabilityZone")
    flavor = session.get_one(Flavor, web.flavor_id)
    assert (flavor.name, flavor.cpu_total_cores, flavor.memory) == ("c5d.large", 2, 4 * 2**30)
    assert (flavor.ephemeral_disk_count, flavor.ephemeral_disk_size) == (1, 50 * 2**30)
    assert (flavor.block_storage_based_only, flavor.supports_hvm, flavor.supports_64_bit) == (False, True, True)

    template = vm(session, image)
    assert (template.template, template.type, template.power_state) == (True, f"{AMAZON}::Template", "never")
    assert web.ancestry == str(template.id)
    hardware = session.scalars(select(Hardware).where(Hardware.vm_or_template_id == web.id)).one()
    assert (hardware.cpu_sockets, hardware.cpu_total_cores, hardware.memory_mb) == (2, 2, 4096)
    assert (hardware.guest_os, hardware.disk_capacity) == ("linux_generic", 50 * 2**30)
    system = session.scalars(select(OperatingSystem).where(OperatingSystem.vm_or_template_id == web.id)).one()
    assert system.product_name == "linux_generic"
    disks = session.scalars(select(Disk).where(Disk.hardware_id == hardware.id).order_by(Disk.device_name)).all()
    assert [(disk.device_name, disk.size) for disk in disks] == [("Disk 0", 50 * 2**30), ("sda1", None)]
    networks = session.scalars(select(Network).where(Network.hardware_id == hardware.id).order_by(Network.description))
    assert [(net.description, net.ipaddress, net.hostname) for net in networks] == [
        ("private", truth["PrivateIpAddress"], truth["PrivateDnsName"]),
        ("public", truth["PublicIpAddress"], truth["PublicDnsName"]),
    ]
    label = session.scalars(select(CustomAttribute).where(CustomAttribute.resource_id == web.id)).one()
    assert (label.section, label.name, label.value, label.source) == ("labels", "Name", "web", "amazon")
    assert count(session, Flavor) == record.collections["flavors"]["seen"] > 1000
    assert count(session, AvailabilityZone) == 6
    assert count(session, Vm, Vm.power_state == "off") == 1


def test_a_second_refresh_of_an_unchanged_account_writes_nothing(
    session: Session, database: Database, home: Home, aws: str
) -> None:
    ec2 = moto.client(aws)
    moto.run_instances(ec2, moto.register_image(ec2, "image"), 5)
    ems = add_amazon(session, home, aws)
    run(session, ems)
    session.commit()
    with nothing_written(database):
        record = run(session, ems)
        session.commit()
    assert record.state == "ok"
    assert (record.collections["vms"]["unchanged"], record.collections["disks"]["unchanged"]) == (5, 5)


def test_a_terminated_instance_is_archived(session: Session, home: Home, aws: str) -> None:
    ec2 = moto.client(aws)
    gone, stays = moto.run_instances(ec2, moto.register_image(ec2, "image"), 2)
    ems = add_amazon(session, home, aws)
    run(session, ems)
    ec2.terminate_instances(InstanceIds=[gone])
    record = run(session, ems)
    assert (record.state, record.collections["vms"]["archived"]) == ("ok", 1)
    archived = vm(session, gone)
    assert (archived.ems_id, archived.former_ems_id, archived.power_state) == (None, ems.id, "unknown")
    assert archived.archived_on is not None and archived.availability_zone_id is None
    assert vm(session, stays).ems_id == ems.id


def test_an_account_that_is_added_again_finds_its_vms(session: Session, home: Home, aws: str) -> None:
    ec2 = moto.client(aws)
    (ref,) = moto.run_instances(ec2, moto.register_image(ec2, "image"))
    first = add_amazon(session, home, aws)
    run(session, first)
    before = vm(session, ref).id
    session.execute(Vm.__table__.update().values(ems_id=None, former_ems_id=first.id))  # type: ignore[attr-defined]
    session.delete(first)
    session.commit()
    second = add_amazon(session, home, aws)
    run(session, second)
    assert (vm(session, ref).id, vm(session, ref).ems_id, vm(session, ref).former_ems_id) == (before, second.id, None)


def test_images_in_use_are_read_though_no_list_has_them(session: Session, home: Home, gate: Gate) -> None:
    ec2 = moto.client(gate.url)
    image = moto.register_image(ec2, "image")
    moto.run_instances(ec2, image)
    ems = add_amazon(session, home, gate.url)
    session.info["settings"] = _with(session, get_private_images=False, get_shared_images=False)
    gate.calls.clear()
    run(session, ems)
    assert gate.calls["DescribeImages"] == 1
    assert vm(session, image).name == "image"


def _with(session: Session, **options: Any) -> Settings:
    return Settings(settings_module.merge([session.info["settings"].values, {"ems_refresh": {"ec2": options}}]))


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_a_refused_image_list_archives_no_image(session: Session, home: Home, gate: Gate) -> None:
    ec2 = moto.client(gate.url)
    used, unused = moto.register_image(ec2, "used"), moto.register_image(ec2, "unused")
    gone, _ = moto.run_instances(ec2, used, 2)
    ems = add_amazon(session, home, gate.url)
    run(session, ems)
    success = ems.last_refresh_success_date
    ec2.terminate_instances(InstanceIds=[gone])
    ec2.deregister_image(ImageId=unused)
    gate.refuse("DescribeImages", 403, "UnauthorizedOperation", "You are not authorized to perform this operation.")
    record = run(session, ems)
    assert record.state == "partial"
    assert record.error and record.error.startswith("DescribeImages: ") and "not authorized" in record.error
    assert (record.collections["miq_templates"]["complete"], record.collections["vms"]["complete"]) == (False, True)
    assert vm(session, unused).ems_id == ems.id
    assert vm(session, gone).ems_id is None
    assert ems.last_refresh_error == record.error
    assert success and ems.last_refresh_success_date and ems.last_refresh_success_date > success


def test_a_failure_on_the_third_page_keeps_what_was_read_and_archives_nothing(
    session: Session, home: Home, gate: Gate
) -> None:
    ec2 = moto.client(gate.url)
    image = moto.register_image(ec2, "image")
    refs = [moto.run_instances(ec2, image)[0] for _ in range(12)]
    ems = add_amazon(session, home, gate.url)
    run(session, ems)
    ec2.stop_instances(InstanceIds=refs)
    gate.calls.clear()
    gate.refuse("DescribeInstances", 403, "UnauthorizedOperation", after=2)
    record = run(session, ems)
    assert (record.state, record.collections["vms"]["seen"], record.collections["vms"]["updated"]) == (
        "partial",
        10,
        10,
    )
    assert record.error and record.error.startswith("DescribeInstances: ")
    assert count(session, Vm, Vm.ems_id == ems.id, Vm.template.is_(False)) == 12
    assert count(session, Vm, Vm.power_state == "off") == 10


def test_instances_keep_their_sizes_when_types_cannot_be_read(session: Session, home: Home, gate: Gate) -> None:
    ec2 = moto.client(gate.url)
    moto.run_instances(ec2, moto.register_image(ec2, "image"), kind="c5d.large")
    ems = add_amazon(session, home, gate.url)
    run(session, ems)
    gate.refuse("DescribeInstanceTypes", 403, "UnauthorizedOperation")
    record = run(session, ems)
    assert record.state == "partial"
    assert {record.collections[name]["unchanged"] for name in ("hardwares", "vms")} == {1}
    assert record.collections["disks"]["unchanged"] == 2
    assert count(session, Flavor) > 1000


def test_a_bad_object_costs_itself(session: Session, home: Home, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    ec2 = moto.client(gate.url)
    image = moto.register_image(ec2, "image")
    bad, good = (moto.run_instances(ec2, image, name=name)[0] for name in ("bad", "good"))
    ems = add_amazon(session, home, gate.url)
    run(session, ems)
    gate.rewrite = lambda action, answer: (  # a state without a name
        answer.replace(b"<name>running</name>", b"", 1) if action == "DescribeInstances" else answer
    )
    record = run(session, ems)
    assert (record.state, record.error) == ("partial", "1 of vms skipped")
    assert record.collections["vms"]["skipped"] == record.collections["vms"]["unchanged"] == 1
    assert record.collections["vms"]["archived"] == record.collections["disks"]["archived"] == 0
    assert {vm(session, bad).ems_id, vm(session, good).ems_id} == {ems.id}
    assert f"vms: {bad} skipped" in caplog.text


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("AuthFailure", "DescribeInstances: Login failed due to a bad username or password."),
        ("SignatureDoesNotMatch", "DescribeInstances: SignatureMismatch - check your AWS Secret Access Key"),
    ],
)
def test_refused_credentials_change_nothing(
    session: Session, database: Database, home: Home, gate: Gate, code: str, line: str
) -> None:
    ec2 = moto.client(gate.url)
    moto.run_instances(ec2, moto.register_image(ec2, "image"))
    ems = add_amazon(session, home, gate.url)
    run(session, ems)
    success = ems.last_refresh_success_date
    gate.refuse("*", 401, code, "AWS was not able to validate the provided access credentials")
    session.commit()
    with nothing_written(database), pytest.raises(RefreshFailed, match=line):
        run(session, ems)
    record = last(session, ems)
    assert record.state == "error" and record.error and record.error.startswith(line)
    assert ems.last_refresh_error == record.error
    assert ems.last_refresh_success_date == success
    assert ems.last_refresh_date == record.finished_on


def test_an_endpoint_out_of_reach(session: Session, home: Home, aws: str) -> None:
    ems = add_amazon(session, home, f"http://127.0.0.1:{moto.free_port()}")
    with pytest.raises(RefreshFailed, match="the endpoint cannot be reached"):
        run(session, ems)
    assert last(session, ems).state == "error"
    assert SECRET not in (ems.last_refresh_error or "")


def test_a_certificate_that_nobody_vouches_for(session: Session, home: Home, aws: str, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with front(aws, certificate=certificate) as gate:
        ems = add_amazon(session, home, gate.url)
        with pytest.raises(RefreshFailed, match="certificate"):
            run(session, ems)
        trusted = add_amazon(session, home, gate.url, name="trusted", certificate_authority=certificate[0].read_text())
        assert run(session, trusted).state == "ok"


def test_one_managers_failure_is_not_the_others(session: Session, home: Home, aws: str) -> None:
    broken = add_amazon(session, home, f"http://127.0.0.1:{moto.free_port()}", name="broken")
    sound = add_amazon(session, home, aws, name="sound")
    with pytest.raises(RefreshFailed, match=r"^broken: "):
        run(session, broken, sound)
    assert (last(session, broken).state, last(session, sound).state) == ("error", "ok")


def test_a_paused_manager_is_left_alone(session: Session, home: Home, gate: Gate) -> None:
    ems = add_amazon(session, home, gate.url)
    ems.enabled = False
    session.commit()
    refresh(session, None, [[AMAZON, ems.id], [AMAZON, 4711], ["Nobody::Knows", 1]])
    assert gate.seen == [] and count(session, EmsRefresh) == 0


# -- stopping and dying ------------------------------------------------------------------------------------------------


def test_a_stop_is_obeyed_between_pages(session: Session, database: Database, home: Home, gate: Gate) -> None:
    ec2 = moto.client(gate.url)
    image = moto.register_image(ec2, "image")
    for _ in range(12):
        moto.run_instances(ec2, image)
    ems = add_amazon(session, home, gate.url)
    session.info["check_stop"] = _stop_when(lambda: gate.calls["DescribeInstances"] == 2)
    with pytest.raises(StopRequested):
        run(session, ems)
    assert gate.calls["DescribeInstances"] == 2
    record = last(session, ems)
    assert (record.state, record.error) == ("error", "stopped")
    assert (ems.last_refresh_date, ems.last_refresh_error, count(session, Vm)) == (None, None, 0)


def _stop_when(condition: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if condition():
            raise StopRequested("the worker was asked to stop")

    return check


def test_the_record_of_a_dead_worker_is_closed_by_the_next_refresh(session: Session, home: Home, aws: str) -> None:
    ems = add_amazon(session, home, aws)
    session.add(EmsRefresh(ems_id=ems.id, kind="full", state="running"))
    session.commit()
    session.info["worker_guid"] = "guid-2"
    run(session, ems)
    records = session.scalars(
        select(EmsRefresh).order_by(EmsRefresh.id).execution_options(populate_existing=True)
    ).all()
    assert [(each.state, each.error, each.worker_guid) for each in records] == [
        ("error", "the worker died", None), ("ok", None, "guid-2"),
    ]  # fmt: skip


def test_a_time_out_reaches_a_call_that_hangs(session: Session, home: Home, gate: Gate) -> None:
    ems = add_amazon(session, home, gate.url)
    released = threading.Event()

    def hang(action: str) -> None:
        if action == "DescribeInstances":
            released.wait(30)

    gate.before = hang
    message = Claimed(
        1, "EmsRefresh", "refresh", None, None, json.dumps([[[AMAZON, ems.id]]]), None, 4, None, None, 0, None, None,
        None, None, None, None,
    )  # fmt: skip
    began = time.monotonic()
    try:
        with closing(Database(session.info["database"].dsn)) as workers_own:  # a time-out closes it
            outcome = deliver(message, Delivery(workers_own, Handler("MiqWorker", 1)))
    finally:
        released.set()
    assert (outcome.status, outcome.text) == ("timeout", "timed out after 4 seconds")
    assert time.monotonic() - began < 10
    record = last(session, ems)
    assert (record.state, record.error, ems.last_refresh_error) == ("error", outcome.text, outcome.text)


def test_a_lost_database_is_told_and_the_record_closed_later(
    session: Session, database: Database, dsn: str, home: Home, gate: Gate
) -> None:
    ems = add_amazon(session, home, gate.url)
    pid = database.backend_pid

    def cut(action: str) -> None:
        if action == "DescribeInstances" and gate.calls[action] == 1:
            with psycopg.connect(dsn) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [pid])

    gate.before = cut
    with pytest.raises((psycopg.OperationalError, DBAPIError)):
        run(session, ems)
    with pytest.raises((psycopg.Error, SQLAlchemyError)):
        session.execute(select(1))
    with database.session() as fresh:
        found = fresh.get_one(ExtManagementSystem, ems.id)
        refresh(fresh, None, [[AMAZON, found.id]])
        states = [(each.state, each.error) for each in fresh.scalars(select(EmsRefresh).order_by(EmsRefresh.id))]
        assert states == [("error", "the worker died"), ("ok", None)]
    session.invalidate()
