"""The user schedules that the schedule worker has to fire, and when each runs next.

In: the rows of `miq_schedules` that are enabled, each time somebody changes one (`NOTIFY miq_schedules`). Out: those
that are due. A schedule that did not change keeps its time, one that is gone is forgotten, and one that makes no sense
is named in the log once. Pure, but for the log: rows and times are handed in. All times are naive UTC.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from miq.errors import SettingsError
from miq.queue import schedules
from miq.queue.run_at import next_run
from miq.queue.schedules import Schedule

log = logging.getLogger(__name__)


@dataclass
class Entry:
    """One schedule, and when it runs next; None: never again."""

    schedule: Schedule
    due: datetime | None


class Timetable:
    """What is to be fired when."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._told: dict[int, str] = {}

    def replace(self, rows: Iterable[Mapping[str, Any]], now: datetime) -> None:
        """Fire these from now on; what was missed before `now` is skipped."""
        before, self._entries = self._entries, {}
        told, self._told = self._told, {}
        for row in rows:
            try:
                schedule = schedules.read(row)
            except SettingsError as error:
                self._told[row["id"]] = str(error)
                if told.get(row["id"]) != str(error):
                    log.error("MIQ(MiqSchedule.queue_scheduled_work) not run: %s", error)
                continue
            known = before.get(schedule.id)
            same = known is not None and known.schedule.run_at == schedule.run_at
            due = known.due if known and same else next_run(schedule.run_at, now, schedule.last_run_on)
            self._entries[schedule.id] = Entry(schedule, due)

    def due(self, now: datetime) -> list[Entry]:
        """Those whose time has come, the earliest first; each stays due until it is told to have been fired."""
        found = [entry for entry in self._entries.values() if entry.due is not None and entry.due <= now]
        return sorted(found, key=lambda entry: entry.due or now)

    def fired(self, entry: Entry, now: datetime) -> None:
        """It runs next at its first time after `now`."""
        entry.due = next_run(entry.schedule.run_at, now)

    def seconds_left(self, now: datetime) -> float | None:
        """Until the next one is due; None when there is none."""
        return min(
            ((entry.due - now).total_seconds() for entry in self._entries.values() if entry.due is not None),
            default=None,
        )
