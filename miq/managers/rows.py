"""The rows beside a manager's own: endpoints by role, authentications by type. `add` and `edit` write them here alike.

Whatever changes how a manager is reached or who we are there goes through `touch`, which forgets the last check: a
status belongs to the rows it was found with. Secrets arrive in the clear and leave encrypted.
"""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.managers.address import Url
from miq.models import Authentication, Endpoint
from miq.secrets import Key

RESOURCE = "ExtManagementSystem"
DEFAULT = "default"
HTTP_PROXY = "http_proxy"


def find_endpoint(session: Session, ems_id: int, role: str = DEFAULT) -> Endpoint | None:
    """The endpoint of that role."""
    mine = (Endpoint.resource_type == RESOURCE, Endpoint.resource_id == ems_id, Endpoint.role == role)
    return session.scalars(select(Endpoint).where(*mine)).first()


def find_authentication(session: Session, ems_id: int, authtype: str = DEFAULT) -> Authentication | None:
    """The authentication of that type."""
    mine = (Authentication.resource_type == RESOURCE, Authentication.resource_id == ems_id)
    return session.scalars(
        select(Authentication).where(*mine, Authentication.authtype == authtype).order_by(Authentication.id)
    ).first()


def make_endpoint(session: Session, ems_id: int, role: str = DEFAULT) -> Endpoint:
    """The endpoint of that role, made when there is none."""
    endpoint = find_endpoint(session, ems_id, role)
    if endpoint is None:
        endpoint = Endpoint(resource_type=RESOURCE, resource_id=ems_id, role=role)
        session.add(endpoint)
    endpoint.updated_at = utc()
    return endpoint


def make_authentication(session: Session, ems_id: int, name: str | None, authtype: str = DEFAULT) -> Authentication:
    """The authentication of that type, made when there is none."""
    authentication = find_authentication(session, ems_id, authtype)
    if authentication is None:
        authentication = Authentication(
            resource_type=RESOURCE, resource_id=ems_id, authtype=authtype, type="AuthUseridPassword", name=name
        )
        session.add(authentication)
    authentication.updated_on = utc()
    return authentication


def set_url(endpoint: Endpoint, url: Url | None) -> None:
    """Where the endpoint is; None: where the provider's SDK looks by itself."""
    endpoint.url = url.text if url else None
    endpoint.hostname = url.hostname if url else None
    endpoint.port = url.port if url else None


def set_proxy(session: Session, key: Key, ems_id: int, name: str | None, proxy: Url | None) -> None:
    """Write the proxy as an endpoint and, if it asks who we are, an authentication; None removes both."""
    mine = (Authentication.resource_type == RESOURCE, Authentication.resource_id == ems_id)
    if proxy is None:
        session.execute(
            delete(Endpoint).where(
                Endpoint.resource_type == RESOURCE, Endpoint.resource_id == ems_id, Endpoint.role == HTTP_PROXY
            )
        )
    else:
        set_url(make_endpoint(session, ems_id, HTTP_PROXY), proxy)
    if proxy is None or proxy.userid is None:
        session.execute(delete(Authentication).where(*mine, Authentication.authtype == HTTP_PROXY))
    else:
        authentication = make_authentication(session, ems_id, name, HTTP_PROXY)
        authentication.userid = proxy.userid
        authentication.password = key.encrypt(proxy.password) if proxy.password else None


def touch(authentication: Authentication, *, secret_changed: bool) -> None:
    """What the last check said is no longer known."""
    authentication.status = None
    authentication.status_details = None
    authentication.updated_on = utc()
    if secret_changed:
        authentication.credentials_changed_on = authentication.updated_on
