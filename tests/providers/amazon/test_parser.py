"""EC2's answers mapped to rows: plain dicts in, plain values out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from miq.providers.amazon.inventory.parser import UNKNOWN_FLAVOR, FlavorFacts, Parser
from miq.providers.amazon.inventory.persister import CloudPersister

INSTANCE: dict[str, Any] = {
    "InstanceId": "i-1",
    "ImageId": "ami-1",
    "InstanceType": "c5d.large",
    "State": {"Name": "running", "Code": 16},
    "Placement": {"AvailabilityZone": "us-east-1e"},
    "LaunchTime": datetime(2020, 8, 12, 14, 11, 40, tzinfo=UTC),
    "Architecture": "x86_64",
    "VirtualizationType": "hvm",
    "RootDeviceType": "ebs",
    "PrivateIpAddress": "10.0.0.1",
    "PrivateDnsName": "ip-10-0-0-1.ec2.internal",
    "PublicIpAddress": "54.0.0.1",
    "PublicDnsName": "ec2-54-0-0-1.compute-1.amazonaws.com",
    "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeId": "vol-1"}}, {"DeviceName": "xvdf"}, {}],
    "Tags": [{"Key": "name", "Value": "web"}, {"Key": "owner", "Value": ""}],
}
IMAGE: dict[str, Any] = {
    "ImageId": "ami-1",
    "ImageLocation": "309956199498/RHEL-7.2_HVM_GA",
    "Name": "RHEL-7.2_HVM_GA",
    "Architecture": "i386",
    "VirtualizationType": "hvm",
    "RootDeviceType": "ebs",
    "Public": True,
}
FLAVOR: dict[str, Any] = {
    "InstanceType": "c5d.large",
    "VCpuInfo": {"DefaultVCpus": 2},
    "MemoryInfo": {"SizeInMiB": 4096},
    "ProcessorInfo": {"SupportedArchitectures": ["i386", "x86_64"]},
    "SupportedVirtualizationTypes": ["hvm"],
    "InstanceStorageSupported": True,
    "InstanceStorageInfo": {"TotalSizeInGB": 100, "Disks": [{"SizeInGB": 50, "Count": 2, "Type": "ssd"}]},
}


class Parsed:
    """A parser and what it built, as dicts of plain columns and of flattened references."""

    def __init__(self, **options: bool) -> None:
        self.collections = CloudPersister().collections
        self.parser = Parser(self.collections, **options)
        self.parser.flavors["unknown"] = FlavorFacts(1, 0)

    def rows(self, name: str) -> list[dict[str, Any]]:
        collection = self.collections[name]
        names = ["_keep", *collection.definition.columns]
        for reference in collection.definition.references:
            width = len(self.collections.leaves(reference.to))
            names += [reference.column] + [f"{reference.column}_{n}" for n in range(1, width)]
        return [dict(zip(names, row, strict=True)) for row in collection.page]


@pytest.fixture
def parsed() -> Parsed:
    return Parsed()


def test_flavor(parsed: Parsed) -> None:
    parsed.parser.parse_flavor(FLAVOR)
    (row,) = parsed.rows("flavors")
    assert row == {
        "_keep": False, "type": "ManageIQ::Providers::Amazon::CloudManager::Flavor", "ems_ref": "c5d.large",
        "name": "c5d.large", "description": "C5d Large", "enabled": True, "cpu_total_cores": 2, "memory": 4 * 2**30,
        "supports_32_bit": True, "supports_64_bit": True, "supports_hvm": True, "supports_paravirtual": False,
        "block_storage_based_only": False, "cloud_subnet_required": True, "ephemeral_disk_size": 100 * 2**30,
        "ephemeral_disk_count": 2,
    }  # fmt: skip


def test_the_unknown_flavor(parsed: Parsed) -> None:
    parsed.parser.parse_flavor(UNKNOWN_FLAVOR)
    (row,) = parsed.rows("flavors")
    assert (row["ems_ref"], row["cpu_total_cores"], row["memory"]) == ("unknown", 1, 0)


def test_instance(parsed: Parsed) -> None:
    parsed.parser.parse_flavor(FLAVOR)
    parsed.parser.parse_instance(INSTANCE)
    (vm,) = parsed.rows("vms")
    assert vm == {
        "_keep": False, "type": "ManageIQ::Providers::Amazon::CloudManager::Vm", "ems_ref": "i-1", "uid_ems": "i-1",
        "name": "web", "vendor": "amazon", "cloud": True, "location": "ec2-54-0-0-1.compute-1.amazonaws.com",
        "connection_state": "connected", "raw_power_state": "running", "power_state": "on",
        "boot_time": datetime(2020, 8, 12, 14, 11, 40), "availability_zone_id": "us-east-1e", "flavor_id": "c5d.large",
        "ancestry": "ami-1",
    }  # fmt: skip
    (hardware,) = parsed.rows("hardwares")
    assert hardware == {
        "_keep": False, "bitness": 64, "virtualization_type": "hvm", "root_device_type": "ebs", "cpu_sockets": 2,
        "cpu_cores_per_socket": 1, "cpu_total_cores": 2, "memory_mb": 4096, "disk_capacity": 100 * 2**30,
        "vm_or_template_id": "i-1", "guest_os": "ami-1",
    }  # fmt: skip
    assert [(row["vm_or_template_id"], row["product_name"]) for row in parsed.rows("operating_systems")] == [
        ("i-1", "ami-1")
    ]
    assert [(row["device_name"], row["size"]) for row in parsed.rows("disks")] == [
        ("Disk 0", 50 * 2**30), ("Disk 1", 50 * 2**30), ("sda1", None), ("xvdf", None),
    ]  # fmt: skip
    assert {(row["hardware_id"], row["controller_type"], row["device_type"]) for row in parsed.rows("disks")} == {
        ("i-1", "amazon", "disk")
    }
    assert [(row["description"], row["ipaddress"], row["hostname"]) for row in parsed.rows("networks")] == [
        ("private", "10.0.0.1", "ip-10-0-0-1.ec2.internal"),
        ("public", "54.0.0.1", "ec2-54-0-0-1.compute-1.amazonaws.com"),
    ]
    assert [(row["name"], row["value"], row["source"]) for row in parsed.rows("vm_labels")] == [
        ("name", "web", "amazon"), ("owner", "", "amazon"),
    ]  # fmt: skip


def test_an_instance_without_addresses_tags_or_known_type(parsed: Parsed) -> None:
    bare = {"InstanceId": "i-2", "InstanceType": "x9.huge", "State": {"Name": "stopped"}, "Placement": {}}
    parsed.parser.parse_instance(bare)
    (vm,) = parsed.rows("vms")
    assert (vm["name"], vm["location"], vm["power_state"], vm["flavor_id"]) == ("i-2", "unknown", "off", "unknown")
    assert (vm["availability_zone_id"], vm["ancestry"]) == (None, None)
    assert parsed.rows("networks") == parsed.rows("disks") == []


@pytest.mark.parametrize(
    ("raw", "power"),
    [
        ("running", "on"), ("pending", "suspended"), ("stopping", "powering_down"), ("shutting-down", "powering_down"),
        ("stopped", "off"), ("rebooting-into-something-new", "terminated"),
    ],
)  # fmt: skip
def test_power_states(parsed: Parsed, raw: str, power: str) -> None:
    parsed.parser.parse_instance({**INSTANCE, "State": {"Name": raw}})
    assert [(row["raw_power_state"], row["power_state"]) for row in parsed.rows("vms")] == [(raw, power)]


def test_terminated_instances_are_left_out_unless_wanted() -> None:
    gone = {**INSTANCE, "State": {"Name": "terminated"}}
    left_out, wanted = Parsed(), Parsed(ignore_terminated=False)
    left_out.parser.parse_instance(gone)
    wanted.parser.parse_instance(gone)
    assert left_out.rows("vms") == []
    assert [row["power_state"] for row in wanted.rows("vms")] == ["terminated"]


def test_an_ipv6_address_alone_is_a_public_network(parsed: Parsed) -> None:
    interfaces = [{"Ipv6Addresses": []}, {"Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}]}]
    bare = {"InstanceId": "i-2", "State": {"Name": "running"}, "Placement": {}, "NetworkInterfaces": interfaces}
    parsed.parser.parse_instance(bare)
    assert [(row["description"], row["ipv6address"]) for row in parsed.rows("networks")] == [("public", "2001:db8::1")]


def test_image(parsed: Parsed) -> None:
    parsed.parser.parse_image(IMAGE)
    (template,) = parsed.rows("miq_templates")
    assert template["type"] == "ManageIQ::Providers::Amazon::CloudManager::Template"
    assert (template["name"], template["location"]) == ("RHEL-7.2_HVM_GA", "309956199498/RHEL-7.2_HVM_GA")
    assert (template["raw_power_state"], template["power_state"]) == ("never", "never")
    assert template["publicly_available"] is True
    (hardware,) = parsed.rows("miq_template_hardwares")
    assert (hardware["guest_os"], hardware["bitness"]) == ("linux_redhat", 32)
    assert [row["product_name"] for row in parsed.rows("miq_template_operating_systems")] == ["linux_redhat"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"Tags": [{"Key": "NAME", "Value": "tagged"}]}, "tagged"),
        ({"Tags": [{"Key": "Name", "Value": ""}]}, "RHEL-7.2_HVM_GA"),
        ({"Name": None, "ImageLocation": "bucket/old.manifest.xml"}, "bucket/old"),
        ({"Name": None, "ImageLocation": "bucket/old.image.manifest.xml"}, "bucket/old"),
        ({"Name": None, "ImageLocation": None}, "ami-1"),
    ],
)
def test_names_of_images(parsed: Parsed, changes: dict[str, Any], name: str) -> None:
    parsed.parser.parse_image({**IMAGE, **changes})
    assert [row["name"] for row in parsed.rows("miq_templates")] == [name]


@pytest.mark.parametrize(
    ("changes", "system"),
    [
        ({"Platform": "windows"}, "windows_generic"),
        ({"Platform": "Windows"}, "windows_generic"),
        ({"ImageLocation": "amazon/ubuntu-22.04"}, "linux_ubuntu"),
        ({"ImageLocation": "me/whatever"}, "linux_generic"),
    ],
)
def test_guest_os_of_images(parsed: Parsed, changes: dict[str, Any], system: str) -> None:
    parsed.parser.parse_image({**IMAGE, **changes})
    assert [row["guest_os"] for row in parsed.rows("miq_template_hardwares")] == [system]
