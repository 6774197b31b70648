"""Adding a manager: its row, its endpoints and its authentications, all or nothing.

In: what the user said, as `AddManager`. Out: the row. Nothing is called over the network; the check of the
credentials follows (`managers.credentials`), and with a status `Valid` the server starts the manager's workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from miq.errors import UsageError
from miq.managers import address, rows
from miq.managers.find import find_manager_type, find_zone
from miq.models import ExtManagementSystem
from miq.secrets import Key


@dataclass(frozen=True)
class AddManager:
    """A manager to add. `type` is a full, short or ems_type name."""

    type: str
    name: str
    region: str | None = None
    userid: str | None = None
    password: str | None = field(default=None, repr=False)
    #: Amazon: the ARN of a role to assume
    service_account: str | None = None
    endpoint_url: str | None = None
    verify_ssl: bool = True
    #: PEM
    certificate_authority: str | None = None
    #: http://user:password@host:port
    http_proxy: str | None = field(default=None, repr=False)
    #: by name; `default` when None
    zone: str | None = None


def add_manager(session: Session, key: Key, wanted: AddManager) -> ExtManagementSystem:
    """Write the manager's rows. Raises UsageError for whatever cannot be used; then nothing is written."""
    kind = find_manager_type(wanted.type)
    url, proxy = address.checked_endpoint(wanted.endpoint_url), address.checked_proxy(wanted.http_proxy)
    certificates = address.checked_certificates(wanted.certificate_authority)
    if kind.needs_hostname and url is None:
        raise UsageError(f"{kind.description} needs an endpoint: --endpoint-url https://HOST")
    ems = ExtManagementSystem(
        type=kind.type,
        name=free_name(session, wanted.name),
        provider_region=address.checked_region(kind, wanted.region),
        zone_id=find_zone(session, wanted.zone).id,
    )
    insert(session, ems)
    endpoint = rows.make_endpoint(session, ems.id)
    rows.set_url(endpoint, url)
    endpoint.verify_ssl, endpoint.certificate_authority = int(wanted.verify_ssl), certificates
    _write_credentials(session, key, ems, wanted)
    rows.set_proxy(session, key, ems.id, ems.name, proxy)
    session.flush()
    return ems


def free_name(session: Session, name: str) -> str:
    """The name, if no manager has it."""
    clean = address.checked_name(name)
    if session.scalar(select(ExtManagementSystem.id).where(ExtManagementSystem.name == clean)) is not None:
        raise UsageError(f"there is a manager named {clean!r} already")
    return clean


def insert(session: Session, ems: ExtManagementSystem) -> None:
    """Write the row; another session may have taken the name since we looked."""
    session.add(ems)
    try:
        session.flush()
    except IntegrityError:
        session.rollback()
        raise UsageError(f"there is a manager named {ems.name!r} already") from None


def _write_credentials(session: Session, key: Key, ems: ExtManagementSystem, wanted: AddManager) -> None:
    authentication = rows.make_authentication(session, ems.id, ems.name)
    authentication.userid = wanted.userid
    authentication.password = key.encrypt(wanted.password) if wanted.password else None
    authentication.service_account = wanted.service_account
    authentication.credentials_changed_on = authentication.updated_on
