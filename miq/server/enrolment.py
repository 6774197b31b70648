"""The server's own row: who it is, that it starts, that it stops.

`enrol` seeds what a database needs, takes or makes the row of this appliance, and gives the `Identity` that everything
else refers to, with its settings; the other functions move the row's status.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from miq import __version__, names
from miq.clock import utc
from miq.db import Database, move
from miq.launch import Place
from miq.models import MiqRegion, ServerStatus, Zone
from miq.models.miq_server import SERVER_MOVES
from miq.paths import Home
from miq.server import roles, seeding
from miq.settings import Settings


@dataclass(frozen=True)
class Identity:
    """Which server this is, and where it stands."""

    server_id: int
    guid: str
    name: str
    zone_id: int
    zone: str
    region_id: int

    def application_name(self) -> str:
        """As pg_stat_activity shows the server's backend."""
        ids = (names.compressed_id(self.server_id), "-", names.compressed_id(self.zone_id))
        return "|".join(["MIQ", str(os.getpid()), *ids, "Server", self.zone])[:64]

    def place_of(self, worker_id: int, active_roles: Sequence[str]) -> Place:
        """The place of one of its workers."""
        return Place(
            worker_id, self.server_id, self.guid, self.name, self.zone_id, self.zone, self.region_id, list(active_roles)
        )


def enrol(database: Database, home: Home) -> tuple[Identity, Settings]:
    """Seed, take our row, read its settings, write `starting`; no role is active yet.

    Raises SecretError for another database's key, and SettingsError: then nothing of it is written.
    """
    guid = seeding.own_guid(home.guid_file)
    with database.session() as session:
        seeding.seed(session, seeding.check_key(session, home.key_file))
        server = seeding.own_server(session, guid)
        settings = seeding.settings_of(session, home, server)
        zone = session.get_one(Zone, server.zone_id)
        region_id = session.scalars(select(MiqRegion.id)).first()
        identity = Identity(server.id, guid, server.name or "EVM", zone.id, zone.name or "default", region_id or 0)
        session.flush()
        _starting(database, identity)
        roles.deactivate(session, identity.server_id)
    database.rename(identity.application_name())
    return identity, settings


def _starting(database: Database, identity: Identity) -> None:
    move(
        database, "miq_servers", identity.server_id, ServerStatus.STARTING, SERVER_MOVES,
        started_on=utc(), last_heartbeat=utc(), stopped_on=None, pid=os.getpid(), version=__version__,
        build=__version__, is_master=False, sql_spid=database.backend_pid, hostname=socket.gethostname(),
        memory_usage=None, percent_cpu=None, cpu_time=None,
    )  # fmt: skip


def started(database: Database, identity: Identity) -> None:
    """The server is up."""
    move(database, "miq_servers", identity.server_id, ServerStatus.STARTED, SERVER_MOVES)


def quiescing(database: Database, identity: Identity) -> None:
    """The server takes no new work: its roles go to others."""
    move(database, "miq_servers", identity.server_id, ServerStatus.QUIESCE, SERVER_MOVES)
    with database.session() as session:
        roles.deactivate(session, identity.server_id)


def ended(database: Database, identity: Identity, *, killed: bool) -> None:
    """The server is gone."""
    status = ServerStatus.KILLED if killed else ServerStatus.STOPPED
    move(database, "miq_servers", identity.server_id, status, SERVER_MOVES, stopped_on=utc(), is_master=False)
