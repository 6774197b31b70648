"""Servers, workers, the queue, settings and managers.

Column names and types are those of the modelled schema; what is ours besides is marked at the index or column.
"""

from __future__ import annotations

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

IDS_PER_REGION = 10**12

TABLES = {
    "miq_databases": """
    created_at timestamp NOT NULL DEFAULT utc_now(), updated_at timestamp NOT NULL DEFAULT utc_now(),
    session_secret_token varchar, csrf_secret_token varchar, guid varchar, v2_key_fingerprint varchar
    """,
    "miq_regions": """
    region integer, created_at timestamp NOT NULL DEFAULT utc_now(),
    updated_at timestamp NOT NULL DEFAULT utc_now(), description varchar, guid varchar, maintenance_zone_id bigint
    """,
    "zones": """
    name varchar, description varchar, created_on timestamp DEFAULT utc_now(), updated_on timestamp, settings text,
    visible boolean DEFAULT true
    """,
    "miq_servers": """
    guid varchar, status varchar, started_on timestamp, stopped_on timestamp, pid integer, build varchar,
    percent_memory double precision, percent_cpu double precision, cpu_time double precision, name varchar,
    last_heartbeat timestamp, os_priority integer, is_master boolean DEFAULT false, logo bytea, version varchar,
    zone_id bigint, memory_usage numeric, memory_size numeric, hostname varchar, ipaddress varchar, drb_uri varchar,
    mac_address varchar, vm_id bigint, has_active_userinterface boolean, has_active_webservices boolean,
    sql_spid integer, proportional_set_size numeric, has_active_remote_console boolean, system_memory_free numeric,
    system_memory_used numeric, system_swap_free numeric, system_swap_used numeric, has_active_cockpit_ws boolean,
    unique_set_size numeric, capabilities jsonb DEFAULT '{}'
    """,
    "server_roles": """
    name varchar, description varchar, created_on timestamp DEFAULT utc_now(), updated_on timestamp,
    max_concurrent integer, external_failover boolean, role_scope varchar
    """,
    "assigned_server_roles": """
    miq_server_id bigint, server_role_id bigint, active boolean DEFAULT false, priority integer
    """,
    "miq_worker_types": """
    worker_type varchar NOT NULL, bundler_groups varchar[], kill_priority integer
    """,
    "miq_workers": """
    guid varchar, status varchar DEFAULT 'creating', started_on timestamp, stopped_on timestamp,
    last_heartbeat timestamp, pid integer, queue_name varchar, type varchar, percent_memory double precision,
    percent_cpu double precision, cpu_time double precision, os_priority integer, memory_usage numeric,
    memory_size numeric, uri varchar, miq_server_id bigint, sql_spid integer, proportional_set_size numeric,
    unique_set_size numeric, system_uid varchar, pid_start bigint, unsupervised boolean NOT NULL DEFAULT false
    """,
    "miq_worker_exits": """
    type varchar NOT NULL, queue_name varchar, miq_server_id bigint, worker_id bigint, guid varchar, pid integer,
    started_on timestamp, ended_on timestamp NOT NULL DEFAULT utc_now(), exit_code integer, signal integer,
    reason text, memory_usage numeric, message_id bigint, messages_finished integer,
    deaths_in_vain integer NOT NULL DEFAULT 0, back_off_until timestamp
    """,
    "miq_queue": """
    target_id bigint, priority integer DEFAULT 100, method_name varchar, state varchar DEFAULT 'ready',
    created_on timestamp DEFAULT utc_now(), updated_on timestamp, lock_version integer DEFAULT 0, task_id varchar,
    deliver_on timestamp, queue_name varchar DEFAULT 'generic', class_name varchar, instance_id bigint, args text,
    miq_callback text, msg_data bytea, zone varchar, role varchar, server_guid varchar,
    msg_timeout integer DEFAULT 600, handler_id bigint, handler_type varchar, expires_on timestamp,
    tracking_label varchar, user_id bigint, group_id bigint, tenant_id bigint, miq_task_id bigint,
    attempts integer NOT NULL DEFAULT 0, last_error text, merge_key varchar
    """,
    "miq_tasks": """
    name varchar, state varchar, status varchar, message text, userid varchar,
    created_on timestamp DEFAULT utc_now(), updated_on timestamp, pct_complete integer, context_data text,
    results text, miq_server_id bigint, identifier varchar, started_on timestamp, zone varchar
    """,
    "jobs": """
    guid varchar, state varchar, status varchar, message text, name varchar, userid varchar,
    created_on timestamp DEFAULT utc_now(), updated_on timestamp, target_id bigint, target_class varchar,
    type varchar, agent_message text, started_on timestamp, dispatch_status varchar, sync_key varchar,
    miq_server_id bigint, zone varchar, options text, context text, miq_task_id bigint
    """,
    "miq_schedules": """
    name varchar, description varchar, sched_action text, filter text, resource_type varchar, run_at text,
    enabled boolean, userid varchar, prod_default varchar, last_run_on timestamp,
    created_on timestamp DEFAULT utc_now(), updated_at timestamp, miq_search_id bigint, zone_id bigint,
    adhoc boolean, resource_id bigint
    """,
    "settings_changes": """
    resource_type varchar, resource_id bigint, key varchar, value text,
    created_at timestamp NOT NULL DEFAULT utc_now(), updated_at timestamp NOT NULL DEFAULT utc_now()
    """,
    "providers": """
    type varchar, name varchar, guid varchar, zone_id bigint, created_at timestamp, updated_at timestamp,
    tenant_id bigint, capabilities jsonb DEFAULT '{}'
    """,
    "ext_management_systems": """
    name varchar, created_on timestamp DEFAULT utc_now(), updated_on timestamp,
    guid varchar DEFAULT (gen_random_uuid())::text, zone_id bigint, type varchar, api_version varchar,
    uid_ems varchar, host_default_vnc_port_start integer, host_default_vnc_port_end integer,
    provider_region varchar, last_refresh_error text, last_refresh_date timestamp, provider_id bigint,
    realm varchar, tenant_id bigint, project varchar, parent_ems_id bigint, subscription varchar,
    last_metrics_error text, last_metrics_update_date timestamp, last_metrics_success_date timestamp,
    tenant_mapping_enabled boolean, enabled boolean DEFAULT true, options text, zone_before_pause_id bigint,
    last_inventory_date timestamp, capabilities jsonb DEFAULT '{}', last_refresh_success_date timestamp
    """,
    "endpoints": """
    role varchar, ipaddress varchar, hostname varchar, port integer, resource_type varchar, resource_id bigint,
    created_at timestamp NOT NULL DEFAULT utc_now(), updated_at timestamp NOT NULL DEFAULT utc_now(),
    verify_ssl integer DEFAULT 1, url varchar, security_protocol varchar, api_version varchar, path varchar,
    certificate_authority text, options jsonb DEFAULT '{}'
    """,
    "authentications": """
    name varchar, authtype varchar DEFAULT 'default', userid varchar, password varchar, resource_id bigint,
    resource_type varchar, created_on timestamp DEFAULT utc_now(), updated_on timestamp, last_valid_on timestamp,
    last_invalid_on timestamp, credentials_changed_on timestamp, status varchar, status_details varchar,
    type varchar, auth_key text, fingerprint varchar, service_account varchar, public_key text, manager_ref varchar,
    options text, evm_owner_id bigint, miq_group_id bigint, tenant_id bigint, become_username varchar,
    become_password varchar, auth_key_password varchar, ems_ref varchar, become_method varchar
    """,
}

