"""Inventory that only clouds have."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, Names


class AvailabilityZone(Base):
    """A zone of a cloud region."""

    __tablename__ = "availability_zones"
    __table_args__ = (
        Index("availability_zones_identity", "ems_id", "ems_ref", unique=True),
        Index("index_availability_zones_on_type", "type"),
    )

    id: Mapped[Id]
    ems_id: Mapped[Big | None]
    name: Mapped[str | None]
    ems_ref: Mapped[str | None]
    type: Mapped[str | None]
    provider_services_supported: Mapped[Names | None] = mapped_column(server_default=text("'{}'"))


class Flavor(Base):
    """An instance type."""

    __tablename__ = "flavors"
    __table_args__ = (
        Index("flavors_identity", "ems_id", "ems_ref", unique=True),
        Index("index_flavors_on_type", "type"),
    )

    id: Mapped[Id]
    ems_id: Mapped[Big | None]
    name: Mapped[str | None]
    description: Mapped[str | None]
    cpu_total_cores: Mapped[int | None]
    cpu_cores_per_socket: Mapped[int | None]
    memory: Mapped[Big | None]
    ems_ref: Mapped[str | None]
    type: Mapped[str | None]
    supports_32_bit: Mapped[bool | None]
    supports_64_bit: Mapped[bool | None]
    enabled: Mapped[bool | None]
    supports_hvm: Mapped[bool | None]
    supports_paravirtual: Mapped[bool | None]
    block_storage_based_only: Mapped[bool | None]
    cloud_subnet_required: Mapped[bool | None]
    ephemeral_disk_size: Mapped[Big | None]
    ephemeral_disk_count: Mapped[int | None]
    root_disk_size: Mapped[Big | None]
    swap_disk_size: Mapped[Big | None]
    publicly_available: Mapped[bool | None]
    cpu_sockets: Mapped[int | None] = mapped_column(server_default=text("1"))


class KeyPairVm(Base):
    """Which key pairs a VM was started with."""

    __tablename__ = "key_pairs_vms"
    __table_args__ = (
        Index("key_pairs_vms_identity", "authentication_id", "vm_id", unique=True),
        Index("index_key_pairs_vms_on_vm_id", "vm_id"),
    )

    id: Mapped[Id]
    authentication_id: Mapped[Big | None]
    vm_id: Mapped[Big | None]
