"""Which user schedules are due: changed, removed, disabled and senseless ones, and times that were missed."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

from miq.errors import SettingsError
from miq.queue.schedules import OPTIONS, Action, parse_action, read
from miq.workers.timetable import Timetable

NOON = datetime(2026, 3, 1, 12)
DAILY = {"start_time": "2026-01-01T14:00:00Z", "tz": "UTC", "interval": {"unit": "daily", "value": 1}}
ONCE = {"start_time": "2026-03-01T13:00:00Z", "tz": "UTC", "interval": {"unit": "once"}}


def row(schedule_id: int = 1, run_at: Any = DAILY, **columns: Any) -> dict[str, Any]:
    return {
        "id": schedule_id,
        "name": f"schedule {schedule_id}",
        "sched_action": '{"method": "test"}',
        "filter": None,
        "resource_type": "Vm",
        "resource_id": None,
        "run_at": run_at if isinstance(run_at, str) else json.dumps(run_at),
        "last_run_on": None,
        **columns,
    }


def due(timetable: Timetable, now: datetime) -> list[int]:
    return [entry.schedule.id for entry in timetable.due(now)]


def test_a_schedule_is_due_at_its_time_and_then_a_day_later() -> None:
    timetable = Timetable()
    assert timetable.seconds_left(NOON) is None
    timetable.replace([row(1), row(2, ONCE)], NOON)
    assert (due(timetable, NOON), timetable.seconds_left(NOON)) == ([], 3600)
    later = NOON + timedelta(hours=2, seconds=5)
    assert due(timetable, later) == [2, 1]
    for entry in timetable.due(later):
        timetable.fired(entry, later)
    assert (due(timetable, later), timetable.seconds_left(later)) == ([], 86400 - 5)


def test_what_was_missed_is_skipped() -> None:
    timetable = Timetable()
    timetable.replace([row(run_at=DAILY | {"start_time": "2020-01-01T11:59:59Z"})], NOON)
    assert timetable.seconds_left(NOON) == 86400 - 1


def test_another_time_counts_at_once_and_what_did_not_change_keeps_its_own() -> None:
    timetable = Timetable()
    timetable.replace([row(1), row(2)], NOON)
    over = NOON + timedelta(hours=2)
    timetable.replace([row(1), row(2, DAILY | {"start_time": "2026-01-01T15:00:00Z"})], over)
    assert due(timetable, over) == [1]  # it was due while somebody changed the other one
    assert due(timetable, over + timedelta(hours=1)) == [1, 2]


def test_a_removed_or_disabled_schedule_is_forgotten_and_one_that_comes_back_begins_anew() -> None:
    timetable = Timetable()
    timetable.replace([row(1), row(2)], NOON)
    timetable.replace([row(2)], NOON)
    later = NOON + timedelta(hours=2)
    assert due(timetable, later) == [2]
    timetable.replace([row(1), row(2)], later)
    assert due(timetable, later) == [2]
    timetable.replace([], later)
    assert (due(timetable, later), timetable.seconds_left(later)) == ([], None)


def test_another_action_is_fired_at_the_time_that_stays() -> None:
    timetable = Timetable()
    timetable.replace([row()], NOON)
    timetable.replace([row(sched_action='{"method": "other"}')], NOON)
    (entry,) = timetable.due(NOON + timedelta(hours=2))
    assert entry.schedule.action.method == "other"


def test_one_that_is_to_run_once_does_so() -> None:
    timetable = Timetable()
    timetable.replace([row(run_at=ONCE)], NOON)
    hour = NOON + timedelta(hours=1)
    (entry,) = timetable.due(hour)
    timetable.fired(entry, hour)
    timetable.replace([row(run_at=ONCE)], hour)
    assert (due(timetable, hour), timetable.seconds_left(hour)) == ([], None)
    fresh = Timetable()
    fresh.replace([row(run_at=ONCE, last_run_on=NOON + timedelta(hours=2))], NOON)
    assert fresh.seconds_left(NOON) is None


def test_a_senseless_schedule_is_named_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    timetable = Timetable()
    with caplog.at_level(logging.ERROR):
        timetable.replace([row(1, "nonsense"), row(2)], NOON)
        timetable.replace([row(1, "nonsense"), row(2)], NOON)
    assert due(timetable, NOON + timedelta(hours=2)) == [2]
    assert len(caplog.records) == 1
    assert "not run: schedule 'schedule 1' (id 1): run_at is not JSON" in caplog.text
    with caplog.at_level(logging.ERROR):
        timetable.replace([row(1, filter="{}")], NOON)
        timetable.replace([row(1)], NOON)
        timetable.replace([row(1, filter="{}")], NOON)
    assert len(caplog.records) == 3
    assert "its filter is not evaluated" in caplog.records[1].getMessage()


# -- what a row says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"filter": '{"=": 1}'}, "its filter is not evaluated: name one resource by resource_id, and clear the filter"),
        ({"resource_type": None}, "resource_type is empty"),
        ({"resource_type": ""}, "resource_type is empty"),
        ({"sched_action": None}, "sched_action is not JSON"),
        ({"sched_action": "--- {}"}, "sched_action is not JSON"),
        ({"sched_action": "[" * 100_000}, "sched_action is not JSON"),
        ({"sched_action": "[]"}, 'sched_action is no object with a "method"'),
        ({"sched_action": "{}"}, 'sched_action is no object with a "method"'),
        ({"sched_action": '{"method": ""}'}, 'sched_action is no object with a "method"'),
        ({"sched_action": '{"method": 3}'}, 'sched_action is no object with a "method"'),
        ({"sched_action": '{"method": "a", "args": {"b": 1}}'}, "args of sched_action: write an array"),
        ({"sched_action": '{"method": "a", "options": [1]}'}, "options of sched_action: write an object"),
        ({"sched_action": '{"method": "a", "options": {"email": true}}'}, "option 'email' of sched_action: there are"),
        ({"sched_action": '{"method": "a", "options": {"priority": "soon"}}'}, "option priority of sched_action"),
        ({"sched_action": '{"method": "a", "options": {"priority": true}}'}, "True is no number"),
        ({"sched_action": '{"method": "a", "options": {"zone": null}}'}, "None is no text"),
        ({"run_at": ""}, "run_at is not JSON"),
    ],
)
def test_garbage_is_told_in_one_line_that_names_the_schedule(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(row(**columns))
    assert str(error.value).startswith("schedule 'schedule 1' (id 1): ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_action_is_read_as_it_was_written() -> None:
    action = Action("note", [1, "a", {"b": None}], {"zone": "east", "priority": 20})
    assert parse_action(action.as_json()) == action
    assert parse_action('{"method": "note", "args": null, "options": null}') == Action("note", [], {})
    assert OPTIONS.keys() == {"queue_name", "zone", "role", "priority", "msg_timeout"}
