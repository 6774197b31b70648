"""The server process: start, one loop, stop.

One `select` loop waits for signals, the mold, the workers' channels, notifications of the database and the next
timer; nothing in it waits longer than a statement's time-out. A dead worker is noticed by SIGCHLD and replaced at
once; the full pass of the monitor runs every `worker_monitor_frequency` seconds. While the database is away,
supervision goes on from
memory.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from miq import __version__, names, process, settings_loader, systemd
from miq.channel import Channel
from miq.clock import utc
from miq.db import Database, check_schema, move
from miq.launch import Place
from miq.models import MiqRegion, ServerStatus, WorkerStatus, Zone
from miq.models.miq_server import SERVER_MOVES
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.server import roles, rows, seeding
from miq.server.children import Child
from miq.server.pid_file import PidFile
from miq.server.strategy.process import ProcessStrategy
from miq.server.supervisor import Supervisor

log = logging.getLogger(__name__)

#: exit codes of the process
EXIT_CLEAN, EXIT_KILLED = 0, 1

STATEMENT_TIMEOUT = 10.0
LOCK_TIMEOUT = 5.0
#: seconds that killed workers are waited for
REAP_LIMIT = 3.0


@dataclass
class Step:
    """Something the loop does every `seconds()`; at once the first time. `needs_database` steps wait for it."""

    name: str
    seconds: Callable[[], float]
    act: Callable[[], None]
    due: float = 0.0


class EvmServer:
    """One appliance's server."""

    def __init__(self, home: Home, dsn: str, embedded: EmbeddedPostgres | None) -> None:
        self.home = home
        self.embedded = embedded
        self.database = Database(
            dsn, "MIQ", connect_timeout=2, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT
        )
        self.settings = settings_loader.local(home)
        self.selector = selectors.DefaultSelector()
        self.signals: list[int] = []
        self.exit_code: int | None = None
        self.quiescing: float | None = None
        self.sync_wanted = True
        self.config_wanted = False
        self.database_due = 0.0
        self.database_pause = 0.1
        self.known_spid: int | None = None
        self.active_roles: list[str] = []
        self._rescue: threading.Thread | None = None

    # -- start ---------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; the exit code. Raises UsageError when it cannot start."""
        pid_file = PidFile(self.home.pid_file)
        pid_file.take()
        try:
            self._catch_signals()
            check_schema(self.database)
            self._start_mold()
            self._start_record()
            while self.exit_code is None:
                self._turn()
            return self.exit_code
        finally:
            self._close()
            pid_file.release()

    def _catch_signals(self) -> None:
        """Handlers only append to a list and wake the loop."""
        self._wake_r, wake_w = socket.socketpair()
        self._wake_w = wake_w
        for each in (self._wake_r, wake_w):
            each.setblocking(False)
        signal.set_wakeup_fd(wake_w.fileno(), warn_on_full_buffer=False)

        def note(number: int, frame: FrameType | None) -> None:
            self.signals.append(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, note)
        self.selector.register(self._wake_r, selectors.EVENT_READ, self._on_wake)

    def _start_mold(self) -> None:
        env = {
            **os.environ,
            "MIQ_HOME": str(self.home.path),
            "MIQ_LOG_LEVEL": str(self.settings.get("log.level", "info")),
        }
        self.strategy = ProcessStrategy(env, self.settings.names("server.mold.preload"))
        self._exec_mold()

    def _exec_mold(self) -> None:
        wire = self.strategy.start_mold()
        self.selector.register(wire, selectors.EVENT_READ, self._on_mold)
        self._mold_wire = wire

    def _start_record(self) -> None:
        """Seed, take our row, assign and activate roles, clear what an earlier run left."""
        guid = self.guid = seeding.own_guid(self.home.guid_file)
        with self.database.session() as session:
            self.key = seeding.check_key(session, self.home.key_file)
            seeding.seed(session, self.key)
            server = seeding.own_server(session, guid)
            self.server_id, self.zone_id = server.id, server.zone_id or 0
            zone = session.get(Zone, self.zone_id)
            self.zone = (zone.name if zone else None) or "default"
            self.region_id = session.query(MiqRegion.id).limit(1).scalar()
            session.flush()
            move(
                self.database, "miq_servers", self.server_id, ServerStatus.STARTING, SERVER_MOVES,
                started_on=utc(), last_heartbeat=utc(), stopped_on=None, pid=os.getpid(), version=__version__,
                build=__version__, is_master=False, sql_spid=self.database.backend_pid, hostname=socket.gethostname(),
                memory_usage=None, percent_cpu=None, cpu_time=None,
            )  # fmt: skip
            roles.deactivate(session, self.server_id)
        self.database.rename(self._application_name())
        process.set_title("MIQ Server")
        self.supervisor = Supervisor(
            self.home, self.database, self.server_id, self.strategy, self.settings,
            self._place_of, self._watch, self._unwatch,
        )  # fmt: skip
        self._load_settings()
        self.supervisor.clear_leftovers()
        self.supervisor.remember_back_offs()
        self.database.listen("miq_sync", self._want_sync)
        self.database.listen("miq_config", self._want_config)
        self._monitor_roles()
        self._set_status(ServerStatus.STARTED)
        systemd.notify("READY=1")
        log.info("MIQ(MiqServer#start) started, id [%s], guid [%s], version %s", self.server_id, guid, __version__)
        self._make_steps()

    def _place_of(self, worker_id: int) -> Place:
        return Place(
            worker_id, self.server_id, self.guid, "EVM", self.zone_id, self.zone, self.region_id, self.active_roles
        )

    def _application_name(self) -> str:
        ids = (names.compressed_id(self.server_id), "-", names.compressed_id(self.zone_id))
        return "|".join(["MIQ", str(os.getpid()), *ids, "Server", self.zone])[:64]

    def _set_status(self, status: ServerStatus, **values: Any) -> None:  # noqa: ANN401 - columns of the row
        move(self.database, "miq_servers", self.server_id, status, SERVER_MOVES, **values)

    def _make_steps(self) -> None:
        def every(name: str) -> Callable[[], float]:
            return lambda: self.settings.number(f"server.{name}")

        self.steps = [
            Step("heartbeat", every("heartbeat_frequency"), self._heartbeat),
            Step("server_monitor", every("server_monitor_frequency"), self._monitor_roles),
            Step("role_monitor", every("server_role_monitor_frequency"), self._read_roles),
            Step("worker_monitor", every("worker_monitor_frequency"), self._monitor_workers),
            Step("log_active_servers", every("server_log_frequency"), self._log_health),
        ]

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait for the next thing and do it, then whatever is due."""
        self._watch_database()
        for key, _ in self.selector.select(self._timeout()):
            key.data()
        self._take_signals()
        self.supervisor.kill_overdue()
        self.strategy.retry_waiting()
        self._with_database(self._record)
        systemd.notify("WATCHDOG=1")
        if self.quiescing is not None and self.exit_code is None:
            self._finish_quiesce()

    def _timeout(self) -> float:
        now = time.monotonic()
        times = [step.due for step in self.steps]
        times += [each for each in (self.supervisor.children.next_deadline(), self.supervisor.next_retry()) if each]
        if now < self.database_due:
            times = [self.database_due]
        if self.quiescing is not None:
            times.append(self.quiescing)
        if watchdog := systemd.watchdog_seconds():
            times.append(now + watchdog)
        if self.strategy.waits() and self.strategy.ready:
            times.append(now + 0.05)
        return max(0.0, min(times, default=now + 1.0) - now)

    def _record(self) -> None:
        """Everything that needs the database."""
        if self.known_spid != self.database.backend_pid:
            rows.write_server(self.database, self.server_id, None)
            self.known_spid = self.database.backend_pid
        if self.supervisor.record_deaths():
            self.sync_wanted = True
        if self.config_wanted and self.quiescing is None:
            self.config_wanted = False
            self._load_settings()
            self._monitor_roles()
        retry = self.supervisor.next_retry()
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self.sync_wanted = True
        self._retry_at = retry
        if self.sync_wanted:
            self.sync_wanted = False
            self.supervisor.sync(self.zone_id, self.active_roles)
        self._run_steps()

    _retry_at: float | None = None

    def _run_steps(self) -> None:
        for step in self.steps:
            now = time.monotonic()
            if now >= step.due and self.quiescing is None:
                step.due = now + step.seconds()
                self._guarded(step)

    def _guarded(self, step: Step) -> None:
        """One of the three borders that catch everything: a step that fails is logged, the others go on."""
        try:
            step.act()
        except (psycopg.OperationalError, DBAPIError):
            step.due = 0.0
            raise
        except Exception as error:
            log.error("MIQ(MiqServer#monitor) step %s: %s", step.name, error, exc_info=True)

    def _with_database(self, act: Callable[[], None]) -> None:
        """Do it if the database is there; else note when to try again, and have the embedded one restarted."""
        if time.monotonic() < self.database_due:
            return
        try:
            act()
            self.database_pause = 0.1
        except (psycopg.OperationalError, DBAPIError) as error:
            log.error("MIQ(MiqServer#monitor) the database is away: %s", str(error).strip().splitlines()[0])
            self.sync_wanted = True
            self.database.close()
            self._unwatch_database()
            self.database_due = time.monotonic() + self.database_pause
            self.database_pause = min(5.0, self.database_pause * 2)
            self._rescue_database()

    def _rescue_database(self) -> None:
        """A restart with crash recovery takes its time, so it has a thread of its own."""
        if self.embedded is None or (self._rescue and self._rescue.is_alive()):
            return
        self._rescue = threading.Thread(target=self._ensure_postgres, name="rescue", daemon=True)
        self._rescue.start()

    def _ensure_postgres(self) -> None:
        assert self.embedded is not None
        try:
            self.embedded.ensure_running()
        except Exception as error:  # a thread's end must not be silent
            log.error("MIQ(MiqServer#rescue) PostgreSQL does not start: %s", error)

    # -- events --------------------------------------------------------------------------------------------------------

    def _on_wake(self) -> None:
        self._wake_r.recv(4096)

    def _take_signals(self) -> None:
        while self.signals:
            number = self.signals.pop(0)
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self.config_wanted = True
            elif number == signal.SIGINT and self.quiescing is not None:
                self._kill_all()
            else:
                self._quiesce(signal.Signals(number).name)

    def _reap(self) -> None:
        """Every child that ended: workers, the mold, and orphans that we adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.strategy.mold_pid:
                self._mold_died(status)
            else:
                self.supervisor.died(pid, status)

    def _mold_died(self, status: int) -> None:
        log.error("MIQ(MiqServer#mold) the mold died (%s), starting another", os.waitstatus_to_exitcode(status))
        self.selector.unregister(self._mold_wire)
        self.strategy.mold_died(status)
        if self.exit_code is None and self.quiescing is None:
            self._exec_mold()

    def _on_mold(self) -> None:
        while message := self.strategy.hear_mold():
            if message["kind"] == "ready":
                log.info("MIQ(MiqServer#mold) ready in %.2f s", message["seconds"])
                for name, error in message["broken"].items():
                    log.error("MIQ(MiqServer#mold) %s does not import: %s", name, error)
            elif message["kind"] == "failed":
                self.supervisor.lost(message["guid"], f"fork failed: {message['error']}")

    def _watch(self, channel: Channel, child: Child) -> None:
        self.selector.register(channel, selectors.EVENT_READ, lambda: self.supervisor.heard(child))

    def _unwatch(self, channel: Channel) -> None:
        try:
            self.selector.unregister(channel)
        except (KeyError, ValueError):
            return

    _database_key: int | None = None

    def _watch_database(self) -> None:
        """Keep the current connection's socket in the selector."""
        if time.monotonic() < self.database_due:
            return
        connection = self.database.current
        fileno = connection.fileno() if connection is not None else None
        if fileno != self._database_key:
            self._unwatch_database()
            if fileno is not None:
                self.selector.register(
                    fileno, selectors.EVENT_READ, lambda: self._with_database(self.database.take_notifications)
                )
            self._database_key = fileno

    def _unwatch_database(self) -> None:
        if self._database_key is not None:
            try:
                self.selector.unregister(self._database_key)
            except (KeyError, ValueError):
                log.debug("MIQ(MiqServer) the database's socket was gone already")
            self._database_key = None

    def _want_sync(self) -> None:
        self.sync_wanted = True

    def _want_config(self) -> None:
        self.config_wanted = True

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _load_settings(self) -> None:
        self.settings = settings_loader.load(
            self.database, self.home, region_id=self.region_id, zone_id=self.zone_id, server_id=self.server_id
        )
        self.supervisor.settings = self.settings
        self.sync_wanted = True

    def _heartbeat(self) -> None:
        rows.write_server(self.database, self.server_id, process.info(os.getpid()))

    def _monitor_roles(self) -> None:
        """Assigned roles as the settings say; as the master, activate everybody's."""
        with self.database.session() as session:
            roles.assign(session, self.server_id, self.settings.names("server.role"))
            if roles.become_master(session, self.server_id, self.settings.number("server.heartbeat_timeout")):
                roles.activate(session)
        self._read_roles()

    def _read_roles(self) -> None:
        with self.database.session() as session:
            now = roles.active_roles(session, self.server_id)
        if now != self.active_roles:
            log.info("MIQ(MiqServer#monitor_active_roles) active roles: %s", ":".join(now))
            self.active_roles = now
            self.sync_wanted = True

    def _monitor_workers(self) -> None:
        self.supervisor.look_at_all()
        self.supervisor.sync(self.zone_id, self.active_roles)

    def _log_health(self) -> None:
        counts = self.database.run(
            "SELECT state, coalesce(zone, 'any'), coalesce(role, 'none'), count(*) FROM miq_queue GROUP BY 1, 2, 3"
        ).fetchall()
        log.info("MIQ(MiqServer#log_status) MiqQueue count by state, zone and role: %s", counts)
        log.info(
            "MIQ(MiqServer#log_active_servers) MiqServer: local=Y, status= started, id=%s, workers=%s, active roles=%s",
            self.server_id,
            len(self.supervisor.children),
            ":".join(self.active_roles),
        )

    # -- stop ----------------------------------------------------------------------------------------------------------

    def _quiesce(self, reason: str) -> None:
        """First SIGINT or SIGTERM: no new work, workers finish what they have in hand, then exit 0."""
        if self.quiescing is not None:
            return
        limit = self.settings.number("server.quiesce_timeout")
        self.quiescing = time.monotonic() + limit
        self.supervisor.accepting = False
        log.info("MIQ(MiqServer#shutdown) %s: stopping %s workers", reason, len(self.supervisor.children))
        systemd.notify("STOPPING=1")
        self._with_database(self._record_quiesce)
        for child in self.supervisor.children:
            self._with_database(lambda child=child: self.supervisor.stop(child, "server quiesce", self.quiescing))  # type: ignore[misc]
            if child.status != WorkerStatus.STOPPING:
                self.supervisor.children.stopping(child, "server quiesce", self.quiescing)
                if child.pid is not None:
                    self.strategy.terminate(child.pid)

    def _record_quiesce(self) -> None:
        self._set_status(ServerStatus.QUIESCE)
        with self.database.session() as session:
            roles.deactivate(session, self.server_id)

    def _kill_all(self) -> None:
        """A second SIGINT: at once."""
        for child in self.supervisor.children:
            self.supervisor.kill(child)
        end = time.monotonic() + REAP_LIMIT
        while len(self.supervisor.children) and time.monotonic() < end:
            self._reap()
            time.sleep(0.005)
        self._with_database(self._record_deaths_only)
        self._with_database(lambda: self._set_status(ServerStatus.KILLED, stopped_on=utc(), is_master=False))
        self.exit_code = EXIT_KILLED

    def _record_deaths_only(self) -> None:
        self.supervisor.record_deaths()

    def _finish_quiesce(self) -> None:
        if len(self.supervisor.children):
            return
        if self.supervisor.ended and self.quiescing is not None and time.monotonic() < self.quiescing:
            return
        self._with_database(lambda: self._set_status(ServerStatus.STOPPED, stopped_on=utc(), is_master=False))
        log.info("MIQ(MiqServer#shutdown) stopped")
        self.exit_code = EXIT_CLEAN

    def _close(self) -> None:
        if hasattr(self, "strategy"):
            self.strategy.stop_mold()
        signal.set_wakeup_fd(-1)
        self.selector.close()
        self.database.close()