INDEXES = [
    "CREATE UNIQUE INDEX index_miq_regions_on_region ON miq_regions (region)",
    "CREATE UNIQUE INDEX index_zones_on_name ON zones (name)",
    "CREATE UNIQUE INDEX index_miq_servers_on_guid ON miq_servers (guid)",
    "CREATE INDEX index_miq_servers_on_vm_id ON miq_servers (vm_id)",
    "CREATE INDEX index_miq_servers_on_zone_id ON miq_servers (zone_id)",
    "CREATE UNIQUE INDEX index_server_roles_on_name ON server_roles (name)",
    "CREATE INDEX index_assigned_server_roles_on_miq_server_id ON assigned_server_roles (miq_server_id)",
    "CREATE INDEX index_assigned_server_roles_on_server_role_id ON assigned_server_roles (server_role_id)",
    "CREATE UNIQUE INDEX assigned_server_roles_identity ON assigned_server_roles (miq_server_id, server_role_id)",
    "CREATE UNIQUE INDEX index_miq_worker_types_on_worker_type ON miq_worker_types (worker_type)",
    "CREATE UNIQUE INDEX index_miq_workers_on_guid ON miq_workers (guid)",
    "CREATE INDEX index_miq_workers_on_miq_server_id ON miq_workers (miq_server_id)",
    "CREATE INDEX index_miq_workers_on_queue_name ON miq_workers (queue_name)",
    "CREATE INDEX index_miq_workers_on_status ON miq_workers (status)",
    "CREATE INDEX index_miq_workers_on_worker_type ON miq_workers (type)",
    "CREATE INDEX index_miq_worker_exits_on_type ON miq_worker_exits (type, queue_name, ended_on)",
    "CREATE INDEX index_miq_worker_exits_on_ended_on ON miq_worker_exits (ended_on)",
    "CREATE INDEX miq_queue_get_idx ON miq_queue (queue_name, priority, id) WHERE state = 'ready'",
    "CREATE UNIQUE INDEX miq_queue_merge_idx ON miq_queue (merge_key) WHERE state = 'ready' AND merge_key IS NOT NULL",
    "CREATE UNIQUE INDEX miq_queue_task_idx ON miq_queue (task_id) WHERE state = 'dequeue' AND task_id IS NOT NULL",
    "CREATE INDEX miq_queue_handler_idx ON miq_queue (handler_type, handler_id) WHERE state = 'dequeue'",
    "CREATE INDEX miq_queue_failed_idx ON miq_queue (updated_on) WHERE state IN ('warn', 'error', 'timeout', 'expired')",
    "CREATE INDEX index_miq_queue_on_task_id ON miq_queue (task_id) WHERE task_id IS NOT NULL",
    "CREATE INDEX index_miq_queue_on_miq_task_id ON miq_queue (miq_task_id) WHERE miq_task_id IS NOT NULL",
    "CREATE INDEX index_miq_tasks_on_miq_server_id ON miq_tasks (miq_server_id)",
    "CREATE UNIQUE INDEX index_jobs_on_guid ON jobs (guid)",
    "CREATE INDEX index_jobs_on_dispatch_status ON jobs (dispatch_status)",
    "CREATE INDEX index_jobs_on_miq_server_id ON jobs (miq_server_id)",
    "CREATE INDEX index_jobs_on_miq_task_id ON jobs (miq_task_id)",
    "CREATE INDEX index_jobs_on_state ON jobs (state)",
    "CREATE INDEX index_jobs_on_target_id_and_target_class ON jobs (target_id, target_class)",
    "CREATE INDEX index_jobs_on_type ON jobs (type)",
    "CREATE INDEX index_miq_schedules_on_miq_search_id ON miq_schedules (miq_search_id)",
    "CREATE INDEX index_miq_schedules_on_updated_at ON miq_schedules (updated_at)",
    "CREATE INDEX index_miq_schedules_on_zone_id ON miq_schedules (zone_id)",
    "CREATE INDEX index_settings_changes_on_key ON settings_changes (key)",
    "CREATE UNIQUE INDEX settings_changes_identity ON settings_changes (resource_type, resource_id, key)",
    "CREATE UNIQUE INDEX index_ext_management_systems_on_guid ON ext_management_systems (guid)",
    "CREATE UNIQUE INDEX ext_management_systems_identity ON ext_management_systems (name, tenant_id) NULLS NOT DISTINCT",
    "CREATE INDEX index_ext_management_systems_on_parent_ems_id ON ext_management_systems (parent_ems_id)",
    "CREATE INDEX index_ext_management_systems_on_type ON ext_management_systems (type)",
    "CREATE INDEX index_ext_management_systems_on_zone_before_pause_id ON ext_management_systems (zone_before_pause_id)",
    "CREATE UNIQUE INDEX endpoints_identity ON endpoints (resource_type, resource_id, role)",
    "CREATE INDEX index_authentications_on_resource_id_and_resource_type ON authentications (resource_id, resource_type)",
    "CREATE INDEX index_authentications_on_type ON authentications (type)",
]

