"""Managers, where they are reached, and who we are there.

`type` names the manager's class in its provider (`plugins.manager_type`); a type nobody knows is a row like any other,
named by `miq status` and never worked on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, Json, LongText


class Provider(Base):
    """Groups the managers of one product (Foreman)."""

    __tablename__ = "providers"

    id: Mapped[Id]
    type: Mapped[str | None]
    name: Mapped[str | None]
    guid: Mapped[str | None]
    zone_id: Mapped[Big | None]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    tenant_id: Mapped[Big | None]
    capabilities: Mapped[Json | None] = mapped_column(server_default=text("'{}'"))


class ExtManagementSystem(Base):
    """A manager: one account or installation whose inventory is kept."""

    __tablename__ = "ext_management_systems"
    __table_args__ = (
        Index("index_ext_management_systems_on_guid", "guid", unique=True),
        Index("ext_management_systems_identity", "name", "tenant_id", unique=True, postgresql_nulls_not_distinct=True),
        Index("index_ext_management_systems_on_parent_ems_id", "parent_ems_id"),
        Index("index_ext_management_systems_on_type", "type"),
        Index("index_ext_management_systems_on_zone_before_pause_id", "zone_before_pause_id"),
    )

    id: Mapped[Id]
    name: Mapped[str | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    guid: Mapped[str | None] = mapped_column(server_default=text("(gen_random_uuid())::text"))
    zone_id: Mapped[Big | None]
    type: Mapped[str | None]
    api_version: Mapped[str | None]
    uid_ems: Mapped[str | None]
    host_default_vnc_port_start: Mapped[int | None]
    host_default_vnc_port_end: Mapped[int | None]
    provider_region: Mapped[str | None]
    last_refresh_error: Mapped[LongText | None]
    last_refresh_date: Mapped[datetime | None]
    provider_id: Mapped[Big | None]
    realm: Mapped[str | None]
    tenant_id: Mapped[Big | None]
    project: Mapped[str | None]
    parent_ems_id: Mapped[Big | None]
    subscription: Mapped[str | None]
    last_metrics_error: Mapped[LongText | None]
    last_metrics_update_date: Mapped[datetime | None]
    last_metrics_success_date: Mapped[datetime | None]
    tenant_mapping_enabled: Mapped[bool | None]
    enabled: Mapped[bool | None] = mapped_column(server_default=text("true"))
    options: Mapped[LongText | None]
    zone_before_pause_id: Mapped[Big | None]
    last_inventory_date: Mapped[datetime | None]
    capabilities: Mapped[Json | None] = mapped_column(server_default=text("'{}'"))
    last_refresh_success_date: Mapped[datetime | None]


class Endpoint(Base):
    """Where a manager is reached, one row per role."""

    __tablename__ = "endpoints"
    __table_args__ = (Index("endpoints_identity", "resource_type", "resource_id", "role", unique=True),)

    id: Mapped[Id]
    role: Mapped[str | None]
    ipaddress: Mapped[str | None]
    hostname: Mapped[str | None]
    port: Mapped[int | None]
    resource_type: Mapped[str | None]
    resource_id: Mapped[Big | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    verify_ssl: Mapped[int | None] = mapped_column(server_default=text("1"))
    url: Mapped[str | None]
    security_protocol: Mapped[str | None]
    api_version: Mapped[str | None]
    path: Mapped[str | None]
    certificate_authority: Mapped[LongText | None]
    options: Mapped[Json | None] = mapped_column(server_default=text("'{}'"))


class Authentication(Base):
    """Who we are there; secrets are stored encrypted."""

    __tablename__ = "authentications"
    __table_args__ = (
        Index("index_authentications_on_resource_id_and_resource_type", "resource_id", "resource_type"),
        Index("index_authentications_on_type", "type"),
    )

    id: Mapped[Id]
    name: Mapped[str | None]
    authtype: Mapped[str | None] = mapped_column(server_default=text("'default'"))
    userid: Mapped[str | None]
    password: Mapped[str | None]
    resource_id: Mapped[Big | None]
    resource_type: Mapped[str | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    last_valid_on: Mapped[datetime | None]
    last_invalid_on: Mapped[datetime | None]
    credentials_changed_on: Mapped[datetime | None]
    status: Mapped[str | None]
    status_details: Mapped[str | None]
    type: Mapped[str | None]
    auth_key: Mapped[LongText | None]
    fingerprint: Mapped[str | None]
    service_account: Mapped[str | None]
    public_key: Mapped[LongText | None]
    manager_ref: Mapped[str | None]
    options: Mapped[LongText | None]
    evm_owner_id: Mapped[Big | None]
    miq_group_id: Mapped[Big | None]
    tenant_id: Mapped[Big | None]
    become_username: Mapped[str | None]
    become_password: Mapped[str | None]
    auth_key_password: Mapped[str | None]
    ems_ref: Mapped[str | None]
    become_method: Mapped[str | None]


class AuthenticationStatus(StrEnum):
    """`authentications.status`; null means that it was never checked."""

    VALID = "Valid"
    INVALID = "Invalid"
    INCOMPLETE = "Incomplete"
    UNREACHABLE = "Unreachable"
    ERROR = "Error"
