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


#: name, description, max_concurrent (0: unlimited), scope (reference 2.6)
ROLES: tuple[tuple[str, str, int, str], ...] = (
    ("automate", "Automation Engine", 0, "region"),
    ("database_operations", "Database Operations", 0, "region"),
    ("database_owner", "Database Owner", 1, "database"),
    ("embedded_ansible", "Embedded Ansible", 0, "region"),
    ("ems_inventory", "Provider Inventory", 1, "zone"),
    ("ems_metrics_collector", "C&U Data Collector", 0, "zone"),
    ("ems_metrics_coordinator", "C&U Coordinator", 1, "zone"),
    ("ems_metrics_processor", "C&U Data Processor", 0, "zone"),
    ("ems_operations", "Provider Operations", 0, "zone"),
    ("event", "Event Monitor", 1, "zone"),
    ("git_owner", "Git Repositories Owner", 1, "zone"),
    ("internet_connectivity", "Internet Connectivity", 0, "region"),
    ("notifier", "Notifier", 1, "region"),
    ("reporting", "Reporting", 0, "region"),
    ("scheduler", "Scheduler", 1, "region"),
    ("smartproxy", "SmartProxy", 0, "zone"),
    ("smartstate", "SmartState Analysis", 0, "zone"),
    ("user_interface", "User Interface", 0, "region"),
    ("remote_console", "Remote Consoles", 0, "region"),
    ("web_services", "Web Services", 0, "region"),
)

#: roles that belong to no zone: messages for them go to any zone
REGION_ROLES = frozenset(name for name, _, _, scope in ROLES if scope == "region")
