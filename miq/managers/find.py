"""Finding what a user named: a manager, a class of managers, a zone.

Names win over ids. Every function answers or raises the error that tells the user where to look.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from miq import plugins
from miq.errors import UnknownManager, UnknownProvider, UsageError
from miq.models import ExtManagementSystem, Zone

DEFAULT_ZONE = "default"
_LARGEST_ID = 2**63 - 1


def find_manager(session: Session, wanted: str | int) -> ExtManagementSystem:
    """The manager of that name or id. Raises UnknownManager."""
    named = session.scalars(select(ExtManagementSystem).where(ExtManagementSystem.name == str(wanted))).first()
    found = named or _with_id(session, str(wanted))
    if found is None:
        raise UnknownManager(f"no manager {str(wanted)!r}; `miq ems list` lists them")
    return found


def _with_id(session: Session, wanted: str) -> ExtManagementSystem | None:
    if not (wanted.isascii() and wanted.isdigit()) or int(wanted) > _LARGEST_ID:
        return None
    return session.get(ExtManagementSystem, int(wanted))


def find_manager_type(wanted: str) -> Any:  # noqa: ANN401 - a provider's own class
    """The class of managers with this full, short or ems_type name, or the first one of the provider of that name.

    Raises UnknownProvider, which names a provider that is installed but does not load.
    """
    found = plugins.manager_type(wanted)
    if found is not None:
        return found
    if wanted in plugins.broken():
        raise UnknownProvider(f"provider {wanted!r} does not load: {plugins.broken()[wanted]}")
    record = plugins.providers().get(wanted)
    if record is None or not record.managers:
        known = ", ".join(manager.ems_type for manager in plugins.manager_types().values())
        raise UnknownProvider(f"no manager type {wanted!r}; there are: {known or 'none'}; see `miq ems types`")
    return record.managers[0]


def find_zone(session: Session, wanted: str | None) -> Zone:
    """The zone of that name, `default` when none is named. Raises UsageError."""
    name = wanted or DEFAULT_ZONE
    zone = session.scalars(select(Zone).where(Zone.name == name)).first()
    if zone is None:
        there = session.scalars(select(Zone.name).where(Zone.visible.is_(True)).order_by(Zone.name)).all()
        raise UsageError(f"no zone {name!r}; there are: {', '.join(map(str, there)) or 'none, run `miq db migrate`'}")
    return zone
