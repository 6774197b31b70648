"""What `miq ems list` and `show` (and the API) tell of managers: rows put together, secrets left out.

Four statements, whatever the number of managers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq.managers.rows import DEFAULT, HTTP_PROXY, RESOURCE
from miq.models import Authentication, EmsRefresh, Endpoint, ExtManagementSystem, Vm, Zone


@dataclass(frozen=True)
class ManagerOverview:
    """One manager, for reading."""

    id: int
    name: str | None
    type: str | None
    region: str | None
    zone: str | None
    enabled: bool
    guid: str | None
    endpoint_url: str | None
    verify_ssl: bool
    http_proxy: str | None
    userid: str | None
    #: None: never checked
    status: str | None
    status_details: str | None
    last_valid_on: datetime | None
    last_invalid_on: datetime | None
    #: never, success or error
    last_refresh: str
    last_refresh_date: datetime | None
    last_refresh_error: str | None
    vms: int
    templates: int
    refresh: EmsRefresh | None


def overviews(session: Session, ems_ids: Sequence[int] | None = None) -> list[ManagerOverview]:
    """All managers by name, or those with these ids."""
    statement = select(ExtManagementSystem).order_by(ExtManagementSystem.name)
    if ems_ids is not None:
        statement = statement.where(ExtManagementSystem.id.in_(ems_ids))
    managers = session.scalars(statement).all()
    ids = [ems.id for ems in managers]
    known = _Known(session, ids)
    return [_overview(ems, known) for ems in managers]


class _Known:
    """The rows around these managers, by manager."""

    def __init__(self, session: Session, ids: Sequence[int]) -> None:
        self.zones = {zone_id: name for zone_id, name in session.execute(select(Zone.id, Zone.name))}
        self.endpoints = {(row.resource_id, row.role): row for row in _belonging(session, Endpoint, ids)}
        self.authentications = {
            (row.resource_id, row.authtype): row for row in reversed(_belonging(session, Authentication, ids))
        }
        counts = select(Vm.ems_id, Vm.template, func.count()).where(Vm.ems_id.in_(ids)).group_by(Vm.ems_id, Vm.template)
        self.counts = {(ems_id, bool(template)): count for ems_id, template, count in session.execute(counts)}
        latest = select(func.max(EmsRefresh.id)).where(EmsRefresh.ems_id.in_(ids)).group_by(EmsRefresh.ems_id)
        refreshes = session.scalars(select(EmsRefresh).where(EmsRefresh.id.in_(latest)))
        self.refreshes = {refresh.ems_id: refresh for refresh in refreshes}


def _belonging(session: Session, model: Any, ids: Sequence[int]) -> list[Any]:  # noqa: ANN401 - two models, one shape
    mine = select(model).where(model.resource_type == RESOURCE, model.resource_id.in_(ids)).order_by(model.id)
    return list(session.scalars(mine))


def _overview(ems: ExtManagementSystem, known: _Known) -> ManagerOverview:
    endpoint = known.endpoints.get((ems.id, DEFAULT))
    proxy = known.endpoints.get((ems.id, HTTP_PROXY))
    authentication = known.authentications.get((ems.id, DEFAULT))
    return ManagerOverview(
        id=ems.id,
        name=ems.name,
        type=ems.type,
        region=ems.provider_region,
        zone=known.zones.get(ems.zone_id) if ems.zone_id is not None else None,
        enabled=ems.enabled is not False,
        guid=ems.guid,
        endpoint_url=endpoint.url if endpoint else None,
        verify_ssl=endpoint is None or endpoint.verify_ssl != 0,
        http_proxy=proxy.url if proxy else None,
        userid=authentication.userid if authentication else None,
        status=authentication.status if authentication else None,
        status_details=authentication.status_details if authentication else None,
        last_valid_on=authentication.last_valid_on if authentication else None,
        last_invalid_on=authentication.last_invalid_on if authentication else None,
        last_refresh=_last_refresh(ems),
        last_refresh_date=ems.last_refresh_date,
        last_refresh_error=ems.last_refresh_error,
        vms=known.counts.get((ems.id, False), 0),
        templates=known.counts.get((ems.id, True), 0),
        refresh=known.refreshes.get(ems.id),
    )


def _last_refresh(ems: ExtManagementSystem) -> str:
    if ems.last_refresh_date is None:
        return "never"
    return "error" if ems.last_refresh_error else "success"
