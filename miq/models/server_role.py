"""Roles: what is switched on where."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id


class ServerRole(Base):
    """A role that servers may have."""

    __tablename__ = "server_roles"
    __table_args__ = (Index("index_server_roles_on_name", "name", unique=True),)

    id: Mapped[Id]
    name: Mapped[str | None]
    description: Mapped[str | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    max_concurrent: Mapped[int | None]
    external_failover: Mapped[bool | None]
    role_scope: Mapped[str | None]


class AssignedServerRole(Base):
    """A server's right to a role, and whether it has it now."""

    __tablename__ = "assigned_server_roles"
    __table_args__ = (
        Index("index_assigned_server_roles_on_miq_server_id", "miq_server_id"),
        Index("index_assigned_server_roles_on_server_role_id", "server_role_id"),
        Index("assigned_server_roles_identity", "miq_server_id", "server_role_id", unique=True),
    )

    id: Mapped[Id]
    miq_server_id: Mapped[Big | None]
    server_role_id: Mapped[Big | None]
    active: Mapped[bool | None] = mapped_column(server_default=text("false"))
    priority: Mapped[int | None]
