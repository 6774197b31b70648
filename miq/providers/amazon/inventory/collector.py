"""The EC2 API, one reader for each kind of object, lazily and page by page. No mapping, no database.

Pages are lists of the API's own dicts. Instances are read before images: images that instances use, and that are in
no list, are asked for by their ids at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from miq.connections import ConnectionSpec
from miq.providers.amazon.connection import Connection
from miq.providers.base.inventory import Page

_MACHINES = [{"Name": "image-type", "Values": ["machine"]}]
#: limits of the API, and how many ids are asked for at once
_FLAVORS, _IMAGES, _IDS = 100, 1000, 200


class Collector:
    """Reads one account in one region."""

    def __init__(self, spec: ConnectionSpec) -> None:
        self._connection = Connection(spec)
        self._settings = spec.settings
        self._images_in_use: set[str] = set()

    def availability_zones(self) -> Iterator[Page]:
        """The zones that the account may use."""
        yield self._connection.call("describe_availability_zones")["AvailabilityZones"]

    def flavors(self) -> Iterator[Page]:
        """The instance types of the region."""
        for page in self._connection.pages("describe_instance_types", page_size=_FLAVORS):
            yield page["InstanceTypes"]

    def instances(self) -> Iterator[Page]:
        """Instances, terminated ones included."""
        size = int(self._settings.get("page_size", 500))
        for page in self._connection.pages("describe_instances", page_size=size):
            instances = list(chain.from_iterable(reservation["Instances"] for reservation in page["Reservations"]))
            self._images_in_use.update(instance["ImageId"] for instance in instances if "ImageId" in instance)
            yield instances

    def private_images(self) -> Iterator[Page]:
        """The account's own images."""
        if self._settings.get("get_private_images", True):
            yield from self._images(Owners=["self"], Filters=_MACHINES)

    def shared_images(self) -> Iterator[Page]:
        """Images that others share with the account."""
        if self._settings.get("get_shared_images", True):
            yield from self._images(ExecutableUsers=["self"], Filters=_MACHINES)

    def public_images(self) -> Iterator[Page]:
        """Images of everybody, as far as the settings' filters let them through: a hundred thousand without any."""
        if self._settings.get("get_public_images", False):
            filters = [
                {"Name": entry["name"], "Values": [str(value) for value in entry["values"]]}
                for entry in self._settings.get("public_images_filters") or []
            ]
            yield from self._images(ExecutableUsers=["all"], Filters=filters)

    def used_images(self) -> Iterator[Page]:
        """Images of instances that no list before had."""
        ids = sorted(self._images_in_use)
        for start in range(0, len(ids), _IDS):
            yield from self._images(Filters=[{"Name": "image-id", "Values": ids[start : start + _IDS]}])

    def _images(self, **arguments: Any) -> Iterator[Page]:  # noqa: ANN401
        for page in self._connection.pages("describe_images", page_size=_IMAGES, **arguments):
            images = page["Images"]
            self._images_in_use.difference_update(image["ImageId"] for image in images)
            yield images
