"""`miq db`: the address of the database, its migrations, its state."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from miq import paths
from miq.cli.connect import open_database
from miq.cli.output import AsJson, print_facts, print_json, say
from miq.db import Database, normal_dsn
from miq.errors import DatabaseError
from miq.postgres import EmbeddedPostgres
from miq.schema import head_revision, migrate, schema_revision

command = typer.Typer()


@command.command("url")
def show_url() -> None:
    """Print an address that psql takes, while the database runs: psql "$(miq db url)"."""
    given = os.environ.get("DATABASE_URL")
    if given:
        print(normal_dsn(given))
        return
    embedded = EmbeddedPostgres(paths.home())
    if not embedded.is_running():
        raise DatabaseError("the embedded PostgreSQL does not run now: start miq-server, or set DATABASE_URL")
    print(embedded.dsn())


@command.command("migrate")
def run_migrations(
    region: Annotated[int, typer.Option(min=0, help="Number of the region, for a new database.")] = 0,
) -> None:
    """Bring the schema to this program's revision, step by step."""
    with open_database(any_schema=True) as database:
        before = schema_revision(database)
        migrate(database, region=region, progress=say)
        after = schema_revision(database)
    print(f"schema at {after}" + (", nothing to do" if before == after else ""))


@command.command("status")
def show_status(as_json: AsJson = False) -> None:
    """Show revision, size and server version."""
    with open_database(any_schema=True) as database:
        facts = _facts(database)
    if as_json:
        print_json(facts)
        return
    megabytes = f"{facts['size_bytes'] / 2**20:.1f} MB"
    verdict = "up to date" if facts["current"] else "run `miq db migrate`"
    print_facts(
        [
            ("Schema", f"{facts['revision'] or 'empty'}, needed {facts['needed']}: {verdict}"),
            ("Size", megabytes),
            ("Server", f"PostgreSQL {facts['server_version']}"),
            ("Database", facts["database"]),
            ("Embedded", facts["embedded"]),
        ]
    )


def _facts(database: Database) -> dict[str, Any]:
    row = database.run(
        "SELECT pg_database_size(current_database()), current_setting('server_version'), current_database()"
    ).fetchone()
    assert row is not None
    revision, needed = schema_revision(database), head_revision()
    return {
        "revision": revision,
        "needed": needed,
        "current": revision == needed,
        "size_bytes": row[0],
        "server_version": row[1],
        "database": row[2],
        "embedded": "DATABASE_URL" not in os.environ,
    }
