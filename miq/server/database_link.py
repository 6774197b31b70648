"""The server's link to its database: up, or away with a time for the next try.

The loop never waits for a database: what needs one is done when the link is up, and left for a later turn when it is
not. An embedded PostgreSQL that died is restarted by a thread of its own, because crash recovery takes its time.
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
from collections.abc import Callable

import psycopg
from sqlalchemy.exc import DBAPIError

from miq.db import Database, first_line
from miq.postgres import EmbeddedPostgres

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class DatabaseLink:
    """Keeps the connection's socket in the loop's selector, and knows when to try again."""

    def __init__(self, database: Database, embedded: EmbeddedPostgres | None, selector: selectors.BaseSelector) -> None:
        self.database = database
        self.retry_at = 0.0
        self._embedded = embedded
        self._selector = selector
        self._pause = FIRST_PAUSE
        self._watched: int | None = None
        self._rescue: threading.Thread | None = None

    @property
    def away(self) -> bool:
        """Whether it is too early to try again."""
        return time.monotonic() < self.retry_at

    def do(self, act: Callable[[], object]) -> bool:
        """Do it if the database is there; False when it was not, or went away meanwhile."""
        if self.away:
            return False
        try:
            act()
        except (psycopg.OperationalError, DBAPIError) as error:
            self._lost(error)
            return False
        self._pause = FIRST_PAUSE
        return True

    def _lost(self, error: Exception) -> None:
        log.error("MIQ(MiqServer#monitor) the database is away: %s", first_line(error))
        self._unwatch()
        self.database.close()
        self.retry_at = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        if self._embedded is not None and not (self._rescue and self._rescue.is_alive()):
            self._rescue = threading.Thread(target=self._restart, args=(self._embedded,), name="rescue", daemon=True)
            self._rescue.start()

    @staticmethod
    def _restart(embedded: EmbeddedPostgres) -> None:
        try:
            embedded.ensure_running()
        except Exception as error:  # a thread's end must not be silent
            log.error("MIQ(MiqServer#rescue) PostgreSQL does not start: %s", error)

    def watch(self) -> None:
        """Have the loop hear what the current connection is notified of."""
        connection = None if self.away else self.database.current
        fileno = connection.fileno() if connection is not None else None
        if fileno == self._watched:
            return
        self._unwatch()
        if fileno is not None:
            self._selector.register(fileno, selectors.EVENT_READ, self._hear)
            self._watched = fileno

    def _hear(self) -> None:
        self.do(self.database.take_notifications)

    def _unwatch(self) -> None:
        if self._watched is not None:
            try:
                self._selector.unregister(self._watched)
            except (KeyError, ValueError):
                log.debug("MIQ(MiqServer) the database's socket was gone already")
            self._watched = None
