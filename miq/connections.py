"""How a manager is reached and who we are there: its rows, turned into the one value that an SDK connection is made of.

In: rows of `ext_management_systems`, `endpoints` and `authentications`, the encryption key, the settings of the
proxies. Out: a `ConnectionSpec`. The secrets in it are in the clear, in memory only: never in a `repr`, a log line or
an error. Nothing here connects anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

from sqlalchemy.orm import Session

from miq import paths, plugins
from miq.models import ExtManagementSystem
from miq.session import run_in
from miq.settings import Settings

if TYPE_CHECKING:
    from miq.secrets import Key

RESOURCE_TYPE = "ExtManagementSystem"
DEFAULT = "default"
HTTP_PROXY = "http_proxy"


class ManagerRow(NamedTuple):
    """What of a manager's row is needed to refresh it, and the name of its zone."""

    id: int
    name: str | None
    type: str | None
    enabled: bool | None
    provider_region: str | None
    parent_ems_id: int | None
    zone: str | None


class _Endpoint(NamedTuple):
    url: str | None = None
    hostname: str | None = None
    port: int | None = None
    verify_ssl: int | None = None
    certificate_authority: str | None = None


class _Authentication(NamedTuple):
    userid: str | None
    #: encrypted, as stored
    password: str | None
    service_account: str | None


@dataclass(frozen=True)
class Credentials:
    """Who we are at a manager. `password` is in the clear, in memory only, and never shown."""

    userid: str | None = None
    password: str | None = field(default=None, repr=False)
    #: Amazon: the ARN of a role to assume
    service_account: str | None = None


@dataclass(frozen=True)
class ConnectionSpec:
    """All that a connection needs, read from the manager's rows: an SDK session is made of this and of nothing else."""

    ems_id: int
    name: str
    provider_region: str | None
    credentials: Credentials
    endpoint_url: str | None = None
    hostname: str | None = None
    port: int | None = None
    verify_ssl: bool = True
    certificate_authority: str | None = None
    #: "http://user:password@host:port"
    http_proxy: str | None = field(default=None, repr=False)
    #: the section `ems_refresh.<ems_type>`
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)


def manager_rows(session: Session, ems_ids: Sequence[int]) -> list[ManagerRow]:
    """Those of the managers that are there, in the order of their ids."""
    found = run_in(
        session,
        "SELECT ems.id, ems.name, ems.type, ems.enabled, ems.provider_region, ems.parent_ems_id, zones.name"
        " FROM ext_management_systems ems LEFT JOIN zones ON zones.id = ems.zone_id"
        " WHERE ems.id = ANY(%(ids)s) ORDER BY ems.id",
        {"ids": list(ems_ids)},
    )
    return [ManagerRow(*row) for row in found]


def connection_spec(
    session: Session, ems: ManagerRow | ExtManagementSystem, settings: Settings, *, key: Key | None = None
) -> ConnectionSpec:
    """How to reach the manager now. `key` is the appliance's own unless given (or held in `session.info["key"]`).

    Raises SecretError when a secret cannot be decrypted.
    """
    owner_id = _owner_id(session, ems)
    secrets = _Secrets(key or session.info.get("key"))
    manager = plugins.manager_type(ems.type)
    ems_type = manager.ems_type if manager is not None else ""
    endpoint = _endpoint(session, owner_id, DEFAULT) or _Endpoint()
    return ConnectionSpec(
        ems_id=ems.id,
        name=ems.name or "",
        provider_region=ems.provider_region,
        credentials=_credentials(session, owner_id, secrets),
        endpoint_url=endpoint.url or None,
        hostname=endpoint.hostname or None,
        port=endpoint.port,
        verify_ssl=endpoint.verify_ssl != 0,
        certificate_authority=endpoint.certificate_authority or None,
        http_proxy=_own_proxy(session, owner_id, secrets) or _configured_proxy(settings, ems_type),
        settings=settings.get(f"ems_refresh.{ems_type}", {}) or {},
    )


class _Secrets:
    """Decrypts with the key, which is read only when there is something to decrypt."""

    def __init__(self, key: Key | None) -> None:
        self._key = key

    def clear(self, stored: str | None) -> str | None:
        if not stored:
            return None
        if self._key is None:
            from miq.secrets import Key  # the server imports this module with every provider, and never decrypts

            self._key = Key.load(paths.home().key_file)
        return self._key.decrypt(stored)


def _owner_id(session: Session, ems: ManagerRow | ExtManagementSystem) -> int:
    """A child manager is reached through its parent."""
    parents = manager_rows(session, [ems.parent_ems_id]) if ems.parent_ems_id is not None else []
    return parents[0].id if parents else ems.id


def _endpoint(session: Session, ems_id: int, role: str) -> _Endpoint | None:
    row = run_in(
        session,
        "SELECT url, hostname, port, verify_ssl, certificate_authority FROM endpoints"
        " WHERE resource_type = %(kind)s AND resource_id = %(id)s AND role = %(role)s ORDER BY id LIMIT 1",
        {"kind": RESOURCE_TYPE, "id": ems_id, "role": role},
    ).fetchone()
    return _Endpoint(*row) if row else None


def _authentication(session: Session, ems_id: int, authtype: str) -> _Authentication | None:
    row = run_in(
        session,
        "SELECT userid, password, service_account FROM authentications"
        " WHERE resource_type = %(kind)s AND resource_id = %(id)s AND authtype = %(authtype)s ORDER BY id LIMIT 1",
        {"kind": RESOURCE_TYPE, "id": ems_id, "authtype": authtype},
    ).fetchone()
    return _Authentication(*row) if row else None


def _credentials(session: Session, ems_id: int, secrets: _Secrets) -> Credentials:
    row = _authentication(session, ems_id, DEFAULT)
    if row is None:
        return Credentials()
    return Credentials(row.userid or None, secrets.clear(row.password), row.service_account or None)


def _own_proxy(session: Session, ems_id: int, secrets: _Secrets) -> str | None:
    endpoint = _endpoint(session, ems_id, HTTP_PROXY)
    if endpoint is None or not endpoint.url:
        return None
    row = _authentication(session, ems_id, HTTP_PROXY)
    return proxy_url(endpoint.url, row.userid, secrets.clear(row.password)) if row else endpoint.url


def _configured_proxy(settings: Settings, ems_type: str) -> str | None:
    section = settings.get(f"http_proxy.{ems_type}") or settings.get("http_proxy.default") or {}
    host, port = section.get("host"), section.get("port")
    if not host:
        return None
    url = host if "://" in str(host) else f"http://{host}"
    return proxy_url(f"{url}:{port}" if port else url, section.get("user"), section.get("password"))


def proxy_url(url: str, user: str | None, password: str | None) -> str:
    """The proxy's address with who we are there put in."""
    if not user:
        return url
    parts = urlsplit(url if "://" in url else f"http://{url}")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))
