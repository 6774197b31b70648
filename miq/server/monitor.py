"""The monitor: what the server looks after at intervals, each step for itself.

Heartbeat, roles, workers, a line of health. A step that fails is logged and the others go on (one of the three
borders that catch everything); a step that finds the database away is due again at once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import DBAPIError

from miq import process, settings_loader
from miq.db import Database
from miq.paths import Home
from miq.server import roles, rows
from miq.server.enrolment import Identity
from miq.server.supervisor import Supervisor
from miq.settings import Settings

log = logging.getLogger(__name__)

#: seconds between two runs of a step, whatever the settings say: a loop that never sleeps helps nobody
SHORTEST = 0.1


@dataclass
class Step:
    """Something done every `server.<setting>` seconds, or that divided by `share()`; at once the first time."""

    name: str
    setting: str
    act: Callable[[], None]
    share: Callable[[], int] = lambda: 1
    due: float = 0.0


class Monitor:
    """The steps of one server, and what they know: settings and active roles."""

    def __init__(self, home: Home, database: Database, identity: Identity, supervisor: Supervisor) -> None:
        self.home = home
        self.database = database
        self.identity = identity
        self.supervisor = supervisor
        self.active_roles: list[str] = []
        self._known_spid: int | None = None
        self.steps = [
            Step("heartbeat", "heartbeat_frequency", self.heartbeat),
            Step("server_monitor", "server_monitor_frequency", self.activate_roles),
            Step("role_monitor", "server_role_monitor_frequency", self.read_roles),
            Step("worker_monitor", "worker_monitor_frequency", self._workers),
            Step("worker_samples", "worker_monitor_frequency", supervisor.sample_next, self._workers_now),
            Step("log_active_servers", "server_log_frequency", self.log_health),
        ]

    @property
    def settings(self) -> Settings:
        return self.supervisor.settings

    def next_due(self) -> float:
        """When the first step is due (CLOCK_MONOTONIC)."""
        return min(step.due for step in self.steps)

    def due_now(self, name: str) -> None:
        """Something happened that a step has to look at."""
        for step in self.steps:
            if step.name == name:
                step.due = 0.0

    def run_due(self) -> None:
        """Every step whose time has come."""
        for step in self.steps:
            if time.monotonic() >= step.due:
                seconds = self.settings.number(f"server.{step.setting}") / step.share()
                step.due = time.monotonic() + max(SHORTEST, seconds)
                self._guarded(step)

    def _guarded(self, step: Step) -> None:
        try:
            step.act()
        except (psycopg.OperationalError, DBAPIError):
            step.due = 0.0
            raise
        except Exception as error:
            log.error("MIQ(MiqServer#monitor) step %s: %s", step.name, error, exc_info=True)

    # -- the steps -----------------------------------------------------------------------------------------------------

    def note_backend(self) -> None:
        """After every new connection: `sql_spid` is right."""
        if self._known_spid != self.database.backend_pid:
            self.heartbeat()
            self._known_spid = self.database.backend_pid

    def load_settings(self) -> None:
        """Read them anew. Raises SettingsError."""
        self.supervisor.settings = settings_loader.load(
            self.database,
            self.home,
            region_id=self.identity.region_id,
            zone_id=self.identity.zone_id,
            server_id=self.identity.server_id,
        )

    def reload(self) -> None:
        """Settings changed while we run: garbage is named in the log, and what was in force stays in force."""
        try:
            self.load_settings()
            self.activate_roles()
        except (psycopg.OperationalError, DBAPIError):
            raise
        except Exception as error:
            log.error("MIQ(MiqServer#reload_settings) not taken over: %s", error)

    def activate_roles(self) -> None:
        """Assigned roles as the settings say; as the master, activate everybody's."""
        with self.database.session() as session:
            roles.assign(session, self.identity.server_id, self.settings.names("server.role"))
            timeout = self.settings.number("server.heartbeat_timeout")
            if roles.become_master(session, self.identity.server_id, timeout):
                roles.activate(session)
        self.read_roles()

    def read_roles(self) -> None:
        """What the master gave us."""
        with self.database.session() as session:
            now = roles.active_roles(session, self.identity.server_id)
        if now != self.active_roles:
            log.info("MIQ(MiqServer#monitor_active_roles) active roles: %s", ":".join(now))
            self.active_roles = now
            self.sync()

    def sync(self) -> None:
        """Start and stop workers as settings, roles and managers ask for."""
        self.supervisor.sync(self.identity, self.active_roles)

    def heartbeat(self) -> None:
        """Say that we live, and what we cost."""
        rows.write_server(self.database, self.identity.server_id, process.info(os.getpid()))

    def _workers_now(self) -> int:
        return max(1, len(self.supervisor.children))

    def _workers(self) -> None:
        self.supervisor.look_at_all()
        self.sync()

    def log_health(self) -> None:
        """What the queue holds, and what this server is: lines that operators grep."""
        counts = self.database.run(
            "SELECT state, coalesce(zone, 'any'), coalesce(role, 'none'), count(*) FROM miq_queue GROUP BY 1, 2, 3"
        ).fetchall()
        log.info("MIQ(MiqServer#log_status) MiqQueue count by state, zone and role: %s", counts)
        log.info(
            "MIQ(MiqServer#log_active_servers) MiqServer: local=Y, status= started, id=%s, workers=%s, active roles=%s",
            self.identity.server_id,
            len(self.supervisor.children),
            ":".join(self.active_roles),
        )
