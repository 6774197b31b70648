"""ScheduleWorker: turns time into messages, one of a kind waiting at most.

What has to happen on every server or once per region (`timers`), and what users have scheduled (`timetable`), which is
the work of the one server with the role scheduler. It sleeps until the next of them is due, at most `poll` seconds, and
hears of changed schedules and settings at once. What happens in the worker itself is one thing only: the warning about
messages that nobody can take, which no message could carry.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from sqlalchemy.orm import Session

from miq.channel import Channel
from miq.clock import utc
from miq.db import connection_lost, database_of
from miq.errors import MiqError
from miq.launch import Launch
from miq.queue import schedules
from miq.queue.routes import orphans
from miq.workers.orphan_watch import OrphanWatch
from miq.workers.timers import SCHEDULER, Agenda, Job, Timer, system_timers
from miq.workers.timetable import Timetable
from miq.workers.worker_base import WorkerBase

log = logging.getLogger(__name__)


class ScheduleWorker(WorkerBase):
    """The timers of one server."""

    def __init__(self, launch: Launch, channel: Channel | None = None) -> None:
        super().__init__(launch, channel)
        self.agenda = Agenda()
        self.timetable = Timetable()
        self._orphan_watch = OrphanWatch()
        self._schedules_changed = True

    @property
    def roles(self) -> frozenset[str]:
        """The roles that this worker acts under."""
        return frozenset(self.launch.roles or self.place.active_roles)

    def config_loaded(self) -> None:
        timers = [
            Timer("orphan_check_interval", self.number("orphan_check_interval"), self._warn_of_orphans, role=None),
            *system_timers(self.settings, self.place.zone),
        ]
        self.agenda.replace(timer for timer in timers if timer.role is None or timer.role in self.roles)
        self._schedules_changed = True

    def after_initialize(self) -> None:
        self.database.listen("miq_schedules", self._hear_of_schedules)

    def _hear_of_schedules(self, payload: str = "") -> None:
        self._schedules_changed = True

    def _woken(self) -> bool:
        return self._schedules_changed

    def do_work(self) -> bool:
        if self._schedules_changed:
            self._load_schedules()
        for timer in self.agenda.due():
            self._attempt(timer.name, timer.job)
            self.agenda.has_run(timer)
        for entry in self.timetable.due(utc()):
            assert entry.due is not None
            self._attempt(entry.schedule.name, partial(schedules.fire, schedule=entry.schedule, at=entry.due))
            self.timetable.fired(entry, utc())
        return False

    def _load_schedules(self) -> None:
        self._schedules_changed = False  # first: what changes while we read is heard while we read
        rows = schedules.enabled_rows(self.database) if SCHEDULER in self.roles else []
        self.timetable.replace(rows, utc())

    def _attempt(self, name: str, job: Job) -> None:
        """One job; what is wrong with it does not keep the others from running. Raises when the database is lost."""
        try:
            with self.database.session() as session:
                session.info["zone"] = self.place.zone
                job(session)
        except Exception as error:
            if connection_lost(error):
                raise
            known = isinstance(error, MiqError)
            log.error("MIQ(ScheduleWorker#do_work) job [%s]: %s", name, error, exc_info=None if known else error)

    def _warn_of_orphans(self, session: Session) -> None:
        for line in self._orphan_watch.lines(orphans(database_of(session)), time.monotonic()):
            log.warning("%s", line)

    def idle_seconds(self) -> float:
        left = (self.number("poll"), self.agenda.seconds_left(), self.timetable.seconds_left(utc()))
        return max(0.0, min(seconds for seconds in left if seconds is not None))

    def _reconnected(self) -> None:
        super()._reconnected()
        self._schedules_changed = True
