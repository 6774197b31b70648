"""A server: one process tree on one machine."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, Json


class MiqServer(Base):
    """What the region knows of one server."""

    __tablename__ = "miq_servers"
    __table_args__ = (
        Index("index_miq_servers_on_guid", "guid", unique=True),
        Index("index_miq_servers_on_vm_id", "vm_id"),
        Index("index_miq_servers_on_zone_id", "zone_id"),
    )

    id: Mapped[Id]
    guid: Mapped[str | None]
    status: Mapped[str | None]
    started_on: Mapped[datetime | None]
    stopped_on: Mapped[datetime | None]
    pid: Mapped[int | None]
    build: Mapped[str | None]
    percent_memory: Mapped[float | None]
    percent_cpu: Mapped[float | None]
    cpu_time: Mapped[float | None]
    name: Mapped[str | None]
    last_heartbeat: Mapped[datetime | None]
    os_priority: Mapped[int | None]
    is_master: Mapped[bool | None] = mapped_column(server_default=text("false"))
    logo: Mapped[bytes | None]
    version: Mapped[str | None]
    zone_id: Mapped[Big | None]
    memory_usage: Mapped[Decimal | None]
    memory_size: Mapped[Decimal | None]
    hostname: Mapped[str | None]
    ipaddress: Mapped[str | None]
    drb_uri: Mapped[str | None]
    mac_address: Mapped[str | None]
    vm_id: Mapped[Big | None]
    has_active_userinterface: Mapped[bool | None]
    has_active_webservices: Mapped[bool | None]
    sql_spid: Mapped[int | None]
    proportional_set_size: Mapped[Decimal | None]
    has_active_remote_console: Mapped[bool | None]
    system_memory_free: Mapped[Decimal | None]
    system_memory_used: Mapped[Decimal | None]
    system_swap_free: Mapped[Decimal | None]
    system_swap_used: Mapped[Decimal | None]
    has_active_cockpit_ws: Mapped[bool | None]
    unique_set_size: Mapped[Decimal | None]
    capabilities: Mapped[Json | None] = mapped_column(server_default=text("'{}'"))


class ServerStatus(StrEnum):
    """`miq_servers.status` (reference 2.3)."""

    STARTING = "starting"
    STARTED = "started"
    RESTARTING = "restarting"
    QUIESCE = "quiesce"
    STOPPED = "stopped"
    NOT_RESPONDING = "not responding"
    KILLED = "killed"


SERVER_ACTIVE = (ServerStatus.STARTING, ServerStatus.STARTED)

# To a status, from which ones. A server may be started again from any.
SERVER_MOVES: dict[str, tuple[str, ...]] = {
    ServerStatus.STARTING: tuple(ServerStatus),
    ServerStatus.STARTED: (ServerStatus.STARTING, ServerStatus.NOT_RESPONDING),
    ServerStatus.QUIESCE: (ServerStatus.STARTING, ServerStatus.STARTED, ServerStatus.NOT_RESPONDING),
    ServerStatus.STOPPED: tuple(ServerStatus),
    ServerStatus.NOT_RESPONDING: SERVER_ACTIVE,
    ServerStatus.KILLED: tuple(ServerStatus),
}
