"""The inventory of a cloud: zones, flavors, VMs and templates with what hangs on them.

Column names and types are those of the modelled schema; what is ours besides is marked at the index or column.
"""

from __future__ import annotations

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

IDS_PER_REGION = 10**12

TABLES = {
    "ems_refreshes": """
    ems_id bigint NOT NULL, kind varchar NOT NULL DEFAULT 'full', cause varchar,
    state varchar NOT NULL DEFAULT 'running', started_on timestamp NOT NULL DEFAULT utc_now(),
    finished_on timestamp, seconds double precision, collections jsonb NOT NULL DEFAULT '{}', error text,
    memory_peak bigint, miq_task_id bigint, worker_guid varchar
    """,
    "availability_zones": """
    ems_id bigint, name varchar, ems_ref varchar, type varchar, provider_services_supported varchar[] DEFAULT '{}'
    """,
    "flavors": """
    ems_id bigint, name varchar, description varchar, cpu_total_cores integer, cpu_cores_per_socket integer,
    memory bigint, ems_ref varchar, type varchar, supports_32_bit boolean, supports_64_bit boolean, enabled boolean,
    supports_hvm boolean, supports_paravirtual boolean, block_storage_based_only boolean,
    cloud_subnet_required boolean, ephemeral_disk_size bigint, ephemeral_disk_count integer, root_disk_size bigint,
    swap_disk_size bigint, publicly_available boolean, cpu_sockets integer DEFAULT 1
    """,
    "vms": """
    vendor varchar, format varchar, version varchar, name varchar, description text, location varchar,
    config_xml varchar, autostart varchar, host_id bigint, last_sync_on timestamp,
    created_on timestamp DEFAULT utc_now(), updated_on timestamp, storage_id bigint,
    guid varchar DEFAULT (gen_random_uuid())::text, ems_id bigint, last_scan_on timestamp,
    last_scan_attempt_on timestamp, uid_ems varchar, retires_on timestamp, retired boolean, boot_time timestamp,
    tools_status varchar, standby_action varchar, power_state varchar, state_changed_on timestamp,
    previous_state varchar, connection_state varchar, last_perf_capture_on timestamp, registered boolean,
    busy boolean, smart boolean, memory_reserve integer, memory_reserve_expand boolean, memory_limit integer,
    memory_shares integer, memory_shares_level varchar, cpu_reserve integer, cpu_reserve_expand boolean,
    cpu_limit integer, cpu_shares integer, cpu_shares_level varchar, cpu_affinity varchar, ems_created_on timestamp,
    template boolean DEFAULT false, evm_owner_id bigint, miq_group_id bigint, linked_clone boolean,
    fault_tolerance boolean, type varchar, ems_ref varchar, ems_cluster_id bigint, retirement_warn bigint,
    retirement_last_warn timestamp, vnc_port integer, flavor_id bigint, availability_zone_id bigint, cloud boolean,
    retirement_state varchar, cloud_network_id bigint, cloud_subnet_id bigint, cloud_tenant_id bigint,
    raw_power_state varchar, publicly_available boolean, orchestration_stack_id bigint,
    retirement_requester varchar, tenant_id bigint, resource_group_id bigint, deprecated boolean,
    storage_profile_id bigint, cpu_hot_add_enabled boolean, cpu_hot_remove_enabled boolean,
    memory_hot_add_enabled boolean, memory_hot_add_limit integer, memory_hot_add_increment integer,
    hostname varchar, ems_ref_type varchar, restart_needed boolean, ancestry varchar, placement_group_id bigint,
    former_ems_id bigint, archived_on timestamp
    """,
    "hardwares": """
    config_version varchar, virtual_hw_version varchar, guest_os varchar, cpu_sockets integer DEFAULT 1,
    bios varchar, bios_location varchar, time_sync varchar, annotation text, vm_or_template_id bigint,
    memory_mb bigint, host_id bigint, cpu_speed integer, cpu_type varchar, size_on_disk bigint,
    manufacturer varchar DEFAULT '', model varchar DEFAULT '', number_of_nics integer, cpu_usage integer,
    memory_usage integer, cpu_cores_per_socket integer, cpu_total_cores integer, vmotion_enabled boolean,
    disk_free_space bigint, disk_capacity bigint, guest_os_full_name varchar, memory_console integer,
    bitness integer, virtualization_type varchar, root_device_type varchar, computer_system_id bigint,
    disk_size_minimum bigint, memory_mb_minimum bigint, introspected boolean, provision_state varchar,
    serial_number varchar, switch_id bigint, firmware_type varchar, canister_id bigint,
    memory_mb_configured integer, cpu_configured_cores integer, memory_mb_available integer,
    cpu_available_cores integer
    """,
    "disks": """
    device_name varchar, device_type varchar, location varchar, filename varchar, hardware_id bigint, mode varchar,
    controller_type varchar, size bigint, free_space bigint, size_on_disk bigint, present boolean DEFAULT true,
    start_connected boolean DEFAULT true, auto_detect boolean, created_on timestamp DEFAULT utc_now(),
    updated_on timestamp, disk_type varchar, storage_id bigint, backing_id bigint, backing_type varchar,
    storage_profile_id bigint, bootable boolean, ems_ref varchar, thin boolean, format varchar
    """,
    "networks": """
    hardware_id bigint, device_id bigint, description varchar, guid varchar, dhcp_enabled boolean,
    ipaddress varchar, subnet_mask varchar, lease_obtained timestamp, lease_expires timestamp,
    default_gateway varchar, dhcp_server varchar, dns_server varchar, hostname varchar, domain varchar,
    ipv6address varchar
    """,
    "operating_systems": """
    name varchar, product_name varchar, version varchar, build_number varchar, system_root varchar,
    distribution varchar, product_type varchar, service_pack varchar, productid varchar, vm_or_template_id bigint,
    host_id bigint, bitness integer, product_key varchar, pw_hist integer, max_pw_age integer, min_pw_age integer,
    min_pw_len integer, pw_complex boolean, pw_encrypt boolean, lockout_threshold integer, lockout_duration bigint,
    reset_lockout_counter integer, system_type varchar, computer_system_id bigint, kernel_version varchar
    """,
    "custom_attributes": """
    section varchar, name varchar, value text, resource_type varchar, resource_id bigint, source varchar,
    description text, value_interpolated text, unique_name text, serialized_value text
    """,
    "key_pairs_vms": """
    authentication_id bigint, vm_id bigint
    """,
}

