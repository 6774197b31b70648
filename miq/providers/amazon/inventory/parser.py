"""EC2's answers, mapped to rows. Pure: dicts in, objects of the collections out; a strange answer raises what it
raises.

Names and values follow the modelled system, so that its operators' SQL finds what it expects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miq.ems_refresh import guest_os
from miq.ems_refresh.inventory_collection import InventoryCollection
from miq.ems_refresh.inventory_object import Lazy
from miq.providers.base.inventory import Item

GIGABYTE = 2**30
MEGABYTE = 2**20
UNKNOWN = "unknown"

#: what an instance of a type that Amazon does not list is taken for
UNKNOWN_FLAVOR: Item = {
    "InstanceType": UNKNOWN,
    "VCpuInfo": {"DefaultVCpus": 1},
    "MemoryInfo": {"SizeInMiB": 0},
}

POWER_STATES = {
    "running": "on",
    "powering_up": "powering_up",
    "shutting_down": "powering_down",
    "shutting-down": "powering_down",
    "stopping": "powering_down",
    "pending": "suspended",
    "terminated": "terminated",
    "stopped": "off",
    "off": "off",
}
BITNESS = {"i386": 32, "x86_64": 64, "x86_64_mac": 64, "arm64": 64, "arm64_mac": 64}
_MANIFEST = re.compile(r"^(.+?)(\.(image|img))?\.manifest\.xml$")


@dataclass(frozen=True)
class FlavorFacts:
    """What an instance takes from its type: processors, and bytes of memory and of instance storage."""

    cpus: int
    memory: int
    storage: int = 0
    disks: int = 0


class Parser:
    """Builds the objects of one refresh. Flavors come first: instances take their sizes from them."""

    def __init__(self, collections: Mapping[str, InventoryCollection], *, ignore_terminated: bool = True) -> None:
        self._in = collections
        self._ignore_terminated = ignore_terminated
        self.flavors: dict[str, FlavorFacts] = {}

    # -- the region ----------------------------------------------------------------------------------------------------

    def parse_availability_zone(self, zone: Item) -> None:
        """One zone."""
        self._in["availability_zones"].build(ems_ref=zone["ZoneName"], name=zone["ZoneName"])

    def parse_flavor(self, kind: Item) -> None:
        """One instance type."""
        name = kind["InstanceType"]
        storage = kind.get("InstanceStorageInfo", {})
        facts = FlavorFacts(
            cpus=kind["VCpuInfo"]["DefaultVCpus"],
            memory=kind["MemoryInfo"]["SizeInMiB"] * MEGABYTE,
            storage=storage.get("TotalSizeInGB", 0) * GIGABYTE,
            disks=sum(disk["Count"] for disk in storage.get("Disks", [])),
        )
        architectures = kind.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
        virtualization = kind.get("SupportedVirtualizationTypes", [])
        self._in["flavors"].build(
            ems_ref=name,
            name=name,
            description=" ".join(part.capitalize() for part in name.split(".")),
            cpu_total_cores=facts.cpus,
            memory=facts.memory,
            supports_32_bit="i386" in architectures,
            supports_64_bit=any(BITNESS.get(architecture) == 64 for architecture in architectures),
            supports_hvm="hvm" in virtualization,
            supports_paravirtual="paravirtual" in virtualization,
            block_storage_based_only=not kind.get("InstanceStorageSupported", False),
            cloud_subnet_required=True,  # there has been no EC2 outside of a VPC since EC2-Classic ended
            ephemeral_disk_size=facts.storage,
            ephemeral_disk_count=facts.disks,
        )
        self.flavors[name] = facts

    # -- images --------------------------------------------------------------------------------------------------------

    def parse_image(self, image: Item) -> None:
        """One image and what it says of the machines that are made of it."""
        ref, location = image["ImageId"], image.get("ImageLocation")
        template = self._in["miq_templates"].build(
            ems_ref=ref,
            uid_ems=ref,
            name=_name_tag(image) or image.get("Name") or _manifest_name(location) or ref,
            location=location,
            connection_state="connected",
            raw_power_state="never",
            power_state="never",
            publicly_available=image.get("Public"),
        )
        system = _guest_os(image)
        self._in["miq_template_hardwares"].build(
            vm_or_template_id=template,
            guest_os=system,
            bitness=BITNESS.get(image.get("Architecture", "")),
            virtualization_type=image.get("VirtualizationType"),
            root_device_type=image.get("RootDeviceType"),
        )
        self._in["miq_template_operating_systems"].build(vm_or_template_id=template, product_name=system)
        self._labels("miq_template_labels", template, image)

    # -- instances -----------------------------------------------------------------------------------------------------

    def parse_instance(self, instance: Item) -> None:
        """One instance with everything that hangs on it."""
        state = instance["State"]["Name"]
        if state == "terminated" and self._ignore_terminated:
            return
        ref, kind = instance["InstanceId"], instance.get("InstanceType", UNKNOWN)
        flavor = kind if kind in self.flavors else UNKNOWN
        image = self._in["miq_templates"].lazy(instance.get("ImageId"))
        vm = self._in["vms"].build(
            ems_ref=ref,
            uid_ems=ref,
            name=_name_tag(instance) or ref,
            location=instance.get("PublicDnsName") or UNKNOWN,
            connection_state="connected",
            raw_power_state=state,
            power_state=POWER_STATES.get(state, "terminated"),
            boot_time=instance.get("LaunchTime"),
            availability_zone_id=self._in["availability_zones"].lazy(instance["Placement"].get("AvailabilityZone")),
            flavor_id=self._in["flavors"].lazy(flavor),
            ancestry=image,
        )
        system = self._in["miq_template_hardwares"].lazy(image)
        self._in["operating_systems"].build(vm_or_template_id=vm, product_name=system)
        hardware = self._hardware(instance, vm, system, self.flavors.get(flavor, FlavorFacts(1, 0)))
        self._networks(hardware, instance)
        self._labels("vm_labels", vm, instance)

    def _hardware(self, instance: Item, vm: Lazy, system: Lazy | None, flavor: FlavorFacts) -> Lazy:
        hardware = self._in["hardwares"].build(
            vm_or_template_id=vm,
            guest_os=system,
            bitness=BITNESS.get(instance.get("Architecture", "")),
            virtualization_type=instance.get("VirtualizationType"),
            root_device_type=instance.get("RootDeviceType"),
            cpu_sockets=flavor.cpus,
            cpu_cores_per_socket=1,
            cpu_total_cores=flavor.cpus,
            memory_mb=flavor.memory // MEGABYTE,
            disk_capacity=flavor.storage,
        )
        for number in range(flavor.disks):
            self._disk(hardware, f"Disk {number}", flavor.storage // flavor.disks)
        for device in instance.get("BlockDeviceMappings", []):
            if device.get("DeviceName"):
                self._disk(hardware, device["DeviceName"].rpartition("/")[2])
        return hardware

    def _disk(self, hardware: Lazy, name: str, size: int | None = None) -> None:
        self._in["disks"].build(
            hardware_id=hardware, device_name=name, device_type="disk", controller_type="amazon", size=size
        )

    def _networks(self, hardware: Lazy, instance: Item) -> None:
        private, public = instance.get("PrivateIpAddress"), instance.get("PublicIpAddress")
        ipv6 = instance.get("Ipv6Address") or _first_ipv6(instance.get("NetworkInterfaces", []))
        networks = self._in["networks"]
        if private:
            name = instance.get("PrivateDnsName") or None
            networks.build(hardware_id=hardware, description="private", ipaddress=private, hostname=name)
        if public or ipv6:
            name = instance.get("PublicDnsName") or None
            networks.build(
                hardware_id=hardware, description="public", ipaddress=public, hostname=name, ipv6address=ipv6
            )

    def _labels(self, collection: str, resource: Lazy, item: Item) -> None:
        for tag in item.get("Tags", []):
            self._in[collection].build(resource_id=resource, name=tag["Key"], value=tag["Value"])


def _name_tag(item: Item) -> str | None:
    return next((tag["Value"] for tag in item.get("Tags", []) if tag["Key"].lower() == "name" and tag["Value"]), None)


def _manifest_name(location: str | None) -> str | None:
    found = _MANIFEST.match(location or "")
    return found[1] if found else None


def _guest_os(image: Item) -> str:
    if str(image.get("Platform", "")).lower() == "windows":
        return "windows_generic"
    found = guest_os.guess(image.get("ImageLocation") or "")
    return "linux_generic" if found == guest_os.UNKNOWN else found


def _first_ipv6(interfaces: Sequence[Mapping[str, Any]]) -> str | None:
    addresses = (address["Ipv6Address"] for interface in interfaces for address in interface.get("Ipv6Addresses", []))
    return next(addresses, None)
