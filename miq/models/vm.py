"""VMs and templates of every manager.

Archived rows have no `ems_id`, as operators count by it; `former_ems_id` and `archived_on`, which are ours, say whose
they were.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class Vm(Base):
    """A VM or a template; archived when `ems_id` is null."""

    __tablename__ = "vms"
    __table_args__ = (
        Index("index_vms_on_guid", "guid", unique=True),
        Index("vms_identity", "ems_id", "ems_ref", unique=True, postgresql_where=text("ems_id IS NOT NULL")),
        Index("index_vms_archived_on_ems_ref", "ems_ref", postgresql_where=text("ems_id IS NULL")),
        Index("index_vms_on_ancestry", "ancestry"),
        Index("index_vms_on_availability_zone_id", "availability_zone_id"),
        Index("index_vms_on_evm_owner_id", "evm_owner_id"),
        Index("index_vms_on_flavor_id", "flavor_id"),
        Index("index_vms_on_host_id", "host_id"),
        Index("index_vms_on_location", "location"),
        Index("index_vms_on_miq_group_id", "miq_group_id"),
        Index("index_vms_on_name", "name"),
        Index("index_vms_on_placement_group_id", "placement_group_id"),
        Index("index_vms_on_storage_id", "storage_id"),
        Index("index_vms_on_tenant_id", "tenant_id"),
        Index("index_vms_on_type", "type"),
        Index("index_vms_on_vmm_uuid", "uid_ems"),
    )

    id: Mapped[Id]
    vendor: Mapped[str | None]
    format: Mapped[str | None]
    version: Mapped[str | None]
    name: Mapped[str | None]
    description: Mapped[LongText | None]
    location: Mapped[str | None]
    config_xml: Mapped[str | None]
    autostart: Mapped[str | None]
    host_id: Mapped[Big | None]
    last_sync_on: Mapped[datetime | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    storage_id: Mapped[Big | None]
    guid: Mapped[str | None] = mapped_column(server_default=text("(gen_random_uuid())::text"))
    ems_id: Mapped[Big | None]
    last_scan_on: Mapped[datetime | None]
    last_scan_attempt_on: Mapped[datetime | None]
    uid_ems: Mapped[str | None]
    retires_on: Mapped[datetime | None]
    retired: Mapped[bool | None]
    boot_time: Mapped[datetime | None]
    tools_status: Mapped[str | None]
    standby_action: Mapped[str | None]
    power_state: Mapped[str | None]
    state_changed_on: Mapped[datetime | None]
    previous_state: Mapped[str | None]
    connection_state: Mapped[str | None]
    last_perf_capture_on: Mapped[datetime | None]
    registered: Mapped[bool | None]
    busy: Mapped[bool | None]
    smart: Mapped[bool | None]
    memory_reserve: Mapped[int | None]
    memory_reserve_expand: Mapped[bool | None]
    memory_limit: Mapped[int | None]
    memory_shares: Mapped[int | None]
    memory_shares_level: Mapped[str | None]
    cpu_reserve: Mapped[int | None]
    cpu_reserve_expand: Mapped[bool | None]
    cpu_limit: Mapped[int | None]
    cpu_shares: Mapped[int | None]
    cpu_shares_level: Mapped[str | None]
    cpu_affinity: Mapped[str | None]
    ems_created_on: Mapped[datetime | None]
    template: Mapped[bool | None] = mapped_column(server_default=text("false"))
    evm_owner_id: Mapped[Big | None]
    miq_group_id: Mapped[Big | None]
    linked_clone: Mapped[bool | None]
    fault_tolerance: Mapped[bool | None]
    type: Mapped[str | None]
    ems_ref: Mapped[str | None]
    ems_cluster_id: Mapped[Big | None]
    retirement_warn: Mapped[Big | None]
    retirement_last_warn: Mapped[datetime | None]
    vnc_port: Mapped[int | None]
    flavor_id: Mapped[Big | None]
    availability_zone_id: Mapped[Big | None]
    cloud: Mapped[bool | None]
    retirement_state: Mapped[str | None]
    cloud_network_id: Mapped[Big | None]
    cloud_subnet_id: Mapped[Big | None]
    cloud_tenant_id: Mapped[Big | None]
    raw_power_state: Mapped[str | None]
    publicly_available: Mapped[bool | None]
    orchestration_stack_id: Mapped[Big | None]
    retirement_requester: Mapped[str | None]
    tenant_id: Mapped[Big | None]
    resource_group_id: Mapped[Big | None]
    deprecated: Mapped[bool | None]
    storage_profile_id: Mapped[Big | None]
    cpu_hot_add_enabled: Mapped[bool | None]
    cpu_hot_remove_enabled: Mapped[bool | None]
    memory_hot_add_enabled: Mapped[bool | None]
    memory_hot_add_limit: Mapped[int | None]
    memory_hot_add_increment: Mapped[int | None]
    hostname: Mapped[str | None]
    ems_ref_type: Mapped[str | None]
    restart_needed: Mapped[bool | None]
    ancestry: Mapped[str | None]
    placement_group_id: Mapped[Big | None]
    former_ems_id: Mapped[Big | None]
    archived_on: Mapped[datetime | None]
