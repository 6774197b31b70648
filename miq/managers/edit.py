"""Changing a manager: name, zone, region, endpoint, credentials, proxy.

A field that is None stays as it is; "" takes it away. A change of how the manager is reached or who we are there clears
the status of its credentials, so that its workers go until a check has said `Valid` again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from miq import plugins
from miq.clock import utc
from miq.errors import UnknownProvider, UsageError
from miq.managers import address, rows
from miq.managers.add import free_name
from miq.managers.find import find_zone
from miq.models import ExtManagementSystem
from miq.secrets import Key


@dataclass(frozen=True)
class EditManager:
    """What to change; see `AddManager` for the fields."""

    name: str | None = None
    region: str | None = None
    userid: str | None = None
    password: str | None = field(default=None, repr=False)
    service_account: str | None = None
    endpoint_url: str | None = None
    verify_ssl: bool | None = None
    certificate_authority: str | None = None
    http_proxy: str | None = field(default=None, repr=False)
    zone: str | None = None

    @property
    def secrets(self) -> bool:
        """Whether it changes who we are."""
        return any(each is not None for each in (self.userid, self.password, self.service_account))

    @property
    def address(self) -> bool:
        """Whether it changes where and how the manager is reached."""
        changes = (self.region, self.endpoint_url, self.verify_ssl, self.certificate_authority, self.http_proxy)
        return any(each is not None for each in changes)


def edit_manager(session: Session, key: Key, ems: ExtManagementSystem, changes: EditManager) -> bool:
    """Write the changes; True when the credentials have to be checked anew. Raises UsageError, then nothing is."""
    with session.no_autoflush:
        _change_row(session, ems, changes)
        if changes.address:
            _change_address(session, key, ems, changes)
    if changes.secrets or changes.address:
        _change_credentials(session, key, ems, changes)
    _flush(session, ems)
    return changes.secrets or changes.address


def _change_row(session: Session, ems: ExtManagementSystem, changes: EditManager) -> None:
    if changes.name is not None and changes.name.strip() != ems.name:
        ems.name = free_name(session, changes.name)
    if changes.zone is not None:
        zone = find_zone(session, changes.zone)
        if not ems.enabled and zone.id != ems.zone_id:
            raise UsageError(f"{ems.name} is paused: its zone cannot change")
        ems.zone_id = zone.id
    if changes.region is not None:
        kind = plugins.manager_type(ems.type)
        if kind is None:
            raise UnknownProvider(f"{ems.name} is of type {ems.type}, which no installed provider knows")
        ems.provider_region = address.checked_region(kind, changes.region)
    ems.updated_on = utc()


def _change_address(session: Session, key: Key, ems: ExtManagementSystem, changes: EditManager) -> None:
    endpoint = rows.make_endpoint(session, ems.id)
    if changes.endpoint_url is not None:
        rows.set_url(endpoint, address.checked_endpoint(changes.endpoint_url))
    if changes.verify_ssl is not None:
        endpoint.verify_ssl = int(changes.verify_ssl)
    if changes.certificate_authority is not None:
        endpoint.certificate_authority = address.checked_certificates(changes.certificate_authority)
    if changes.http_proxy is not None:
        rows.set_proxy(session, key, ems.id, ems.name, address.checked_proxy(changes.http_proxy))


def _change_credentials(session: Session, key: Key, ems: ExtManagementSystem, changes: EditManager) -> None:
    authentication = rows.make_authentication(session, ems.id, ems.name)
    if changes.userid is not None:
        authentication.userid = changes.userid or None
    if changes.password is not None:
        authentication.password = key.encrypt(changes.password) if changes.password else None
    if changes.service_account is not None:
        authentication.service_account = changes.service_account or None
    rows.touch(authentication, secret_changed=changes.secrets)


def _flush(session: Session, ems: ExtManagementSystem) -> None:
    name = ems.name
    try:
        session.flush()
    except IntegrityError:
        session.rollback()
        raise UsageError(f"there is a manager named {name!r} already") from None
