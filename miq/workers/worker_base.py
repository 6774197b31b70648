"""WorkerBase: what every worker process does: start, heartbeat, work, wait, exit.

In: a `Launch` and, when a server supervises it, a channel. Out: an exit code, and the statuses that a worker writes
into its own row: starting, started, stopped or aborted. A worker that loses the database lives on, beats on, and
comes back; one that is asked to stop finishes the message in hand and takes no new one. Subclasses say what one pass
of work is.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from sqlalchemy.exc import DBAPIError

from miq import names, paths, process, settings_loader, systemd
from miq.channel import Channel, Slot
from miq.clock import utc
from miq.db import Database, move, worth_waiting
from miq.errors import ExitNow, MiqError, SettingsError
from miq.launch import Launch, Place, find_place
from miq.models import MiqWorker, WorkerStatus
from miq.models.miq_worker import WORKER_MOVES
from miq.models.worker_types import WorkerType
from miq.settings import Settings
from miq.workers.wires import Wires

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RECONNECT = (0.1, 5.0)


class WorkerBase:
    """One running worker; finds its own row by guid, and its type by its launch."""

    def __init__(self, launch: Launch, channel: Channel | None = None) -> None:
        self.launch = launch
        self.wires = Wires(channel)
        self.home = paths.Home(Path(launch.home))
        self.worker_type: type[WorkerType] = launch.worker_type
        self.ems_id = launch.ems_id
        self.database = Database(launch.dsn, "MIQ", connect_timeout=5)
        self.settings = settings_loader.defaults()
        self.slot = Slot(self.home.slots / launch.guid)
        self.place: Place
        self._config_due: float | None = None
        self._next_beat = 0.0
        self._next_gc = 0.0

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> int:
        """Run until told to stop; the exit code."""
        code, reason = 0, ""
        try:
            self.wires.catch_signals()
            self._prepare()
            self._with_database(self.before_work)
            self._loop()
            reason = self.wires.stop_reason or "done"
        except ExitNow as leave:
            code, reason = leave.code, leave.reason
        except MiqError as error:
            code, reason = 1, str(error)
            log.error("MIQ(%s#start) %s", type(self).__name__, error)
        except Exception as error:
            code, reason = 1, f"{type(error).__name__}: {error}"
            log.error("MIQ(%s#start) %s", type(self).__name__, reason, exc_info=True)
        self._leave(code, reason)
        return code

    def _prepare(self) -> None:
        self.place = self.launch.place or self._with_database(lambda: find_place(self.database, self.launch.guid))
        self.database.application_name = self.place.application_name(os.getpid(), self.worker_type.name)
        self.database.close()
        self._with_database(self._write_starting)
        process.set_title(self.title())
        if self.launch.settings is None:
            self._load_config()
        else:
            self.settings = Settings(self.launch.settings)
            self.config_loaded()
        self.after_initialize()
        self.database.listen("miq_config", self._config_changed)
        self._set_status(WorkerStatus.STARTED)
        self.wires.tell("started")
        systemd.notify("READY=1")
        log.info("MIQ(%s#start) %s", type(self).__name__, self.describe())

    def _write_starting(self) -> None:
        pid = os.getpid()
        self._set_status(WorkerStatus.STARTING, started_on=utc(), pid=pid, pid_start=process.start_time(pid))

    def _set_status(self, status: WorkerStatus, **values: Any) -> None:  # noqa: ANN401 - columns of the row
        move(
            self.database,
            "miq_workers",
            self.place.worker_id,
            status,
            WORKER_MOVES,
            last_heartbeat=utc(),
            sql_spid=self.database.backend_pid,
            **values,
        )

    def title(self) -> str:
        """The process title; `MIQ:` is what marks a worker."""
        name = names.short(self.worker_type.name)
        return f"MIQ: {name} id: {self.place.worker_id}, queue: {self.launch.queue_name or ''}"

    def describe(self) -> str:
        """The worker as log lines name it."""
        return (
            f"Worker [{self.worker_type.name}] with ID: [{self.place.worker_id}], PID: [{os.getpid()}],"
            f" GUID: [{self.launch.guid}]"
        )

    def row(self) -> MiqWorker | None:
        """This worker's own row, as it is now; None when the server gave it up."""
        with self.database.session() as session:
            return session.get(MiqWorker, self.place.worker_id, populate_existing=True)

    def _leave(self, code: int, reason: str) -> None:
        log.info("MIQ(%s#do_exit) %s, exit code %s", type(self).__name__, reason, code)
        self.wires.tell("exiting", reason=reason[:1000])
        systemd.notify("STOPPING=1")
        status = WorkerStatus.ABORTED if code else WorkerStatus.STOPPED
        try:
            self.leaving()
            self._set_status(status, stopped_on=utc())
        except (psycopg.Error, DBAPIError, MiqError, AttributeError) as error:
            log.info("MIQ(%s#do_exit) status %s not written: %s", type(self).__name__, status, error)
        self.database.close()

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def after_initialize(self) -> None:
        """Called between `starting` and `started`."""

    def before_work(self) -> None:
        """Called once, between `started` and the loop."""

    def do_work(self) -> bool:
        """One pass; True when there may be more at once. Raises psycopg.OperationalError when the database is away."""
        raise NotImplementedError

    def idle_seconds(self) -> float:
        """How long to wait when a pass found nothing."""
        return self.number("poll")

    def config_loaded(self) -> None:
        """Called whenever settings and roles were read."""

    def leaving(self) -> None:
        """Called before the last status is written, if the database is there. Raises what that may raise."""

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while self.wires.stop_reason is None:
            self.heartbeat()
            self._collect_garbage()
            try:
                self._pass()
            except (psycopg.OperationalError, DBAPIError) as error:
                if not worth_waiting(error):
                    raise
                log.warning("MIQ(%s) the database went away: %s", type(self).__name__, error)
                self._with_database(self._reconnected)

    def _pass(self) -> None:
        if self._config_due is not None and time.monotonic() >= self._config_due:
            self._reload_config()
        more = self.do_work()
        if self.launch.once:
            self.wires.ask_to_stop("ran once")
        elif not more and self.wires.stop_reason is None:
            self.wait(self.idle_seconds())

    def wait(self, seconds: float) -> None:
        """Sleep until something happens: a notification, a signal, a word of the server; beats go on meanwhile."""
        end = time.monotonic() + seconds
        while self.wires.stop_reason is None and not self._woken():
            left = end - time.monotonic()
            if left <= 0:
                return
            if self._config_due is not None:
                left = min(left, max(0.0, self._config_due - time.monotonic()))
            self.wires.wait(min(left, max(0.01, self._next_beat - time.monotonic())), self.database)
            self.heartbeat()
            if self._config_due is not None and time.monotonic() >= self._config_due:
                return

    def _woken(self) -> bool:
        """Whether work was announced since the last pass."""
        return False

    def stop_requested(self) -> bool:
        """Whether this worker is to stop; long work asks between its pages, and beats."""
        self.heartbeat()
        self.wires.wait(0)
        return self.wires.stop_reason is not None

    def heartbeat(self) -> None:
        """Say that we live, at most every `heartbeat_freq` seconds."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + self.number("heartbeat_freq")
        self.wires.tell("heartbeat")
        if self.launch.heartbeat:
            systemd.notify("WATCHDOG=1")
            beat = Path(os.environ.get("WORKER_HEARTBEAT_FILE") or self.home.path / "run" / f"{self.launch.guid}.hb")
            beat.write_text(str(int(time.time() + self.number("heartbeat_timeout"))))

    def _collect_garbage(self) -> None:
        now = time.monotonic()
        if self._next_gc and now >= self._next_gc:
            gc.collect()
        if now >= self._next_gc:
            self._next_gc = now + max(60.0, self.number("gc_interval"))

    # -- the database --------------------------------------------------------------------------------------------------

    def _with_database(self, act: Callable[[], Result]) -> Result:
        """Do it as soon as the database is there; waits with a back-off, beats on, and leaves when asked to."""
        pause = RECONNECT[0]
        while True:
            try:
                return act()
            except (psycopg.OperationalError, DBAPIError) as error:
                if not worth_waiting(error):
                    raise
                log.warning("MIQ(%s) the database is away, next try in %.1f s: %s", type(self).__name__, pause, error)
            self.database.close()
            self.heartbeat()
            self._pause(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the return of many workers
            pause = min(RECONNECT[1], pause * 2)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.wires.wait(min(left, 1.0))
            if self.wires.stop_reason is not None:
                raise ExitNow(0, self.wires.stop_reason)
            self.heartbeat()

    def _reconnected(self) -> None:
        """The first statements on a new connection: tell our backend's pid, and read what nobody could announce."""
        self._config_changed()
        self.database.run(
            "UPDATE miq_workers SET sql_spid = %(spid)s WHERE id = %(id)s",
            {"spid": self.database.backend_pid, "id": self.place.worker_id},
        )

    # -- settings ------------------------------------------------------------------------------------------------------

    def number(self, key: str) -> float:
        """One of this worker type's settings."""
        return self.settings.worker_number(self.worker_type.settings_path, key)

    def _config_changed(self, payload: str = "") -> None:
        """Every worker hears the change at once; they read it spread over a second."""
        if self._config_due is None:
            self._config_due = time.monotonic() + random.uniform(0.0, 1.0)  # noqa: S311 - not a secret

    def _reload_config(self) -> None:
        """Settings changed while we run: garbage is named in the log, and what was in force stays in force."""
        try:
            self._load_config()
        except SettingsError as error:
            log.error("MIQ(%s#reload_config) not taken over: %s", type(self).__name__, error)

    def _load_config(self) -> None:
        self._config_due = None
        self.place = find_place(self.database, self.launch.guid)
        self.settings = settings_loader.load(
            self.database,
            self.home,
            region_id=self.place.region_id,
            zone_id=self.place.zone_id,
            server_id=self.place.server_id,
        )
        self.config_loaded()
