"""Alembic's entry: `miq.db.migrate` calls it with a live connection and the region number in `attributes`."""

from __future__ import annotations

from alembic import context

from miq.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    transaction_per_migration=True,
    on_version_apply=context.config.attributes.get("on_version_apply"),
)
with context.begin_transaction():
    context.run_migrations()
