"""What `miq status` knows, read from the rows: servers, workers, exits, and what is wrong.

Out: plain records that hold every column of their rows beside what is worked out, so that JSON can show all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq import names, plugins
from miq.cli.output import columns_of
from miq.cli.status_table import is_recent, status_word
from miq.errors import SettingsError
from miq.models import (
    AssignedServerRole,
    ExtManagementSystem,
    MiqServer,
    MiqWorker,
    MiqWorkerExit,
    ServerRole,
    ServerStatus,
    Zone,
)
from miq.models.miq_server import SERVER_ACTIVE
from miq.models.worker_types import worker_type, worker_types
from miq.settings import Settings

Record = dict[str, Any]


@dataclass
class Report:
    """Everything that the command prints; each record holds its row's columns and ours."""

    now: datetime
    servers: list[Record] = field(default_factory=list)
    workers: list[Record] = field(default_factory=list)
    exits: list[Record] = field(default_factory=list)
    back_offs: list[Record] = field(default_factory=list)
    unknown_types: list[Record] = field(default_factory=list)
    broken_providers: dict[str, str] = field(default_factory=dict)
    bad_settings: list[str] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether one of the servers shown is up."""
        return any(server["running"] for server in self.servers)


def read_report(
    session: Session,
    settings: dict[int, Settings],
    guid: str | None,
    *,
    last_exits: int,
    gone: frozenset[str] = frozenset(),
) -> Report:
    """The report on the server with this guid, or on all. `settings` are each server's own, by its id.

    `gone` are guids of servers that are known to have no process, whatever their heartbeat says.
    """
    report = Report(now=session.scalars(select(func.utc_now())).one(), broken_providers=plugins.broken())
    zones = {zone_id: name for zone_id, name in session.execute(select(Zone.id, Zone.name))}
    servers = {server.id: server for server in session.scalars(select(MiqServer).order_by(MiqServer.id))}
    shown = {key: server for key, server in servers.items() if guid is None or server.guid == guid}
    workers = session.scalars(select(MiqWorker).where(MiqWorker.miq_server_id.in_(shown)).order_by(MiqWorker.id)).all()
    roles = _active_roles(session)
    for server in shown.values():
        mine = [worker for worker in workers if worker.miq_server_id == server.id]
        report.servers.append(
            _server(server, zones, roles.get(server.id, []), len(mine), settings[server.id], report.now)
        )
        report.workers += [_worker(worker, server, zones, settings[server.id]) for worker in mine]
    for record in report.servers:
        record["running"] = record["running"] and record["guid"] not in gone
    report.servers.sort(key=lambda row: (row["region"], row["zone"], row["name"] or ""))
    report.workers.sort(key=lambda row: (row["region"], row["zone"], row["server"], row["brief_type"], row["pid"] or 0))
    report.exits = _exits(session, last_exits)
    report.back_offs = _back_offs(session, report.now)
    report.unknown_types = _unknown_types(session)
    return report


def _active_roles(session: Session) -> dict[int, list[str]]:
    statement = (
        select(AssignedServerRole.miq_server_id, func.array_agg(ServerRole.name))
        .join(ServerRole, ServerRole.id == AssignedServerRole.server_role_id)
        .where(AssignedServerRole.active.is_(True))
        .group_by(AssignedServerRole.miq_server_id)
    )
    return {server_id or 0: sorted(filter(None, found)) for server_id, found in session.execute(statement)}


def _server(
    server: MiqServer, zones: dict[int, str | None], roles: list[str], workers: int, settings: Settings, now: datetime
) -> Record:
    timeout = settings.number("server.heartbeat_timeout", 120)
    return columns_of(server) | {
        "region": server.id // names.IDS_PER_REGION,
        "zone": zones.get(server.zone_id or 0) or "",
        "workers": workers,
        "active_roles": roles,
        "memory": server.unique_set_size if server.unique_set_size is not None else server.memory_usage,
        "running": server.status in (*SERVER_ACTIVE, ServerStatus.QUIESCE)
        and is_recent(server.last_heartbeat, now, timeout),
    }


def _worker(worker: MiqWorker, server: MiqServer, zones: dict[int, str | None], settings: Settings) -> Record:
    pss = worker.proportional_set_size
    return columns_of(worker) | {
        "region": worker.id // names.IDS_PER_REGION,
        "zone": zones.get(server.zone_id or 0) or "",
        "server": server.name or "",
        "brief_type": names.brief(worker.type or ""),
        "shown_status": status_word(worker.status),
        "memory": pss if pss is not None else worker.memory_usage,
        "memory_threshold": _memory_threshold(worker, settings),
    }


def _memory_threshold(worker: MiqWorker, settings: Settings) -> float | None:
    """The limit in bytes; None for an unknown type or a setting that is not a number: the status comes first."""
    try:
        return settings.worker_number(worker_type(worker.type).settings_path, "memory_threshold")
    except SettingsError:
        return None


def _exits(session: Session, limit: int) -> list[Record]:
    latest = select(MiqWorkerExit).order_by(MiqWorkerExit.ended_on.desc(), MiqWorkerExit.id.desc()).limit(limit)
    return [columns_of(row) | {"brief_type": names.brief(row.type)} for row in session.scalars(latest)]


def _back_offs(session: Session, now: datetime) -> list[Record]:
    """The last exit of each kind of worker that waits before it is started again."""
    last = (
        select(MiqWorkerExit)
        .distinct(MiqWorkerExit.miq_server_id, MiqWorkerExit.type, MiqWorkerExit.queue_name)
        .order_by(MiqWorkerExit.miq_server_id, MiqWorkerExit.type, MiqWorkerExit.queue_name, MiqWorkerExit.id.desc())
    )
    waiting = [row for row in session.scalars(last) if row.back_off_until is not None and row.back_off_until > now]
    return [columns_of(row) | {"brief_type": names.brief(row.type)} for row in waiting]


def _unknown_types(session: Session) -> list[Record]:
    """Rows that no installed provider answers for; they are kept and never worked on."""
    workers = session.execute(select(MiqWorker.id, MiqWorker.type).where(MiqWorker.type.not_in(list(worker_types()))))
    managers = session.execute(
        select(ExtManagementSystem.id, ExtManagementSystem.type, ExtManagementSystem.name).where(
            ExtManagementSystem.type.not_in(list(plugins.manager_types()))
        )
    )
    return [
        *({"table": "miq_workers", "id": row.id, "type": row.type, "name": None} for row in workers),
        *({"table": "ext_management_systems", "id": row.id, "type": row.type, "name": row.name} for row in managers),
    ]
