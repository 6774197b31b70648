"""What is kept of an Amazon account, and what its parser has to know from the database beforehand."""

from __future__ import annotations

from collections.abc import Iterable

from miq.ems_refresh.definitions import cloud
from miq.ems_refresh.inventory_collection import Definition, Reconnect
from miq.ems_refresh.saver import Saver
from miq.providers.amazon.inventory.parser import FlavorFacts
from miq.providers.amazon.manager import CloudManager
from miq.providers.base.inventory import Persister

VENDOR = CloudManager.vendor


class CloudPersister(Persister):
    """The collections of the cloud manager."""

    def definitions(self) -> Iterable[Definition]:
        """Identities of EC2 are global, so an account that is added again finds its VMs."""
        return (
            cloud.availability_zones(f"{CloudManager.type}::AvailabilityZone"),
            cloud.flavors(f"{CloudManager.type}::Flavor"),
            cloud.miq_templates(f"{CloudManager.type}::Template", VENDOR, reconnect=Reconnect.GLOBAL),
            cloud.miq_template_hardwares(),
            cloud.miq_template_operating_systems(),
            cloud.labels("miq_template_labels", "miq_templates", VENDOR),
            cloud.vms(f"{CloudManager.type}::Vm", VENDOR, reconnect=Reconnect.GLOBAL),
            cloud.hardwares(),
            cloud.operating_systems(),
            cloud.disks(),
            cloud.networks(),
            cloud.labels("vm_labels", "vms", VENDOR),
        )

    @staticmethod
    def known_flavors(saver: Saver) -> dict[str, FlavorFacts]:
        """Flavors of the last refresh: instances keep their sizes when instance types cannot be read this time."""
        columns = ("ems_ref", "cpu_total_cores", "memory", "ephemeral_disk_size", "ephemeral_disk_count")
        return {row[0]: FlavorFacts(*(value or 0 for value in row[1:])) for row in saver.known("flavors", columns)}