INDEXES = [
    "CREATE INDEX index_ems_refreshes_on_ems_id ON ems_refreshes (ems_id, id)",
    "CREATE UNIQUE INDEX availability_zones_identity ON availability_zones (ems_id, ems_ref)",
    "CREATE INDEX index_availability_zones_on_type ON availability_zones (type)",
    "CREATE UNIQUE INDEX flavors_identity ON flavors (ems_id, ems_ref)",
    "CREATE INDEX index_flavors_on_type ON flavors (type)",
    "CREATE UNIQUE INDEX index_vms_on_guid ON vms (guid)",
    "CREATE UNIQUE INDEX vms_identity ON vms (ems_id, ems_ref) WHERE ems_id IS NOT NULL",
    "CREATE INDEX index_vms_archived_on_ems_ref ON vms (ems_ref) WHERE ems_id IS NULL",
    "CREATE INDEX index_vms_on_ancestry ON vms (ancestry)",
    "CREATE INDEX index_vms_on_availability_zone_id ON vms (availability_zone_id)",
    "CREATE INDEX index_vms_on_evm_owner_id ON vms (evm_owner_id)",
    "CREATE INDEX index_vms_on_flavor_id ON vms (flavor_id)",
    "CREATE INDEX index_vms_on_host_id ON vms (host_id)",
    "CREATE INDEX index_vms_on_location ON vms (location)",
    "CREATE INDEX index_vms_on_miq_group_id ON vms (miq_group_id)",
    "CREATE INDEX index_vms_on_name ON vms (name)",
    "CREATE INDEX index_vms_on_placement_group_id ON vms (placement_group_id)",
    "CREATE INDEX index_vms_on_storage_id ON vms (storage_id)",
    "CREATE INDEX index_vms_on_tenant_id ON vms (tenant_id)",
    "CREATE INDEX index_vms_on_type ON vms (type)",
    "CREATE INDEX index_vms_on_vmm_uuid ON vms (uid_ems)",
    "CREATE UNIQUE INDEX hardwares_vm_identity ON hardwares (vm_or_template_id) WHERE vm_or_template_id IS NOT NULL",
    "CREATE UNIQUE INDEX hardwares_host_identity ON hardwares (host_id) WHERE host_id IS NOT NULL",
    "CREATE INDEX index_hardwares_on_computer_system_id ON hardwares (computer_system_id)",
    "CREATE UNIQUE INDEX disks_identity ON disks (hardware_id, device_name)",
    "CREATE INDEX index_disks_on_device_name ON disks (device_name)",
    "CREATE INDEX index_disks_on_device_type ON disks (device_type)",
    "CREATE INDEX index_disks_on_storage_id ON disks (storage_id)",
    "CREATE UNIQUE INDEX networks_cloud_identity ON networks (hardware_id, description) WHERE description IN ('private', 'public')",
    "CREATE INDEX index_networks_on_device_id ON networks (device_id)",
    "CREATE INDEX index_networks_on_hardware_id ON networks (hardware_id)",
    "CREATE UNIQUE INDEX operating_systems_vm_identity ON operating_systems (vm_or_template_id) WHERE vm_or_template_id IS NOT NULL",
    "CREATE UNIQUE INDEX operating_systems_host_identity ON operating_systems (host_id) WHERE host_id IS NOT NULL",
    "CREATE INDEX index_operating_systems_on_computer_system_id ON operating_systems (computer_system_id)",
    "CREATE UNIQUE INDEX custom_attributes_identity ON custom_attributes (resource_type, resource_id, section, name) NULLS NOT DISTINCT",
    "CREATE UNIQUE INDEX key_pairs_vms_identity ON key_pairs_vms (authentication_id, vm_id)",
    "CREATE INDEX index_key_pairs_vms_on_vm_id ON key_pairs_vms (vm_id)",
]


def upgrade() -> None:
    """Create it."""
    first_id = int(context.config.attributes.get("region", 0)) * IDS_PER_REGION + 1
    for table, columns in TABLES.items():
        op.execute(f"CREATE SEQUENCE {table}_id_seq START WITH {first_id} MINVALUE 1")
        op.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY DEFAULT nextval('{table}_id_seq'), {columns})")
        op.execute(f"ALTER SEQUENCE {table}_id_seq OWNED BY {table}.id")
    for index in INDEXES:
        op.execute(index)


def downgrade() -> None:
    """Drop it, rows and all."""
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