# Anybody's row wakes the workers of its queue, an operator's plain INSERT too: once per statement and queue.
# Channel names are limited to 63 bytes, hence left().
FUNCTIONS = [
    """
    CREATE FUNCTION miq_queue_put() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('miq_queue:' || left(queue_name, 50), '')
           FROM (SELECT DISTINCT queue_name FROM put WHERE state = 'ready' AND queue_name IS NOT NULL) AS queues;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION miq_notify() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify(TG_ARGV[0], '');
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER miq_queue_put AFTER INSERT ON miq_queue REFERENCING NEW TABLE AS put"
    " FOR EACH STATEMENT EXECUTE FUNCTION miq_queue_put()",
    # Who must run changes with managers and their credentials' status. By row, so that a statement that changes nothing
    # tells nobody; PostgreSQL sends equal notifications of one transaction once.
    "CREATE TRIGGER miq_sync AFTER INSERT OR DELETE OR UPDATE OF zone_id, enabled, type ON ext_management_systems"
    " FOR EACH ROW EXECUTE FUNCTION miq_notify('miq_sync')",
    "CREATE TRIGGER miq_sync AFTER INSERT OR DELETE OR UPDATE OF status ON authentications"
    " FOR EACH ROW EXECUTE FUNCTION miq_notify('miq_sync')",
    "CREATE TRIGGER miq_config AFTER INSERT OR UPDATE OR DELETE ON settings_changes"
    " FOR EACH ROW EXECUTE FUNCTION miq_notify('miq_config')",
    "CREATE TRIGGER miq_config AFTER INSERT OR UPDATE OR DELETE ON assigned_server_roles"
    " FOR EACH ROW EXECUTE FUNCTION miq_notify('miq_config')",
]

CHECKS = [
    "ALTER TABLE miq_workers ADD CONSTRAINT miq_workers_status CHECK (status IN ('creating', 'starting', 'started',"
    " 'ready', 'working', 'stopping', 'stopped', 'aborted', 'killed'))",
    "ALTER TABLE miq_servers ADD CONSTRAINT miq_servers_status CHECK (status IN ('starting', 'started', 'restarting',"
    " 'quiesce', 'stopped', 'not responding', 'killed'))",
    "ALTER TABLE miq_queue ADD CONSTRAINT miq_queue_state CHECK (state IN ('ready', 'dequeue', 'warn', 'error',"
    " 'timeout', 'expired'))",
]


def upgrade() -> None:
    """Create it."""
    first_id = int(context.config.attributes.get("region", 0)) * IDS_PER_REGION + 1
    op.execute(
        "CREATE FUNCTION utc_now() RETURNS timestamp LANGUAGE sql STABLE AS $$ SELECT now() AT TIME ZONE 'utc' $$"
    )
    for table, columns in TABLES.items():
        op.execute(f"CREATE SEQUENCE {table}_id_seq START WITH {first_id} MINVALUE 1")
        op.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY DEFAULT nextval('{table}_id_seq'), {columns})")
        op.execute(f"ALTER SEQUENCE {table}_id_seq OWNED BY {table}.id")
    for index in INDEXES:
        op.execute(index)
    for statement in FUNCTIONS + CHECKS:
        op.execute(statement)


def downgrade() -> None:
    """Drop it, rows and all."""
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
    for function in ("miq_queue_put", "miq_notify", "utc_now"):
        op.execute(f"DROP FUNCTION {function}()")
