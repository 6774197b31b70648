"""ScheduleWorker: turns timers into messages, one of a kind waiting at most.

Timers of a role run only where the role is active, so each runs once per region or zone. Every timer fires first
after one whole interval, as in the modelled system; what has to happen at start is asked for by whom it concerns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from miq import plugins
from miq.channel import Channel
from miq.launch import Launch
from miq.models import Priority
from miq.queue.put import Message, put_unless_exists
from miq.workers.worker_base import WorkerBase


@dataclass(frozen=True)
class Timer:
    """Put `message` every `seconds` where `role` is active (None: on every server)."""

    name: str
    seconds: float
    role: str | None
    message: Message


class ScheduleWorker(WorkerBase):
    """The timers of one server."""

    def __init__(self, launch: Launch, channel: Channel | None = None) -> None:
        super().__init__(launch, channel)
        self.timers: dict[str, Timer] = {}
        self._due: dict[str, float] = {}

    def config_loaded(self) -> None:
        timers = [timer for timer in self._timers() if timer.role is None or timer.role in self.place.active_roles]
        now = time.monotonic()
        self.timers = {timer.name: timer for timer in timers}
        self._due = {
            name: min(self._due.get(name, now + timer.seconds), now + timer.seconds)
            for name, timer in self.timers.items()
        }

    def _timers(self) -> list[Timer]:
        purge = self.settings.number("schedule.purge_interval")
        keep_failed = self.settings.number("retention.failed_messages")
        keep_exits = self.settings.number("retention.worker_exits")
        return [
            Timer("purge_failed", purge, "scheduler", _message("MiqQueue", "purge_timer", [keep_failed])),
            Timer("purge_exits", purge, "scheduler", _message("MiqWorkerExit", "purge_timer", [keep_exits])),
            *self._refresh_timers(),
        ]

    def _refresh_timers(self) -> list[Timer]:
        """One per class of managers; an interval of 0 means none (reference 6.2)."""
        timers = []
        for manager in plugins.manager_types().values():
            path = f"ems_refresh.{manager.ems_type}.refresh_interval"
            seconds = self.settings.number(path, self.settings.number("ems_refresh.refresh_interval"))
            if seconds > 0 and manager.inventory is not None:
                message = _message("ExtManagementSystem", "refresh_all_ems_timer", [manager.type], zone=self.place.zone)
                timers.append(Timer(f"refresh_{manager.ems_type}", seconds, "scheduler", message))
        return timers

    def do_work(self) -> bool:
        now = time.monotonic()
        for name, timer in self.timers.items():
            if self._due[name] <= now:
                with self.database.session() as session:
                    put_unless_exists(session, timer.message)
                self._due[name] = now + timer.seconds
        return False

    def idle_seconds(self) -> float:
        soonest = min(self._due.values(), default=time.monotonic() + 60.0)
        return max(0.05, min(self.number("poll"), soonest - time.monotonic()))


def _message(class_name: str, method_name: str, args: list[object], zone: str | None = None) -> Message:
    return Message(class_name, method_name, args, zone=zone, priority=Priority.MEDIUM)
