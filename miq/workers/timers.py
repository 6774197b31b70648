"""The timers of the schedule worker: what is asked for how often, and when each is due next.

In: settings (`workers.worker_base.schedule_worker` and what they name), with the modelled system's keys; 0 switches a
timer off. Out: `Timer`s, whose jobs put messages, one of a kind waiting at most; and an `Agenda`, which knows when each
is due. Intervals go by the monotonic clock, cron lines by the wall clock in UTC. Timers of a role run only where the
role is active, so each runs once per region or zone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from cronsim import CronSim, CronSimError
from sqlalchemy.orm import Session

from miq import plugins
from miq.clock import utc
from miq.errors import SettingsError
from miq.models import Priority
from miq.models.worker_types import MiqScheduleWorker
from miq.queue.message import Message
from miq.queue.put import CALL_AND_ARGS, put_unless_exists
from miq.session import run_in
from miq.settings import Settings

log = logging.getLogger(__name__)

SCHEDULER = "scheduler"
DATABASE_OPERATIONS = "database_operations"
#: seconds that a REINDEX or VACUUM may take
MAINTENANCE_TIMEOUT = 3600

Job = Callable[[Session], object]

#: a message of the schedule: for any zone and a bit before what is usual
_message = partial(Message, zone=None, priority=Priority.MEDIUM)


@dataclass(frozen=True)
class Timer:
    """Do `job` every so many seconds, or by a cron line, where `role` is active (None: on every server).

    It is due first after one interval, as in the modelled system, or after `first` seconds.
    """

    name: str
    every: float | str
    job: Job
    role: str | None = SCHEDULER
    first: float | None = None


@dataclass(frozen=True)
class Put:
    """The job of most timers: put a message, or one for each zone, unless an equal one waits."""

    message: Message
    each_zone: bool = False

    def __call__(self, session: Session) -> None:
        zones = _zones(session) if self.each_zone else [self.message.zone]
        for zone in zones:
            put_unless_exists(session, replace(self.message, zone=zone), match=CALL_AND_ARGS)


def _zones(session: Session) -> list[str]:
    """Every zone but that for maintenance, for which nothing may be put."""
    found = run_in(
        session,
        "SELECT name FROM zones WHERE name IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM miq_regions WHERE maintenance_zone_id = zones.id) ORDER BY id",
    )
    return [row[0] for row in found]


def next_by_cron(line: str, after: datetime) -> datetime:
    """When a cron line is due next, in naive UTC. Raises SettingsError."""
    try:
        return next(CronSim(line, after))
    except (CronSimError, StopIteration):
        raise SettingsError(f"{line!r} is no cron line: write five fields, such as 0 2 * * 6") from None


# -- the table (reference 6.2) -----------------------------------------------------------------------------------------


def system_timers(settings: Settings, zone: str) -> Iterator[Timer]:
    """The timers of a server in `zone`, whatever its roles. Those with an interval are named by its setting."""

    def put(class_name: str, method_name: str, *args: object) -> Put:
        return Put(_message(class_name, method_name, args))

    check = _message("ExtManagementSystem", "authentication_check_schedule", priority=Priority.HIGH)
    jobs = {
        "queue_timeout_interval": put("MiqQueue", "check_for_timeout"),
        "task_timeout_check_frequency": put("MiqTask", "update_status_for_timed_out_active_tasks"),
        "task_purge_interval": put("MiqTask", "purge_timer"),
        "failed_messages_purge_interval": put("MiqQueue", "purge_timer", settings.number("retention.failed_messages")),
        "worker_exits_purge_interval": put("MiqWorkerExit", "purge_timer", settings.number("retention.worker_exits")),
        "authentication_check_interval": Put(check, each_zone=True),
    }
    for name, job in jobs.items():
        every = settings.worker_number(MiqScheduleWorker.settings_path, name)
        yield Timer(name, every, job, first=60.0 if name == "task_timeout_check_frequency" else None)
    yield from _refresh_timers(settings, zone)
    yield from _maintenance_timers(settings)


def _refresh_timers(settings: Settings, zone: str) -> Iterator[Timer]:
    """One per class of managers. The message asks for every manager of the class, so one zone is enough."""
    for manager in plugins.manager_types().values():
        path = f"ems_refresh.{manager.ems_type}.refresh_interval"
        seconds = settings.number(path, settings.number("ems_refresh.refresh_interval"))
        if manager.inventory is not None:
            message = _message("ExtManagementSystem", "refresh_all_ems_timer", [manager.type], zone=zone)
            yield Timer(f"refresh_{manager.ems_type}", seconds, Put(message))


def _maintenance_timers(settings: Settings) -> Iterator[Timer]:
    """One per table and verb, named by the table's class."""
    for verb in ("reindex", "vacuum"):
        line = str(settings.get(f"database.maintenance.{verb}_schedule"))
        for class_name in settings.names(f"database.maintenance.{verb}_tables"):
            message = _message(class_name, verb, role=DATABASE_OPERATIONS, msg_timeout=MAINTENANCE_TIMEOUT)
            yield Timer(f"{verb}_{class_name}", line, Put(message), DATABASE_OPERATIONS)


# -- when they are due -------------------------------------------------------------------------------------------------


@dataclass
class _Entry:
    timer: Timer
    #: by the monotonic clock for an interval, in UTC for a cron line
    due: float | datetime


class Agenda:
    """The timers that run, and when each is due next."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, now: Callable[[], datetime] = utc) -> None:
        self._monotonic = monotonic
        self._now = now
        self._entries: dict[str, _Entry] = {}

    def replace(self, timers: Iterable[Timer]) -> None:
        """Run these from now on. What ran already stays due when it was, or sooner if its interval is shorter now.

        A cron line that cannot be read is named in the log, and its timer does not run.
        """
        before, self._entries = self._entries, {}
        for timer in timers:
            if not timer.every:
                continue
            try:
                due = self._first(timer, before.get(timer.name))
            except SettingsError as error:
                log.error("MIQ(Agenda#replace) timer [%s] does not run: %s", timer.name, error)
                continue
            self._entries[timer.name] = _Entry(timer, due)

    def _first(self, timer: Timer, before: _Entry | None) -> float | datetime:
        if isinstance(timer.every, str):
            same = before is not None and before.timer.every == timer.every
            return before.due if before is not None and same else next_by_cron(timer.every, self._now())
        if before is not None and isinstance(before.due, float):
            return min(before.due, self._monotonic() + timer.every)
        return self._monotonic() + min(timer.every, timer.every if timer.first is None else timer.first)

    def due(self) -> list[Timer]:
        """Those whose time has come; each stays due until it is told to have run."""
        return [entry.timer for entry in self._entries.values() if self._left(entry) <= 0]

    def has_run(self, timer: Timer) -> None:
        """It is due again after one more interval."""
        if isinstance(timer.every, str):
            self._entries[timer.name].due = next_by_cron(timer.every, self._now())
        else:
            self._entries[timer.name].due = self._monotonic() + timer.every

    def seconds_left(self) -> float | None:
        """Until the next one is due; None when there is none."""
        return min((self._left(entry) for entry in self._entries.values()), default=None)

    def _left(self, entry: _Entry) -> float:
        if isinstance(entry.due, datetime):
            return (entry.due - self._now()).total_seconds()
        return entry.due - self._monotonic()
