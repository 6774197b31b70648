"""When a schedule runs: the column `miq_schedules.run_at`, and the arithmetic over it.

    {"start_time": "2026-03-01T01:00:00Z", "tz": "Europe/Berlin", "interval": {"unit": "daily", "value": 1}}

Pure: in go texts and naive UTC times, as columns hold them; out come naive UTC times, words, or a SettingsError of one
line. Minutes and hours are absolute time. Days, weeks and months keep the wall clock of the schedule's time zone: a
time that a change of the clocks leaves out moves forward by the gap, of one that comes twice the first is meant. Months
are counted from the start, so that the 31st is the 28th in February and the 31st again in March. What was missed is
skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

from miq.errors import SettingsError


class Unit(StrEnum):
    """`interval.unit`."""

    MINUTELY = "minutely"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    ONCE = "once"


_ABSOLUTE = (Unit.MINUTELY, Unit.HOURLY)
#: of months there is none
_STEPS = {
    Unit.MINUTELY: timedelta(minutes=1),
    Unit.HOURLY: timedelta(hours=1),
    Unit.DAILY: timedelta(days=1),
    Unit.WEEKLY: timedelta(weeks=1),
}
_PLURALS = {
    Unit.MINUTELY: "minutes",
    Unit.HOURLY: "hours",
    Unit.DAILY: "days",
    Unit.WEEKLY: "weeks",
    Unit.MONTHLY: "months",
}
#: longer than any change of the clocks, in some zone or other a whole day
_CHANGE = timedelta(days=2)
_MOST = 10_000
_YEARS = range(1970, 3000)


@dataclass(frozen=True)
class RunAt:
    """`start` is naive UTC; `value` is how many units lie between two runs, 1 for `once`."""

    start: datetime
    tz: ZoneInfo
    unit: Unit
    value: int

    def __str__(self) -> str:
        """As people say it, in the schedule's own time zone."""
        local = self._local_start
        if self.unit == Unit.ONCE:
            return f"once, on {local:%Y-%m-%d %H:%M} {self.tz.key}"
        every = self.unit.value if self.value == 1 else f"every {self.value} {_PLURALS[self.unit]}"
        if self.unit in _ABSOLUTE:
            return f"{every} from {local:%Y-%m-%d %H:%M} {self.tz.key}"
        on = {Unit.WEEKLY: f" on {local:%A}", Unit.MONTHLY: f" on day {local.day}"}.get(self.unit, "")
        return f"{every}{on} at {local:%H:%M} {self.tz.key}"

    def as_json(self) -> str:
        """As the column holds it."""
        interval = {"unit": self.unit.value} | ({} if self.unit == Unit.ONCE else {"value": self.value})
        return json.dumps({"start_time": f"{self.start.isoformat()}Z", "tz": self.tz.key, "interval": interval})

    def nth(self, n: int) -> datetime:
        """The n-th run, 0 being the start; never later than the one after it."""
        if n == 0:
            return self.start
        if self.unit in _ABSOLUTE:
            return self.start + n * self.value * _STEPS[self.unit]
        wall = self._local_start.replace(tzinfo=None)
        if self.unit == Unit.MONTHLY:
            return _on_the_clocks_of(self.tz, wall + relativedelta(months=n * self.value))
        return _on_the_clocks_of(self.tz, wall + n * self.value * _STEPS[self.unit])

    def about(self, when: datetime) -> int:
        """The number of a run that is not later than `when`, and at most a few before it."""
        if self.unit == Unit.MONTHLY:
            months = (when.year - self.start.year) * 12 + when.month - self.start.month
            return max(0, (months - 2) // self.value)
        passed = when - self.start - (timedelta() if self.unit in _ABSOLUTE else _CHANGE)
        return max(0, passed // (self.value * _STEPS[self.unit]))

    @property
    def _local_start(self) -> datetime:
        return self.start.replace(tzinfo=UTC).astimezone(self.tz)


def next_run(run_at: RunAt, after: datetime, last_run_on: datetime | None = None) -> datetime | None:
    """The first run later than `after`; None when there is none, as for one that is to run once and is over."""
    if run_at.unit == Unit.ONCE:
        has_run = last_run_on is not None and last_run_on > run_at.start
        return run_at.start if run_at.start > after and not has_run else None
    n = run_at.about(after)
    while (run := run_at.nth(n)) <= after:
        n += 1
    return run


# -- reading -----------------------------------------------------------------------------------------------------------


def parse(text: str | None) -> RunAt:
    """The column's text. Raises SettingsError that says what is wrong with it."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        raise SettingsError(
            'run_at is not JSON: write {"start_time": .., "tz": .., "interval": {"unit": .., "value": ..}}'
        ) from None
    if not isinstance(value, Mapping) or not isinstance(value.get("interval"), Mapping):
        raise SettingsError('run_at is no object with an "interval": {"unit": "daily", "value": 1}')
    interval = value["interval"]
    unit = _unit(interval.get("unit"))
    return RunAt(
        start=_start_time(value.get("start_time")),
        tz=time_zone(value.get("tz")),
        unit=unit,
        value=1 if unit == Unit.ONCE else _value(interval.get("value")),
    )


def parse_interval(text: str) -> tuple[Unit, int]:
    """`2 weekly`, or `daily` for 1, as a user says it. Raises SettingsError."""
    *amount, unit = text.split() or [""]
    if len(amount) > 1:
        raise SettingsError(f"interval {text!r}: write a number and a unit, e.g. 2 weekly")
    return _unit(unit), _value(amount[0]) if amount else 1


def parse_start(text: str, tz: ZoneInfo, now: datetime) -> datetime:
    """Naive UTC of `02:00`, the next one on the clocks of `tz`, or of a date and time, there unless it says otherwise.

    Raises SettingsError.
    """
    if re.fullmatch(r"\d\d?:\d\d", text):
        hour, minute = map(int, text.split(":"))
        if hour > 23 or minute > 59:
            raise SettingsError(f"time {text!r}: write HH:MM, from 00:00 to 23:59")
        today = now.replace(tzinfo=UTC).astimezone(tz).replace(hour=hour, minute=minute, second=0, microsecond=0)
        days = (today.replace(tzinfo=None) + timedelta(days=number) for number in range(3))
        return next(start for day in days if (start := _on_the_clocks_of(tz, day)) > now)
    return _moment(text, tz, f"time {text!r}: write HH:MM, or a date and time such as 2026-12-31T02:00")


def time_zone(name: object) -> ZoneInfo:
    """The zone of that name, UTC when there is none. Raises SettingsError."""
    try:
        return ZoneInfo(str(name or "UTC"))
    except (KeyError, ValueError, OSError):
        raise SettingsError(f"tz {name!r} is not a time zone: write one such as Europe/Berlin, or UTC") from None


def _unit(value: object) -> Unit:
    try:
        return Unit(str(value))
    except ValueError:
        raise SettingsError(f"interval unit {value!r}: write one of {', '.join(Unit)}") from None


def _value(value: object) -> int:
    """Text is what the modelled system's forms store."""
    amount = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
    if not isinstance(amount, int) or isinstance(amount, bool) or not 1 <= amount <= _MOST:
        raise SettingsError(f"interval value {value!r}: write a whole number from 1 to {_MOST}")
    return amount


def _start_time(value: Any) -> datetime:  # noqa: ANN401 - whatever JSON holds
    wrong = f"start_time {value!r}: write a UTC time such as 2026-12-31T02:00:00Z"
    if not isinstance(value, str):
        raise SettingsError(wrong)
    return _moment(value, ZoneInfo("UTC"), wrong)


def _moment(text: str, tz: ZoneInfo, wrong: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(wrong) from None
    if moment.year not in _YEARS:
        raise SettingsError(f"{wrong}, from {_YEARS[0]} to {_YEARS[-1]}")
    return _naive(moment) if moment.tzinfo else _on_the_clocks_of(tz, moment)


def _on_the_clocks_of(tz: ZoneInfo, wall: datetime) -> datetime:
    """Fold 0 is the first of two; and in a gap the offset before it, which lands behind the gap."""
    return _naive(wall.replace(tzinfo=tz, fold=0))


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
