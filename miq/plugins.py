"""Providers by name. The only way from the lower floors to a provider: entry points of the group `miq.providers`.

A record tells what a provider offers without importing its SDK. One that does not import is kept out and named with its
error (`broken()`), so that it takes down nothing but itself.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from miq import names
from miq.errors import UnknownProvider

log = logging.getLogger(__name__)

GROUP = "miq.providers"


class ManagerType(Protocol):
    """What the core needs to know of a class of managers; `providers.base.manager.Manager` is the whole contract."""

    type: str
    ems_type: str
    description: str
    supports: frozenset[str]


class ProviderRecord(Protocol):
    """What the core needs to know of a provider; `providers.base.manager.Provider` is the whole contract."""

    name: str
    managers: Sequence[Any]
    worker_types: Sequence[Any]
    settings: Mapping[str, Any]
    queue_methods: Sequence[str]
    sdk: str


@cache
def _load() -> tuple[dict[str, Any], dict[str, str]]:
    loaded: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            loaded[point.name] = point.load()
        except Exception as error:  # a plug-in's code: whatever it raises is its own, and only its own, end
            broken[point.name] = f"{type(error).__name__}: {error}"
            log.error("MIQ(Plugins.load) provider %s does not load: %s", point.name, broken[point.name])
    return loaded, broken


def providers() -> dict[str, ProviderRecord]:
    """Every provider that loads, by name."""
    return _load()[0]


def broken() -> dict[str, str]:
    """Every provider that does not load, with the error."""
    return _load()[1]


def provider(name: str) -> ProviderRecord:
    """The provider of that name. Raises UnknownProvider."""
    found = providers().get(name)
    if found is None:
        raise UnknownProvider(f"no provider {name!r}; there are: {', '.join(providers()) or 'none'}")
    return found


def manager_types() -> dict[str, Any]:
    """Every class of managers, by its full name."""
    return {manager.type: manager for record in providers().values() for manager in record.managers}


def manager_type(name: str | None) -> Any | None:  # noqa: ANN401 - a provider's own class
    """The class of managers with this full, short or ems_type name; None for one that nobody knows."""
    for full, manager in manager_types().items():
        if name in (*names.spellings(full), manager.ems_type):
            return manager
    return None


def load(reference: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """The object behind "package.module:name". Raises ImportError or AttributeError as Python does."""
    module, _, attribute = reference.partition(":")
    loaded: Any = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
