"""The collections of a cloud: zones, flavors, VMs and templates with what hangs on them.

A provider's persister takes these, naming its own classes. What hangs on templates and on VMs are separate
collections of the same tables, so that the ones of VMs can take from the ones of their templates, and each is as
whole as its own read.
"""

from __future__ import annotations

from miq.ems_refresh.inventory_collection import Definition, Reconnect, Reference, StateColumns, Vanish
from miq.models import AvailabilityZone, CustomAttribute, Disk, Flavor, Hardware, Network, OperatingSystem, Vm

#: what an archived VM or template no longer has
_ARCHIVED = {
    "raw_power_state": "unknown",
    "power_state": "unknown",
    "availability_zone_id": None,
    "host_id": None,
    "ems_cluster_id": None,
    "storage_id": None,
    "orchestration_stack_id": None,
    "cloud_network_id": None,
    "cloud_subnet_id": None,
    "cloud_tenant_id": None,
    "resource_group_id": None,
    "placement_group_id": None,
}
_VM_COLUMNS = (
    "type", "ems_ref", "uid_ems", "name", "vendor", "cloud", "location", "connection_state", "raw_power_state",
    "power_state", "boot_time",
)  # fmt: skip
_HARDWARE_COLUMNS = ("bitness", "virtualization_type", "root_device_type")


def availability_zones(kind: str) -> Definition:
    """Zones of the manager's region."""
    return Definition("availability_zones", AvailabilityZone, ("type", "ems_ref", "name"), defaults={"type": kind})


def flavors(kind: str) -> Definition:
    """Instance types that the manager offers."""
    columns = (
        "type", "ems_ref", "name", "description", "enabled", "cpu_total_cores", "memory", "supports_32_bit",
        "supports_64_bit", "supports_hvm", "supports_paravirtual", "block_storage_based_only", "cloud_subnet_required",
        "ephemeral_disk_size", "ephemeral_disk_count",
    )  # fmt: skip
    return Definition("flavors", Flavor, columns, defaults={"type": kind, "enabled": True})


def miq_templates(kind: str, vendor: str, *, reconnect: Reconnect) -> Definition:
    """Images that VMs are made of."""
    return Definition(
        "miq_templates",
        Vm,
        (*_VM_COLUMNS, "publicly_available"),
        fixed={"template": True},
        defaults={"type": kind, "vendor": vendor, "cloud": True},
        vanish=Vanish.ARCHIVE,
        archived=_ARCHIVED,
        reconnect=reconnect,
        state=StateColumns("power_state", previous="previous_state", changed_on="state_changed_on"),
    )


def vms(kind: str, vendor: str, *, reconnect: Reconnect) -> Definition:
    """Instances. `ancestry` is the path to what a VM was made of: its image, also one that is gone."""
    return Definition(
        "vms",
        Vm,
        _VM_COLUMNS,
        references=(
            Reference("availability_zone_id", "availability_zones"),
            Reference("flavor_id", "flavors"),
            Reference("ancestry", "miq_templates", "concat_ws('/', {row}.ancestry, {row}.id)", archived=True),
        ),
        fixed={"template": False},
        defaults={"type": kind, "vendor": vendor, "cloud": True},
        vanish=Vanish.ARCHIVE,
        archived=_ARCHIVED,
        reconnect=reconnect,
        state=StateColumns("power_state", previous="previous_state", changed_on="state_changed_on"),
    )


def miq_template_hardwares() -> Definition:
    """What an image says of the machine that it wants."""
    return Definition(
        "miq_template_hardwares",
        Hardware,
        ("guest_os", *_HARDWARE_COLUMNS),
        manager_ref=("vm_or_template_id",),
        references=(Reference("vm_or_template_id", "miq_templates"),),
        parent="vm_or_template_id",
    )


def hardwares() -> Definition:
    """The machine that a VM is; its guest OS is that of its image."""
    return Definition(
        "hardwares",
        Hardware,
        (*_HARDWARE_COLUMNS, "cpu_sockets", "cpu_cores_per_socket", "cpu_total_cores", "memory_mb", "disk_capacity"),
        manager_ref=("vm_or_template_id",),
        references=(Reference("vm_or_template_id", "vms"), _of_image("guest_os")),
        parent="vm_or_template_id",
    )


def miq_template_operating_systems() -> Definition:
    """The operating system in an image."""
    return Definition(
        "miq_template_operating_systems",
        OperatingSystem,
        ("product_name",),
        manager_ref=("vm_or_template_id",),
        references=(Reference("vm_or_template_id", "miq_templates"),),
        parent="vm_or_template_id",
    )


def operating_systems() -> Definition:
    """The operating system of a VM: that of its image."""
    return Definition(
        "operating_systems",
        OperatingSystem,
        (),
        manager_ref=("vm_or_template_id",),
        references=(Reference("vm_or_template_id", "vms"), _of_image("product_name")),
        parent="vm_or_template_id",
    )


def _of_image(column: str) -> Reference:
    return Reference(column, "miq_template_hardwares", "{row}.guest_os", archived=True)


def disks() -> Definition:
    """Disks of VMs. The size of one that is a volume is the volume's to say."""
    return Definition(
        "disks",
        Disk,
        ("device_name", "device_type", "controller_type", "size"),
        manager_ref=("hardware_id", "device_name"),
        references=(Reference("hardware_id", "hardwares"),),
        optional=frozenset({"size"}),
        parent="hardware_id",
    )


def networks() -> Definition:
    """Addresses of VMs, one row "private" and one "public"."""
    return Definition(
        "networks",
        Network,
        ("description", "ipaddress", "hostname", "ipv6address"),
        manager_ref=("hardware_id", "description"),
        references=(Reference("hardware_id", "hardwares"),),
        parent="hardware_id",
    )


def labels(name: str, of: str, source: str) -> Definition:
    """Labels of VMs or templates."""
    return Definition(
        name,
        CustomAttribute,
        ("name", "value", "source"),
        manager_ref=("resource_id", "name"),
        references=(Reference("resource_id", of),),
        fixed={"resource_type": "VmOrTemplate", "section": "labels"},
        defaults={"source": source},
        parent="resource_id",
    )
