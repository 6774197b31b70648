"""When schedules run: clocks that change, months of several lengths, and what people write into `run_at`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miq.errors import SettingsError
from miq.queue.run_at import RunAt, Unit, next_run, parse, parse_interval, parse_start

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu")


def run_at(start: str, tz: str = "UTC", unit: str = "daily", value: int = 1) -> RunAt:
    return RunAt(datetime.fromisoformat(start), ZoneInfo(tz), Unit(unit), value)


def runs(schedule: RunAt, after: str, count: int = 4) -> list[str]:
    """The next runs in naive UTC, to the minute."""
    found, moment = [], datetime.fromisoformat(after)
    for _ in range(count):
        run = next_run(schedule, moment)
        assert run is not None
        found.append(run.isoformat(timespec="minutes"))
        moment = run
    return found


def wall(moment: datetime, tz: ZoneInfo) -> datetime:
    return moment.replace(tzinfo=UTC).astimezone(tz).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        # 02:30 does not exist on March 29, and is 03:30 that day
        (
            run_at("2026-03-27T01:30", "Europe/Berlin"),
            "2026-03-27T02:00",
            ["2026-03-28T01:30", "2026-03-29T01:30", "2026-03-30T00:30", "2026-03-31T00:30"],
        ),
        # 02:30 comes twice on October 25: at 00:30 and at 01:30 UTC
        (
            run_at("2026-10-23T00:30", "Europe/Berlin"),
            "2026-10-23T12:00",
            ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30", "2026-10-27T01:30"],
        ),
        (
            run_at("2026-03-06T07:30", "America/New_York"),
            "2026-03-07T00:00",
            ["2026-03-07T07:30", "2026-03-08T07:30", "2026-03-09T06:30", "2026-03-10T06:30"],
        ),
        (
            run_at("2026-10-30T05:30", "America/New_York"),
            "2026-10-31T00:00",
            ["2026-10-31T05:30", "2026-11-01T05:30", "2026-11-02T06:30", "2026-11-03T06:30"],
        ),
        # Lord Howe moves its clocks by half an hour: 02:15 is 02:45 on October 4
        (
            run_at("2026-10-02T15:45", "Australia/Lord_Howe"),
            "2026-10-02T16:00",
            ["2026-10-03T15:45", "2026-10-04T15:15", "2026-10-05T15:15", "2026-10-06T15:15"],
        ),
        # Apia had no December 30 in 2011: its run falls together with that of the 31st
        (
            run_at("2011-12-28T20:00", "Pacific/Apia"),
            "2011-12-28T20:00",
            ["2011-12-29T20:00", "2011-12-30T20:00", "2011-12-31T20:00", "2012-01-01T20:00"],
        ),
        # absolute time knows no clocks
        (
            run_at("2026-03-28T23:30", "Europe/Berlin", "hourly", 2),
            "2026-03-28T23:30",
            ["2026-03-29T01:30", "2026-03-29T03:30", "2026-03-29T05:30", "2026-03-29T07:30"],
        ),
        (
            run_at("2026-03-28T00:00", unit="minutely", value=15),
            "2027-01-01T00:07",
            ["2027-01-01T00:15", "2027-01-01T00:30", "2027-01-01T00:45", "2027-01-01T01:00"],
        ),
        (
            run_at("2026-10-20T20:00", "Europe/Berlin", "weekly", 2),
            "2026-10-20T20:00",
            ["2026-11-03T21:00", "2026-11-17T21:00", "2026-12-01T21:00", "2026-12-15T21:00"],
        ),
        # the 31st is counted from the start: it comes back after the 28th
        (
            run_at("2026-01-31T12:00", unit="monthly"),
            "2026-01-31T12:00",
            ["2026-02-28T12:00", "2026-03-31T12:00", "2026-04-30T12:00", "2026-05-31T12:00"],
        ),
        (
            run_at("2024-02-29T12:00", unit="monthly", value=12),
            "2026-01-01T00:00",
            ["2026-02-28T12:00", "2027-02-28T12:00", "2028-02-29T12:00", "2029-02-28T12:00"],
        ),
        # the first of the month in Auckland is the last one in UTC
        (
            run_at("2026-04-30T14:00", "Pacific/Auckland", "monthly"),
            "2026-05-01T00:00",
            ["2026-05-31T14:00", "2026-06-30T14:00", "2026-07-31T14:00", "2026-08-31T14:00"],
        ),
        # winter time carries the run of January over into the next month of UTC
        (
            run_at("2026-07-31T23:30", "America/New_York", "monthly"),
            "2027-02-01T00:00",
            ["2027-02-01T00:30", "2027-03-01T00:30", "2027-03-31T23:30", "2027-04-30T23:30"],
        ),
    ],
)
def test_runs(schedule: RunAt, after: str, expected: list[str]) -> None:
    assert runs(schedule, after) == expected


def test_a_start_that_is_still_to_come_is_the_first_run_also_in_the_second_hour_of_two() -> None:
    schedule = run_at("2026-10-25T01:30", "Europe/Berlin")
    assert runs(schedule, "2020-01-01T00:00", 2) == ["2026-10-25T01:30", "2026-10-26T01:30"]


def test_once() -> None:
    schedule = run_at("2026-05-01T12:00", unit="once")
    before, later = schedule.start - timedelta(seconds=1), schedule.start + timedelta(seconds=1)
    assert next_run(schedule, before) == schedule.start
    assert next_run(schedule, before, last_run_on=before) == schedule.start
    assert next_run(schedule, before, last_run_on=later) is None
    assert next_run(schedule, schedule.start) is None
    assert next_run(schedule, later) is None


SCHEDULES = st.builds(
    RunAt,
    start=st.datetimes(datetime(1995, 1, 1), datetime(2037, 1, 1)),
    tz=st.sampled_from(ZONES).map(ZoneInfo),
    unit=st.sampled_from([unit for unit in Unit if unit != Unit.ONCE]),
    value=st.integers(1, 40),
)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1))


@given(SCHEDULES, MOMENTS)
def test_runs_only_ever_move_on_and_none_is_left_out(schedule: RunAt, after: datetime) -> None:
    found, moment = [], after
    for _ in range(6):
        run = next_run(schedule, moment)
        assert run is not None
        assert run > moment
        found.append(run)
        moment = run
    assert found[0] >= schedule.start
    # nothing lies between: from any moment between two runs the next one is the second of them
    between = found[0] + (found[1] - found[0]) / 2
    assert next_run(schedule, between) == found[1]
    if after >= schedule.start:
        assert next_run(schedule, found[0] - timedelta(microseconds=1)) == found[0]


@given(SCHEDULES, MOMENTS)
def test_days_weeks_and_months_keep_the_wall_clock(schedule: RunAt, after: datetime) -> None:
    run = next_run(schedule, after)
    assert run is not None
    if schedule.unit in (Unit.MINUTELY, Unit.HOURLY):
        step = timedelta(minutes=schedule.value) if schedule.unit == Unit.MINUTELY else timedelta(hours=schedule.value)
        assert (run - schedule.start) % step == timedelta()
        return
    expected, seen = wall(schedule.start, schedule.tz), wall(run, schedule.tz)
    # either the clock shows the same, or it jumped over it within the day before
    jumped = schedule.tz.utcoffset(seen) != schedule.tz.utcoffset(seen - timedelta(hours=25))
    assert seen.time() == expected.time() or jumped
    if schedule.unit == Unit.WEEKLY and not jumped:
        assert seen.weekday() == expected.weekday()
    if schedule.unit == Unit.MONTHLY and not jumped:
        next_day_is_another_month = (seen + timedelta(days=1)).month != seen.month
        assert seen.day == expected.day or (next_day_is_another_month and seen.day < expected.day)


@given(SCHEDULES)
def test_what_is_written_is_read_again(schedule: RunAt) -> None:
    assert parse(schedule.as_json()) == schedule


INTERVAL = {"unit": "daily", "value": 1}


def column(**changes: Any) -> str:
    return json.dumps({"start_time": "2026-01-01T00:00:00Z", "tz": "UTC", "interval": INTERVAL} | changes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "run_at is not JSON"),
        ("", "run_at is not JSON"),
        ("---\n:start_time: 2026", "run_at is not JSON"),
        ("[" * 100_000, "run_at is not JSON"),
        ("[1]", 'no object with an "interval"'),
        ('{"start_time": "2026-01-01T00:00:00Z"}', 'no object with an "interval"'),
        (column(interval="daily"), 'no object with an "interval"'),
        (column(interval={}), "interval unit None: write one of minutely, hourly, daily, weekly, monthly, once"),
        (column(interval={"unit": "yearly", "value": 1}), "interval unit 'yearly'"),
        (column(interval={"unit": ["daily"], "value": 1}), "interval unit ['daily']"),
        (column(interval={"unit": "daily"}), "interval value None: write a whole number from 1 to 10000"),
        (column(interval={"unit": "daily", "value": 0}), "interval value 0"),
        (column(interval={"unit": "daily", "value": -1}), "interval value -1"),
        (column(interval={"unit": "daily", "value": 1.5}), "interval value 1.5"),
        (column(interval={"unit": "daily", "value": True}), "interval value True"),
        (column(interval={"unit": "daily", "value": "often"}), "interval value 'often'"),
        (column(interval={"unit": "daily", "value": 10**30}), "interval value 1000"),
        (column(start_time=None), "start_time None: write a UTC time"),
        (column(start_time=17), "start_time 17"),
        (column(start_time="tomorrow"), "start_time 'tomorrow'"),
        (column(start_time="0001-01-01T00:00:00"), "from 1970 to 2999"),
        (column(start_time="9999-12-31T23:59:59-12:00"), "from 1970 to 2999"),
        (column(tz="Mars/Olympus"), "tz 'Mars/Olympus' is not a time zone"),
        (column(tz="../etc/passwd"), "is not a time zone"),
        (column(tz="Europe"), "is not a time zone"),
        (column(tz="Europe/Ber\0lin"), "is not a time zone"),
        (column(tz="x" * 5000), "is not a time zone"),
        (column(tz={"a": 1}), "is not a time zone"),
    ],
)
def test_garbage_is_told_in_one_line(text: str | None, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, datetime(2026, 1, 1)),
        ({"start_time": "2026-01-01T00:00:00"}, datetime(2026, 1, 1)),
        ({"start_time": "2026-01-01 02:00:00+02:00"}, datetime(2026, 1, 1)),
        ({"start_time": "2026-01-01"}, datetime(2026, 1, 1)),
        ({"tz": None}, datetime(2026, 1, 1)),
        ({"tz": "Asia/Tokyo"}, datetime(2026, 1, 1)),
        ({"interval": {"unit": "daily", "value": "1"}}, datetime(2026, 1, 1)),
        ({"interval": {"unit": "once", "value": "never read"}}, datetime(2026, 1, 1)),
    ],
)
def test_what_may_be_written(changes: dict[str, Any], start: datetime) -> None:
    assert (parse(column(**changes)).start, parse(column(**changes)).value) == (start, 1)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (run_at("2026-01-01T01:00", "Europe/Berlin"), "daily at 02:00 Europe/Berlin"),
        (run_at("2026-01-05T01:00", unit="weekly", value=2), "every 2 weeks on Monday at 01:00 UTC"),
        (run_at("2026-01-31T01:00", unit="monthly"), "monthly on day 31 at 01:00 UTC"),
        (run_at("2026-01-31T01:05", unit="minutely", value=5), "every 5 minutes from 2026-01-31 01:05 UTC"),
        (run_at("2026-01-31T01:05", unit="hourly"), "hourly from 2026-01-31 01:05 UTC"),
        (run_at("2026-07-01T00:00", "Europe/Berlin", "once"), "once, on 2026-07-01 02:00 Europe/Berlin"),
    ],
)
def test_words(schedule: RunAt, words: str) -> None:
    assert str(schedule) == words


@pytest.mark.parametrize(
    ("text", "found"),
    [("daily", (Unit.DAILY, 1)), ("1 daily", (Unit.DAILY, 1)), (" 15  minutely", (Unit.MINUTELY, 15))],
)
def test_intervals_of_users(text: str, found: tuple[Unit, int]) -> None:
    assert parse_interval(text) == found


@pytest.mark.parametrize("text", ["", "2", "2 weeks", "daily 2", "0 daily", "1 2 daily", "-1 daily", "٣ daily"])
def test_intervals_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="interval"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("text", "now", "start"),
    [
        ("02:00", "2026-05-01T00:00", "2026-05-02T00:00"),
        ("02:01", "2026-05-01T00:00", "2026-05-01T00:01"),
        ("2:30", "2026-03-28T12:00", "2026-03-29T01:30"),
        ("2:30", "2026-10-25T00:15", "2026-10-25T00:30"),
        ("2:30", "2026-10-25T01:00", "2026-10-26T01:30"),
        ("2026-05-01T02:00", "2026-01-01T00:00", "2026-05-01T00:00"),
        ("2026-05-01T02:00Z", "2026-01-01T00:00", "2026-05-01T02:00"),
        ("2026-05-01 02:00-05:00", "2026-01-01T00:00", "2026-05-01T07:00"),
    ],
)
def test_starts_of_users(text: str, now: str, start: str) -> None:
    found = parse_start(text, ZoneInfo("Europe/Berlin"), datetime.fromisoformat(now))
    assert found == datetime.fromisoformat(start)


@pytest.mark.parametrize("text", ["", "24:00", "12:60", "noon", "2026-02-30T00:00", "12:00:00x", "1812-01-01"])
def test_starts_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="time "):
        parse_start(text, ZoneInfo("UTC"), datetime(2026, 1, 1))
