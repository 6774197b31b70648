"""The server process: start, one loop, stop.

One `select` loop waits for signals, the mold, the workers' channels, notifications of the database and the next timer;
nothing in it waits longer than a statement's time-out. A dead worker is noticed by SIGCHLD and replaced at once; the
full pass of the monitor runs every `worker_monitor_frequency` seconds. While the database is away, supervision goes on
from memory.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from types import FrameType

from miq import __version__, process, systemd
from miq.channel import Channel
from miq.db import Database
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.schema import check_schema
from miq.server import enrolment, leftovers, rows
from miq.server.children import Child
from miq.server.database_link import DatabaseLink
from miq.server.monitor import Monitor, Step
from miq.server.own_queue import OwnQueue
from miq.server.pid_file import PidFile
from miq.server.strategy.process import ProcessStrategy
from miq.server.supervisor import Supervisor

log = logging.getLogger(__name__)

EXIT_CLEAN, EXIT_KILLED = 0, 1

STATEMENT_TIMEOUT, LOCK_TIMEOUT = 10.0, 5.0
#: seconds that killed workers are waited for
REAP_LIMIT = 3.0


class EvmServer:
    """One appliance's server."""

    def __init__(self, home: Home, dsn: str, embedded: EmbeddedPostgres | None) -> None:
        self.home = home
        self.database = Database(
            dsn, "MIQ", connect_timeout=2, statement_timeout=STATEMENT_TIMEOUT, lock_timeout=LOCK_TIMEOUT
        )
        self.selector = selectors.DefaultSelector()
        self.link = DatabaseLink(self.database, embedded, self.selector)
        self.signals: list[int] = []
        self.exit_code: int | None = None
        #: when workers that are still there are killed; None as long as the server is not asked to stop
        self.quiescing: float | None = None
        self.sync_wanted = True
        self.config_wanted = False
        self._retry_at: float | None = None

    # -- start ---------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; the exit code. Raises UsageError when it cannot start."""
        pid_file = PidFile(self.home.pid_file)
        pid_file.take()
        try:
            self._catch_signals()
            check_schema(self.database)
            self._start()
            while self.exit_code is None:
                self._turn()
            return self.exit_code
        finally:
            self._close()
            pid_file.release()

    def _catch_signals(self) -> None:
        """Handlers only append to a list and wake the loop."""
        self._wake_r, self._wake_w = socket.socketpair()
        for each in (self._wake_r, self._wake_w):
            each.setblocking(False)
        signal.set_wakeup_fd(self._wake_w.fileno(), warn_on_full_buffer=False)

        def note(number: int, frame: FrameType | None) -> None:
            self.signals.append(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, note)
        self.selector.register(self._wake_r, selectors.EVENT_READ, lambda: self._wake_r.recv(4096))

    def _start(self) -> None:
        """Our row, the mold, the supervisor; what an earlier run left is cleared before anything new starts."""
        self.identity, settings = enrolment.enrol(self.database, self.home)
        level = str(settings.get("log.level", "info"))
        env = {**os.environ, "MIQ_HOME": str(self.home.path), "MIQ_LOG_LEVEL": level}
        self.strategy = ProcessStrategy(env, settings.names("server.mold.preload"))
        self._exec_mold()
        process.set_title("MIQ Server")
        self.supervisor = Supervisor(
            self.home, self.database, self.identity.server_id, self.strategy, settings, self._watch, self._unwatch
        )
        self.monitor = Monitor(self.home, self.database, self.identity, self.supervisor)
        own_queue = OwnQueue(self.database, self.identity, self.monitor)
        own_queue.clear()
        self.monitor.steps.append(Step("server_dequeue", "server_dequeue_frequency", own_queue.drain))
        leftovers.clear(self.database, self.home, self.identity.server_id, self.strategy.kill)
        self.supervisor.failures.remember(rows.recent_deaths(self.database, self.identity.server_id))
        self.database.listen("miq_sync", self._want_sync)
        self.database.listen("miq_config", self._want_config)
        self.database.listen("miq_queue:miq_server", lambda payload: self.monitor.due_now("server_dequeue"))
        self.monitor.activate_roles()
        enrolment.started(self.database, self.identity)
        systemd.notify("READY=1")
        log.info(
            "MIQ(MiqServer#start) started, id [%s], guid [%s], version %s",
            self.identity.server_id, self.identity.guid, __version__,
        )  # fmt: skip

    def _exec_mold(self) -> None:
        self._mold_wire = self.strategy.start_mold()
        self.selector.register(self._mold_wire, selectors.EVENT_READ, self._on_mold)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait for the next thing and do it, then whatever is due."""
        self.link.watch()
        for key, _ in self.selector.select(self._timeout()):
            key.data()
        self._take_signals()
        self.supervisor.kill_overdue()
        self.strategy.retry_waiting()
        if not self.link.do(self._with_database):
            self.sync_wanted = self.config_wanted = True  # what is announced while the database is away, nobody hears
        systemd.notify("WATCHDOG=1")
        if self.quiescing is not None and self.exit_code is None:
            self._finish_quiesce()

    def _timeout(self) -> float:
        now = time.monotonic()
        times = [self.supervisor.next_deadline(), self.quiescing]
        if self.link.away:
            times.append(self.link.retry_at)
        elif self.quiescing is None and (self.sync_wanted or self.config_wanted):
            times.append(now)  # heard in the middle of a statement
        else:
            times += [self.monitor.next_due(), self.supervisor.failures.next_retry()]
        if watchdog := systemd.watchdog_seconds():
            times.append(now + watchdog)
        if self.strategy.waits() and self.strategy.ready:
            times.append(now + 0.05)
        return max(0.0, min((each for each in times if each is not None), default=now + 1.0) - now)

    def _with_database(self) -> None:
        """Everything that needs the database; what fails stays wanted."""
        self.monitor.note_backend()
        if self.quiescing is None:
            self._sync_if_wanted()
        # After the replacement was asked for: it is forked while the death is written.
        self.supervisor.record_deaths()
        if self.quiescing is None:
            self.monitor.run_due()

    def _sync_if_wanted(self) -> None:
        if self.config_wanted:
            self.config_wanted = False
            self.monitor.reload()
            self.sync_wanted = True
        retry = self._retry_at is not None and time.monotonic() >= self._retry_at
        if self.sync_wanted or self.supervisor.ended or retry:
            self.sync_wanted = False
            self.monitor.sync()
        self._retry_at = self.supervisor.failures.next_retry()

    # -- events --------------------------------------------------------------------------------------------------------

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
        log.error("MIQ(MiqServer#mold) the mold died (%s)", os.waitstatus_to_exitcode(status))
        self.selector.unregister(self._mold_wire)
        self.strategy.mold_died(status)
        if self.quiescing is None:
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

    def _want_sync(self, payload: str) -> None:
        self.sync_wanted = True

    def _want_config(self, payload: str) -> None:
        self.config_wanted = True

    # -- stop ----------------------------------------------------------------------------------------------------------

    def _quiesce(self, reason: str) -> None:
        """First SIGINT or SIGTERM: no new work, workers finish what they have in hand, then exit 0."""
        if self.quiescing is not None:
            return
        kill_at = self.quiescing = time.monotonic() + self.monitor.settings.number("server.quiesce_timeout")
        log.info("MIQ(MiqServer#shutdown) %s: stopping %s workers", reason, len(self.supervisor.children))
        systemd.notify("STOPPING=1")
        self.link.do(lambda: enrolment.quiescing(self.database, self.identity))
        for child in self.supervisor.children:
            self.supervisor.ask_to_stop(child, "server quiesce", kill_at)
        self.link.do(self._record_stopping)

    def _record_stopping(self) -> None:
        for child in self.supervisor.children:
            self.supervisor.record_stopping(child)

    def _kill_all(self) -> None:
        """A second SIGINT: at once."""
        for child in self.supervisor.children:
            self.supervisor.kill(child)
        end = time.monotonic() + REAP_LIMIT
        while len(self.supervisor.children) and time.monotonic() < end:
            self._reap()
            time.sleep(0.005)
        self._end(killed=True)

    def _finish_quiesce(self) -> None:
        """All workers are gone, and recorded as far as the database lets us within our time."""
        late = self.quiescing is not None and time.monotonic() >= self.quiescing
        if len(self.supervisor.children) or (self.supervisor.ended and not late):
            return
        self._end(killed=False)

    def _end(self, *, killed: bool) -> None:
        self.link.do(self.supervisor.record_deaths)
        self.link.do(lambda: enrolment.ended(self.database, self.identity, killed=killed))
        log.info("MIQ(MiqServer#shutdown) %s", "killed" if killed else "stopped")
        self.exit_code = EXIT_KILLED if killed else EXIT_CLEAN

    def _close(self) -> None:
        if hasattr(self, "strategy"):
            self.strategy.stop_mold()
        signal.set_wakeup_fd(-1)
        self.selector.close()
        self.database.close()
