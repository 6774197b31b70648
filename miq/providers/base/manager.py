"""The record of a provider and the classes of its managers: everything the core knows without importing an SDK.

A provider's `__init__` holds one `Provider` as PROVIDER, named by the entry point group `miq.providers`. Everything
that needs the SDK is named as a string ("package.module:attribute"), loaded in workers or where the user asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from miq.connections import ConnectionSpec, Credentials
from miq.models.worker_types import WorkerType

__all__ = ["ConnectionSpec", "Credentials", "Manager", "Provider"]


class Manager:
    """The base of the classes of managers; one subclass for each `type` of `ext_management_systems`."""

    type: ClassVar[str]
    ems_type: ClassVar[str]
    description: ClassVar[str]
    vendor: ClassVar[str]
    #: areas and features: "inventory", "events", "metrics", "operations" ...
    supports: ClassVar[frozenset[str]] = frozenset()
    #: whether `provider_region` has to be given, and the ones that are known (empty: any)
    needs_region: ClassVar[bool] = False
    needs_hostname: ClassVar[bool] = False
    #: what a form asks for, e.g. {"userid": "Access Key ID", "password": "Secret Access Key"}
    credential_labels: ClassVar[Mapping[str, str]] = {"userid": "User", "password": "Password"}

    #: "module:function", (ConnectionSpec) -> None: one cheap live call. Raises a ProviderError.
    check: ClassVar[str]
    #: "module:class" of an `Inventory` (providers.base.inventory), None when it keeps none
    inventory: ClassVar[str | None] = None

    @classmethod
    def regions(cls) -> Mapping[str, str]:
        """Known regions with their descriptions; empty when any is taken."""
        return {}


@dataclass(frozen=True)
class Provider:
    """One plug-in."""

    name: str
    managers: tuple[type[Manager], ...]
    worker_types: tuple[type[WorkerType], ...]
    #: module that imports the SDK; its `warm()` touches what the SDK would import lazily, for the mold
    sdk: str
    #: settings that are merged below `etc/miq.yml`
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: modules whose import registers queue methods
    queue_methods: tuple[str, ...] = ()
