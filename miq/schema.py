"""The schema: which revision a database is at, whether it is the one that this program needs, and how it gets there.

Alembic's migrations, run over the process's one connection, one transaction per step. Nothing is migrated that was not
asked for: servers and workers only check, and say what to do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from miq import paths
from miq.db import Database, first_line
from miq.errors import DatabaseError, SchemaOutdated, SchemaTooNew

log = logging.getLogger(__name__)

OLDEST_POSTGRES = 150000


def check_server(database: Database) -> None:
    """Raises DatabaseError, with one line, when the server is out of reach, too old or refuses us."""
    try:
        version = database.connection.info.server_version
    except psycopg.OperationalError as error:
        raise DatabaseError(
            f"the database cannot be reached: {first_line(error)}; check DATABASE_URL and the server"
        ) from None
    if version < OLDEST_POSTGRES:
        raise DatabaseError(f"PostgreSQL {version // 10000} is too old: 15 or newer is needed")


def _script() -> Any:  # noqa: ANN401 - alembic is imported only where migrations are looked at
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(paths.shipped("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config, ScriptDirectory.from_config(config)


def schema_revision(database: Database) -> str | None:
    """The revision that the database is at, None for an empty one."""
    row = database.run("SELECT to_regclass('alembic_version')").fetchone()
    if not row or row[0] is None:
        return None
    found = database.run("SELECT version_num FROM alembic_version").fetchone()
    return found[0] if found else None


def head_revision() -> str:
    """The revision that this program needs."""
    return str(_script()[1].get_current_head())


def check_schema(database: Database) -> None:
    """Raises SchemaOutdated or SchemaTooNew unless the database is at the revision of this program."""
    check_server(database)
    at, needed = schema_revision(database), head_revision()
    if at == needed:
        return
    known = {revision.revision for revision in _script()[1].walk_revisions()}
    if at is None or at in known:
        raise SchemaOutdated(f"the database schema is at {at or 'nothing'}, {needed} is needed: run `miq db migrate`")
    raise SchemaTooNew(f"the database schema is at {at}, which is newer than this program ({needed}): upgrade `miq`")


def migrate(
    database: Database, *, to: str = "head", region: int = 0, progress: Callable[[str], None] = log.info
) -> None:
    """Bring the schema up or down to a revision, one transaction per step, telling each step and its seconds.

    Two processes that migrate at once take turns. Raises SchemaTooNew for a database newer than this program.
    """
    from alembic import command

    check_server(database)
    config, script = _script()
    at = schema_revision(database)
    if at is not None and at not in {revision.revision for revision in script.walk_revisions()}:
        raise SchemaTooNew(f"the database schema is at {at}, which is newer than this program: upgrade `miq`")
    with database.engine.connect() as connection:
        connection.execute(select(func.pg_advisory_lock(func.hashtext("miq migrate"))))
        connection.commit()
        try:
            _run_migrations(connection, config, command, at, to, region, progress)
        finally:
            connection.rollback()
            connection.execute(select(func.pg_advisory_unlock(func.hashtext("miq migrate"))))
            connection.commit()


def _run_migrations(
    connection: Connection,
    config: Any,  # noqa: ANN401
    command: Any,  # noqa: ANN401
    at: str | None,
    to: str,
    region: int,
    progress: Callable[[str], None],
) -> None:
    began = time.monotonic()

    def told(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:  # noqa: ANN401 - alembic's own signature
        nonlocal began
        verb = "applied" if step.is_upgrade else "undone"
        progress(f"migration {'+'.join(step.up_revision_ids)} {verb} in {time.monotonic() - began:.2f} s")
        began = time.monotonic()

    config.attributes.update(connection=connection, region=region, on_version_apply=told)
    down = to != "head" and (to in ("base", "-1") or (at is not None and to < at))
    (command.downgrade if down else command.upgrade)(config, to)
    connection.commit()
