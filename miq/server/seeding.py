"""What has to be in the database before a server can run: region, zones, roles, worker types, and the server's own row.

Idempotent, and serialised by an advisory lock, so that servers may start together. The region's number is that of the
id sequences, which the first migration set.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq import settings_loader
from miq.db import database_of
from miq.errors import SecretError
from miq.models import MiqDatabase, MiqRegion, MiqServer, MiqWorkerType, ServerRole, ServerStatus, Zone
from miq.models.server_role import ROLES
from miq.models.worker_types import worker_types
from miq.names import IDS_PER_REGION
from miq.paths import Home
from miq.secrets import Key, check_fingerprint
from miq.server import roles
from miq.settings import Settings


def seed(session: Session, key: Key) -> None:
    """Everything that belongs to no server. Raises SecretError when the database was encrypted with another key."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext("miq seed"))))
    _database(session, key)
    _zones(session)
    _roles(session)
    _worker_types(session)


def _database(session: Session, key: Key) -> None:
    row = session.scalars(select(MiqDatabase)).first()
    if row is None:
        row = MiqDatabase(guid=str(uuid.uuid4()))
        session.add(row)
    check_fingerprint(key, row.v2_key_fingerprint)
    row.v2_key_fingerprint = key.fingerprint


def check_key(session: Session, load: Path) -> Key:
    """The key of this database; made anew only for a database that has none yet. Raises SecretError."""
    stored = session.scalar(select(MiqDatabase.v2_key_fingerprint))
    if stored is None:
        return Key.load_or_create(load)
    if not load.is_file():
        raise SecretError(f"{load} is missing, but this database was encrypted with a key: put the file back")
    key = Key.load(load)
    check_fingerprint(key, stored)
    return key


def _zones(session: Session) -> None:
    region = session.scalars(select(MiqRegion)).first()
    if region is None:
        region = MiqRegion(guid=str(uuid.uuid4()))
        session.add(region)
        session.flush()
        region.region = region.id // IDS_PER_REGION
        region.description = f"Region {region.region}"
    if session.scalar(select(Zone.id).where(Zone.name == "default")) is None:
        session.add(Zone(name="default", description="Default Zone", visible=True))
    if region.maintenance_zone_id is None:
        zone = Zone(name=f"__maintenance__{uuid.uuid4()}", description="Maintenance Zone", visible=False)
        session.add(zone)
        session.flush()
        region.maintenance_zone_id = zone.id


def _roles(session: Session) -> None:
    known = set(session.scalars(select(ServerRole.name)))
    session.add_all(
        ServerRole(name=name, description=text, max_concurrent=most, role_scope=scope, external_failover=False)
        for name, text, most, scope in ROLES
        if name not in known
    )


def _worker_types(session: Session) -> None:
    rows = {row.worker_type: row for row in session.scalars(select(MiqWorkerType))}
    for name, kind in worker_types().items():
        row = rows.pop(name, None)
        if row is None:
            session.add(MiqWorkerType(worker_type=name, kill_priority=kind.kill_priority, bundler_groups=[]))
        else:
            row.kill_priority = kind.kill_priority
    for stale in rows.values():
        session.delete(stale)


def own_guid(guid_file: Path) -> str:
    """The identity of this appliance, made on first use."""
    if guid_file.is_file() and (text := guid_file.read_text().strip()):
        return text
    guid = str(uuid.uuid4())
    guid_file.write_text(guid + "\n")
    return guid


def settings_of(session: Session, home: Home, server: MiqServer) -> Settings:
    """The settings of a server whose row is written. Raises SettingsError, also for a role that nobody knows."""
    region_id = session.scalars(select(MiqRegion.id)).first()
    session.flush()
    settings = settings_loader.load(
        database_of(session), home, region_id=region_id, zone_id=server.zone_id, server_id=server.id
    )
    roles.find(session, settings.names("server.role"))
    return settings


def own_server(session: Session, guid: str) -> MiqServer:
    """The row of this appliance, in zone `default` when it is new."""
    server = session.scalars(select(MiqServer).where(MiqServer.guid == guid)).first()
    if server is None:
        zone_id = session.scalar(select(Zone.id).where(Zone.name == "default"))
        server = MiqServer(guid=guid, name="EVM", zone_id=zone_id, status=ServerStatus.STOPPED)
        session.add(server)
        session.flush()
    return server
