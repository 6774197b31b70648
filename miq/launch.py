"""What a worker process is told at its birth, by the server or by `miq-worker`, and its place in the region.

The contract between the supervisor and the runners, so it stands below both: one JSON-able value goes in, and the
worker finds everything else in the database by its guid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from miq import names
from miq.db import Database
from miq.errors import DatabaseError
from miq.models.worker_types import WorkerType, worker_type


@dataclass(frozen=True)
class Place:
    """Where a worker stands: its row, its server, zone and region, and what its server may do."""

    worker_id: int
    server_id: int
    server_guid: str
    server_name: str
    zone_id: int
    zone: str
    region_id: int
    active_roles: Sequence[str]

    def application_name(self, pid: int, class_name: str) -> str:
        """As upstream: MIQ, pid, server, worker, zone, class and zone name, cut to 64 characters."""
        ids = (names.compressed_id(each) for each in (self.server_id, self.worker_id, self.zone_id))
        return "|".join(["MIQ", str(pid), *ids, names.short(class_name), self.zone])[:64]


@dataclass(frozen=True)
class Launch:
    """One worker to be: all that crosses the process border, as JSON."""

    guid: str
    type_name: str
    queue_name: str | None
    dsn: str = field(repr=False)
    home: str
    server_pid: int | None = None
    #: deliver one message (or one pass), then leave
    once: bool = False
    #: beat by sd_notify and a liveness file; a supervised worker beats on its channel
    heartbeat: bool = False
    #: roles to act under, when they are not the server's active ones (a server that is down has none)
    roles: Sequence[str] | None = None
    #: what the server knows already, so that a worker need not ask at its birth
    place: Place | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def worker_type(self) -> type[WorkerType]:
        return worker_type(self.type_name)

    @property
    def ems_id(self) -> int | None:
        return names.ems_id_of(self.queue_name)

    def as_json(self) -> dict[str, Any]:
        """For the wire to the mold."""
        return asdict(self)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Launch:
        """From the wire."""
        place = message.get("place")
        return cls(**{**message, "place": Place(**place) if place else None})


def find_place(database: Database, guid: str) -> Place:
    """The place of the worker with this guid. Raises DatabaseError when its row is gone."""
    row = database.run(
        "SELECT w.id, s.id, s.guid, s.name, z.id, z.name, (SELECT id FROM miq_regions ORDER BY id LIMIT 1),"
        " ARRAY(SELECT r.name FROM assigned_server_roles a JOIN server_roles r ON r.id = a.server_role_id"
        "        WHERE a.miq_server_id = s.id AND a.active)"
        " FROM miq_workers w JOIN miq_servers s ON s.id = w.miq_server_id JOIN zones z ON z.id = s.zone_id"
        " WHERE w.guid = %(guid)s",
        {"guid": guid},
    ).fetchone()
    if row is None:
        raise DatabaseError(f"worker {guid} has no row in miq_workers: its server gave it up")
    return Place(*row)
