"""What there is in the region that takes messages: the servers that live, and the workers that run or would run.

A worker counts when it is starting or started on a live server, or when somebody runs it by hand. One that a live
server would start by itself counts as well, by the server's active roles, its settings and the managers that are valid:
a worker that is just being replaced is no reason to worry. Settings of a server are its rows and this appliance's own
file. Plain statements only, for a worker asks each minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from miq import names, paths, settings_loader
from miq.db import Database
from miq.errors import SettingsError
from miq.models import AuthenticationStatus
from miq.models.miq_server import SERVER_ACTIVE
from miq.models.server_role import ROLES
from miq.models.worker_types import WorkerType, worker_type, worker_types
from miq.queue import server_words
from miq.queue.claim import Route
from miq.settings import Settings


@dataclass(frozen=True)
class Server:
    """A server, and the roles that are active on it."""

    id: int
    guid: str
    zone: str | None
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Manager:
    """What decides whether workers of a manager's own may run."""

    name: str
    type: str
    zone: str | None
    enabled: bool
    status: str | None

    @property
    def valid(self) -> bool:
        """Whether a server of its zone starts workers for it."""
        return self.enabled and self.status == AuthenticationStatus.VALID


@dataclass(frozen=True)
class Region:
    """What lives, who takes messages, and what else a message may name."""

    servers: Sequence[Server] = ()
    workers: Sequence[Route] = ()
    managers: Mapping[int, Manager] = field(default_factory=dict)
    zones: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()

    @property
    def guids(self) -> set[str | None]:
        """The servers that live, or whose workers do."""
        return {each.guid for each in self.servers} | {each.server_guid for each in self.workers}


def startable(
    server: Server, managers: Mapping[int, Manager], count_of: Callable[[type[WorkerType]], float]
) -> list[Route]:
    """The workers that a live server starts whenever they are not there (reference 3.4)."""
    found: list[Route] = []
    for kind in worker_types().values():
        if not _takes_messages(kind) or (kind.required_roles and not set(kind.required_roles) & set(server.roles)):
            continue
        if kind.per == "manager":
            queues = [names.queue_of(key) for key, each in managers.items() if _is_for(kind, server, each)]
        else:
            queues = [kind.queue_name or "generic"] if kind.per == "single" or count_of(kind) >= 1 else []
        found += [_route(kind, queue, server) for queue in queues]
    return found


def _is_for(kind: type[WorkerType], server: Server, manager: Manager) -> bool:
    return manager.valid and manager.type == kind.manager and manager.zone == server.zone


def _takes_messages(kind: type[WorkerType]) -> bool:
    """Event catchers and the schedule worker have no part in the queue, whatever name they carry."""
    return "queue_worker_base" in kind.settings_path


def _route(kind: type[WorkerType], queue_name: str, server: Server) -> Route:
    return Route(queue_name, server.zone, kind.required_roles or server.roles, server.guid, kind.max_priority)


def read_region(database: Database) -> Region:
    """The region as it is now."""
    managers = _managers(database)
    servers: dict[int, Server] = {}
    living: list[Server] = []
    workers: list[Route] = []
    for server, seconds_silent, settings in _servers(database):
        servers[server.id] = server
        if seconds_silent <= settings.number("server.heartbeat_timeout"):
            living.append(server)
            workers += startable(server, managers, _counts(settings))
            workers.append(Route(server_words.QUEUE, server.zone, server.roles, server.guid))
    workers += _running(database, servers, living)
    zones = database.run("SELECT name FROM zones WHERE name IS NOT NULL").fetchall()
    roles = database.run("SELECT name FROM server_roles WHERE name IS NOT NULL").fetchall()
    return Region(
        servers=living,
        workers=list(dict.fromkeys(workers)),
        managers=managers,
        zones=frozenset(name for (name,) in zones),
        roles=frozenset(name for (name,) in roles) | {name for name, *_ in ROLES},
    )


def _servers(database: Database) -> Iterator[tuple[Server, float, Settings]]:
    """Every server, how long it has been silent (for ever, when it is not to run), and its settings."""
    rows = database.run(
        "SELECT s.id, coalesce(s.guid, ''), z.name, s.zone_id, (SELECT id FROM miq_regions ORDER BY id LIMIT 1),"
        " (SELECT string_agg(r.name, ',' ORDER BY r.name) FROM assigned_server_roles a"
        "   JOIN server_roles r ON r.id = a.server_role_id WHERE a.miq_server_id = s.id AND a.active),"
        " CASE WHEN s.status = ANY(string_to_array(%(active)s, ','))"
        "  THEN extract(epoch FROM utc_now() - s.last_heartbeat)::float8 END"
        " FROM miq_servers s LEFT JOIN zones z ON z.id = s.zone_id ORDER BY s.id",
        {"active": ",".join(SERVER_ACTIVE)},
    ).fetchall()
    for server_id, guid, zone, zone_id, region_id, roles, silent in rows:
        server = Server(server_id, guid, zone, tuple(roles.split(",")) if roles else ())
        settings = _settings(database, region_id, zone_id, server_id)
        yield server, math.inf if silent is None else silent, settings


def _settings(database: Database, region_id: int | None, zone_id: int | None, server_id: int) -> Settings:
    """The settings of a server; the shipped ones while its own cannot be used, which `miq status` tells."""
    try:
        return settings_loader.load(database, paths.home(), region_id=region_id, zone_id=zone_id, server_id=server_id)
    except SettingsError:
        return settings_loader.defaults()


def _counts(settings: Settings) -> Callable[[type[WorkerType]], float]:
    return lambda kind: settings.worker_number(kind.settings_path, "count")


def _running(database: Database, servers: Mapping[int, Server], living: Sequence[Server]) -> Iterator[Route]:
    """Workers whose rows say that they run; those of a server that is dead are dead, unless somebody runs them."""
    rows = database.run(
        "SELECT type, queue_name, miq_server_id, unsupervised FROM miq_workers WHERE status IN ('starting', 'started')"
    ).fetchall()
    for type_name, queue_name, server_id, unsupervised in rows:
        server, kind = servers.get(server_id), worker_type(type_name)
        if server is not None and (unsupervised or server in living) and _takes_messages(kind):
            yield _route(kind, queue_name or kind.queue_name or "generic", server)


def _managers(database: Database) -> dict[int, Manager]:
    rows = database.run(
        "SELECT e.id, coalesce(e.name, ''), coalesce(e.type, ''), z.name, coalesce(e.enabled, false),"
        " (SELECT a.status FROM authentications a WHERE a.resource_type = 'ExtManagementSystem'"
        "   AND a.resource_id = e.id AND a.authtype = 'default' ORDER BY a.id LIMIT 1)"
        " FROM ext_management_systems e LEFT JOIN zones z ON z.id = e.zone_id ORDER BY e.id"
    ).fetchall()
    return {row[0]: Manager(*row[1:]) for row in rows}
