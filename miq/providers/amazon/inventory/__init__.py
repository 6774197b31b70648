"""The inventory of an Amazon account: `collector` reads, `parser` maps, `persister` declares; here is their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from miq.connections import ConnectionSpec
from miq.ems_refresh.saver import Saver
from miq.providers.amazon.inventory.collector import Collector
from miq.providers.amazon.inventory.parser import UNKNOWN_FLAVOR, Parser
from miq.providers.amazon.inventory.persister import CloudPersister
from miq.providers.base.inventory import Inventory, Page, Read

_OF_INSTANCES = ("vms", "hardwares", "operating_systems", "disks", "networks", "vm_labels")
_OF_IMAGES = ("miq_templates", "miq_template_hardwares", "miq_template_operating_systems", "miq_template_labels")


class CloudInventory(Inventory):
    """One refresh of one account."""

    def __init__(self, spec: ConnectionSpec) -> None:
        super().__init__(spec)
        self._persister = CloudPersister()
        self._collector = Collector(spec)
        self._parser = Parser(
            self._persister.collections, ignore_terminated=spec.settings.get("ignore_terminated_instances", True)
        )

    @property
    def persister(self) -> CloudPersister:
        """The account's collections."""
        return self._persister

    def prepare(self, saver: Saver) -> None:
        """Instances take their sizes from flavors."""
        self._parser.flavors.update(self._persister.known_flavors(saver))

    def reads(self) -> Iterable[Read]:
        """Flavors before instances, which take their sizes from them; instances before images, which they name."""
        collector, parser = self._collector, self._parser
        yield Read(
            "zones", collector.availability_zones, parser.parse_availability_zone, ("availability_zones",), "ZoneName"
        )
        yield Read("flavors", self._flavors, parser.parse_flavor, ("flavors",), "InstanceType")
        yield Read("instances", collector.instances, parser.parse_instance, _OF_INSTANCES, "InstanceId", main=True)
        for name, pages in (
            ("private images", collector.private_images),
            ("shared images", collector.shared_images),
            ("public images", collector.public_images),
            ("images in use", collector.used_images),
        ):
            yield Read(name, pages, parser.parse_image, _OF_IMAGES, "ImageId")

    def _flavors(self) -> Iterator[Page]:
        return chain([[UNKNOWN_FLAVOR]], self._collector.flavors())
