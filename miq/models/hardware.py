"""What hangs on a VM, template or host."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class Hardware(Base):
    """CPU, memory and firmware of a VM, template or host."""

    __tablename__ = "hardwares"
    __table_args__ = (
        Index(
            "hardwares_vm_identity",
            "vm_or_template_id",
            unique=True,
            postgresql_where=text("vm_or_template_id IS NOT NULL"),
        ),
        Index("hardwares_host_identity", "host_id", unique=True, postgresql_where=text("host_id IS NOT NULL")),
        Index("index_hardwares_on_computer_system_id", "computer_system_id"),
    )

    id: Mapped[Id]
    config_version: Mapped[str | None]
    virtual_hw_version: Mapped[str | None]
    guest_os: Mapped[str | None]
    cpu_sockets: Mapped[int | None] = mapped_column(server_default=text("1"))
    bios: Mapped[str | None]
    bios_location: Mapped[str | None]
    time_sync: Mapped[str | None]
    annotation: Mapped[LongText | None]
    vm_or_template_id: Mapped[Big | None]
    memory_mb: Mapped[Big | None]
    host_id: Mapped[Big | None]
    cpu_speed: Mapped[int | None]
    cpu_type: Mapped[str | None]
    size_on_disk: Mapped[Big | None]
    manufacturer: Mapped[str | None] = mapped_column(server_default=text("''"))
    model: Mapped[str | None] = mapped_column(server_default=text("''"))
    number_of_nics: Mapped[int | None]
    cpu_usage: Mapped[int | None]
    memory_usage: Mapped[int | None]
    cpu_cores_per_socket: Mapped[int | None]
    cpu_total_cores: Mapped[int | None]
    vmotion_enabled: Mapped[bool | None]
    disk_free_space: Mapped[Big | None]
    disk_capacity: Mapped[Big | None]
    guest_os_full_name: Mapped[str | None]
    memory_console: Mapped[int | None]
    bitness: Mapped[int | None]
    virtualization_type: Mapped[str | None]
    root_device_type: Mapped[str | None]
    computer_system_id: Mapped[Big | None]
    disk_size_minimum: Mapped[Big | None]
    memory_mb_minimum: Mapped[Big | None]
    introspected: Mapped[bool | None]
    provision_state: Mapped[str | None]
    serial_number: Mapped[str | None]
    switch_id: Mapped[Big | None]
    firmware_type: Mapped[str | None]
    canister_id: Mapped[Big | None]
    memory_mb_configured: Mapped[int | None]
    cpu_configured_cores: Mapped[int | None]
    memory_mb_available: Mapped[int | None]
    cpu_available_cores: Mapped[int | None]


class Disk(Base):
    """A disk of a hardware."""

    __tablename__ = "disks"
    __table_args__ = (
        Index("disks_identity", "hardware_id", "device_name", unique=True),
        Index("index_disks_on_device_name", "device_name"),
        Index("index_disks_on_device_type", "device_type"),
        Index("index_disks_on_storage_id", "storage_id"),
    )

    id: Mapped[Id]
    device_name: Mapped[str | None]
    device_type: Mapped[str | None]
    location: Mapped[str | None]
    filename: Mapped[str | None]
    hardware_id: Mapped[Big | None]
    mode: Mapped[str | None]
    controller_type: Mapped[str | None]
    size: Mapped[Big | None]
    free_space: Mapped[Big | None]
    size_on_disk: Mapped[Big | None]
    present: Mapped[bool | None] = mapped_column(server_default=text("true"))
    start_connected: Mapped[bool | None] = mapped_column(server_default=text("true"))
    auto_detect: Mapped[bool | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    disk_type: Mapped[str | None]
    storage_id: Mapped[Big | None]
    backing_id: Mapped[Big | None]
    backing_type: Mapped[str | None]
    storage_profile_id: Mapped[Big | None]
    bootable: Mapped[bool | None]
    ems_ref: Mapped[str | None]
    thin: Mapped[bool | None]
    format: Mapped[str | None]


class Network(Base):
    """An address set of a hardware."""

    __tablename__ = "networks"
    __table_args__ = (
        Index(
            "networks_cloud_identity",
            "hardware_id",
            "description",
            unique=True,
            postgresql_where=text("description IN ('private', 'public')"),
        ),
        Index("index_networks_on_device_id", "device_id"),
        Index("index_networks_on_hardware_id", "hardware_id"),
    )

    id: Mapped[Id]
    hardware_id: Mapped[Big | None]
    device_id: Mapped[Big | None]
    description: Mapped[str | None]
    guid: Mapped[str | None]
    dhcp_enabled: Mapped[bool | None]
    ipaddress: Mapped[str | None]
    subnet_mask: Mapped[str | None]
    lease_obtained: Mapped[datetime | None]
    lease_expires: Mapped[datetime | None]
    default_gateway: Mapped[str | None]
    dhcp_server: Mapped[str | None]
    dns_server: Mapped[str | None]
    hostname: Mapped[str | None]
    domain: Mapped[str | None]
    ipv6address: Mapped[str | None]


class OperatingSystem(Base):
    """The guest's operating system."""

    __tablename__ = "operating_systems"
    __table_args__ = (
        Index(
            "operating_systems_vm_identity",
            "vm_or_template_id",
            unique=True,
            postgresql_where=text("vm_or_template_id IS NOT NULL"),
        ),
        Index("operating_systems_host_identity", "host_id", unique=True, postgresql_where=text("host_id IS NOT NULL")),
        Index("index_operating_systems_on_computer_system_id", "computer_system_id"),
    )

    id: Mapped[Id]
    name: Mapped[str | None]
    product_name: Mapped[str | None]
    version: Mapped[str | None]
    build_number: Mapped[str | None]
    system_root: Mapped[str | None]
    distribution: Mapped[str | None]
    product_type: Mapped[str | None]
    service_pack: Mapped[str | None]
    productid: Mapped[str | None]
    vm_or_template_id: Mapped[Big | None]
    host_id: Mapped[Big | None]
    bitness: Mapped[int | None]
    product_key: Mapped[str | None]
    pw_hist: Mapped[int | None]
    max_pw_age: Mapped[int | None]
    min_pw_age: Mapped[int | None]
    min_pw_len: Mapped[int | None]
    pw_complex: Mapped[bool | None]
    pw_encrypt: Mapped[bool | None]
    lockout_threshold: Mapped[int | None]
    lockout_duration: Mapped[Big | None]
    reset_lockout_counter: Mapped[int | None]
    system_type: Mapped[str | None]
    computer_system_id: Mapped[Big | None]
    kernel_version: Mapped[str | None]


class CustomAttribute(Base):
    """A label or attribute of any record."""

    __tablename__ = "custom_attributes"
    __table_args__ = (
        Index(
            "custom_attributes_identity",
            "resource_type",
            "resource_id",
            "section",
            "name",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
    )

    id: Mapped[Id]
    section: Mapped[str | None]
    name: Mapped[str | None]
    value: Mapped[LongText | None]
    resource_type: Mapped[str | None]
    resource_id: Mapped[Big | None]
    source: Mapped[str | None]
    description: Mapped[LongText | None]
    value_interpolated: Mapped[LongText | None]
    unique_name: Mapped[LongText | None]
    serialized_value: Mapped[LongText | None]
