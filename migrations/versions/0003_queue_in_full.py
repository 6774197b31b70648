"""The queue in full: what claims, time-outs and upkeep look things up by, how busy tables are vacuumed, schedules.

Rows are kept; nothing here takes longer than building an index on the rows that wait.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INDEXES = {
    "miq_queue_due_idx": "miq_queue (queue_name, deliver_on) WHERE state = 'ready' AND deliver_on IS NOT NULL",
    "miq_queue_expiry_idx": "miq_queue (expires_on) WHERE state = 'ready' AND expires_on IS NOT NULL",
    # Rows that are neither taken nor kept: upkeep ends them.
    "miq_queue_stateless_idx": "miq_queue (id) WHERE state IS NULL",
    "miq_queue_busy_merge_idx": "miq_queue (merge_key) WHERE state = 'dequeue' AND merge_key IS NOT NULL",
}

# The notification says how urgent the most urgent new row is: whoever works his way through a long queue need not look
# at its beginning again for a row that comes behind.
QUEUE_PUT = """
    CREATE OR REPLACE FUNCTION miq_queue_put() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('miq_queue:' || left(queue_name, 50), {payload})
           FROM put WHERE state = 'ready' AND queue_name IS NOT NULL GROUP BY queue_name;
        RETURN NULL;
    END $$
"""

# Thresholds in rows, not in shares of the table: the queue of an appliance is nearly empty most of the time, and its
# dead rows are as many as the messages of the last minute. Half-filled pages let the taking of a message write its
# new row beside the old one, which halves what goes to the log of the database.
STORAGE = {
    "miq_queue": {
        "fillfactor": "50",
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "5000",
        "autovacuum_vacuum_insert_scale_factor": "0",
        "autovacuum_vacuum_insert_threshold": "50000",
        "autovacuum_analyze_scale_factor": "0.2",
        "autovacuum_analyze_threshold": "5000",
        "autovacuum_vacuum_cost_delay": "0",
    },
    "miq_workers": {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
    "miq_servers": {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500"},
    "miq_tasks": {"autovacuum_vacuum_scale_factor": "0.05", "autovacuum_vacuum_threshold": "1000"},
    "miq_worker_exits": {"autovacuum_vacuum_scale_factor": "0.05", "autovacuum_vacuum_threshold": "1000"},
}


def upgrade() -> None:
    """Add it."""
    for name, on in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {on}")
    op.execute(
        "CREATE UNIQUE INDEX miq_schedules_identity ON miq_schedules (name, userid, resource_type) NULLS NOT DISTINCT"
    )
    op.execute(QUEUE_PUT.format(payload="min(priority)::text"))
    op.execute(
        "CREATE TRIGGER miq_schedules AFTER INSERT OR DELETE"
        " OR UPDATE OF name, sched_action, filter, resource_type, resource_id, run_at, enabled ON miq_schedules"
        " FOR EACH ROW EXECUTE FUNCTION miq_notify('miq_schedules')"
    )
    for table, options in STORAGE.items():
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in options.items())})")


def downgrade() -> None:
    """Take it away; the rows stay."""
    for table, options in STORAGE.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(options)})")
    op.execute("DROP TRIGGER miq_schedules ON miq_schedules")
    op.execute(QUEUE_PUT.format(payload="''"))
    for name in (*INDEXES, "miq_schedules_identity"):
        op.execute(f"DROP INDEX {name}")
