"""The appliance behind a command: its database, its settings, its key.

The database is DATABASE_URL's, else the embedded one of MIQ_HOME, which is started for the command if nobody runs it.
Whatever is wrong with it is one line, before the command has done anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestampLoader
from sqlalchemy.orm import Session

from miq import paths, settings_loader
from miq.database_address import database_address
from miq.db import Database
from miq.managers.find import DEFAULT_ZONE
from miq.schema import check_schema, check_server
from miq.secrets import Key
from miq.server import seeding
from miq.settings import Settings


class _BoundedTimestamp(TimestampLoader):
    """Times that Python cannot tell, such as `infinity` for never, are shown as the last or first that it can."""

    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except psycopg.DataError:
            text = bytes(data)
            return datetime.min if text.startswith(b"-") or text.endswith(b"BC") else datetime.max


@contextmanager
def open_database(*, any_schema: bool = False) -> Iterator[Database]:
    """The database, at this program's schema unless any will do. Raises DatabaseError, SchemaOutdated, SchemaTooNew."""
    psycopg.adapters.register_loader("timestamp", _BoundedTimestamp)
    with database_address(paths.home()) as dsn:
        database = Database(dsn, f"MIQ|{os.getpid()}|-|-|-|miq|-")
        try:
            (check_server if any_schema else check_schema)(database)
            yield database
        finally:
            database.close()


@contextmanager
def open_session() -> Iterator[Session]:
    """One session over the database, for commands that need nothing else."""
    with open_database() as database, database.session() as session:
        yield session


def local_guid() -> str | None:
    """The identity of this MIQ_HOME; None before its server's first start."""
    try:
        return paths.home().guid_file.read_text().strip() or None
    except OSError:
        return None


def settings_of(database: Database, server_id: int | None = None) -> Settings:
    """The settings of a server; of this MIQ_HOME's when None, or of the region when it has no row yet."""
    row = database.run(
        "SELECT (SELECT id FROM miq_regions ORDER BY id LIMIT 1), s.id,"
        " coalesce(s.zone_id, (SELECT id FROM zones WHERE name = %(zone)s))"
        " FROM (SELECT 1) AS one LEFT JOIN miq_servers s"
        " ON s.id = %(id)s OR (%(id)s::bigint IS NULL AND s.guid = %(guid)s)",
        {"id": server_id, "guid": local_guid(), "zone": DEFAULT_ZONE},
    ).fetchone()
    assert row is not None
    return settings_loader.load(database, paths.home(), region_id=row[0], server_id=row[1] or 0, zone_id=row[2])


def encryption_key(session: Session) -> Key:
    """The key of this MIQ_HOME, made and noted when the database has none yet. Raises SecretError."""
    key = seeding.check_key(session, paths.home().make().key_file)
    seeding.seed(session, key)
    return key
