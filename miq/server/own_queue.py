"""The server's own queue: words to this server, taken and done inside its process.

In: messages on `miq_server` for this server's guid, or for any. They are few and short (`miq.queue.server_words`); no
flow is imported, so anything else ends as `error`. What an earlier run left is cleared at the start: a server that was
told to stop, and stopped, is not to stop again.
"""

from __future__ import annotations

import logging
import os
import signal

from miq.db import Database
from miq.errors import ExitNow
from miq.queue import server_words
from miq.queue.batch import Batch
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery
from miq.queue.statements import statement
from miq.queue.sweep import Death, sweep
from miq.server.enrolment import Identity
from miq.server.monitor import Monitor

log = logging.getLogger(__name__)

#: messages taken at once
LIMIT = 20


class OwnQueue:
    """Takes and does what stands on `miq_server`."""

    def __init__(self, database: Database, identity: Identity, monitor: Monitor) -> None:
        self.database = database
        self.identity = identity
        self.monitor = monitor
        self.handler = Handler("MiqServer", identity.server_id)
        self.batch = Batch(Delivery(database, self.handler, info={"server": self}), lambda: False)
        self._broken_off = False

    def clear(self) -> None:
        """At the start: what an earlier run of this server held ends as `error`, its words to stop are forgotten."""
        with self.database.transaction() as connection:
            connection.execute(
                statement("forget_shutdowns"), {"guid": self.identity.guid, "handler_id": self.handler.id}
            )
            sweep(connection, Death(self.handler.kind, self.handler.id, None, "its server died", counts=False))

    def drain(self) -> None:
        """Take and do until nothing is left. Raises OperationalError when the database went away."""
        route = Route(server_words.QUEUE, self.identity.zone, self.monitor.active_roles, self.identity.guid)
        if self._broken_off:
            self.batch.recover()
        self._broken_off = True
        try:
            while taken := claim(self.database, self.handler, route, limit=LIMIT):
                self.batch.work(taken)
        except ExitNow as late:
            log.error("MIQ(MiqServer#process_miq_queue) %s", late)
        self._broken_off = False

    # -- the words -----------------------------------------------------------------------------------------------------

    def shutdown_and_exit(self) -> None:
        """Our own SIGTERM: the loop sees it when this message has ended."""
        os.kill(os.getpid(), signal.SIGTERM)

    def reload_settings(self) -> None:
        """Our own SIGHUP."""
        os.kill(os.getpid(), signal.SIGHUP)

    def status_update(self) -> None:
        """Heartbeat and process info."""
        self.monitor.heartbeat()

    def log_status(self) -> None:
        """The lines of health."""
        self.monitor.log_health()
