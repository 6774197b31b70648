"""User schedules: what a row of `miq_schedules` says, and what becomes of it when its time has come.

    run_at        when: see `run_at`
    sched_action  {"method": "authentication_check_types", "args": [], "options": {"role": "ems_operations"}}
    resource_type, resource_id   on what: the class that the method is registered for, and one row of it or none

The schedule worker `fire`s: it puts `MiqSchedule.invoke_actions`. That message puts the call, so that a schedule can do
what any message can, and nothing else; `options` say who may take it. The action `test` only writes a line to the log.
Filters, by which the modelled system finds several resources, are not evaluated: a row that has one is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from miq.clock import utc
from miq.connections import manager_rows
from miq.db import Database
from miq.errors import BadMessage, SettingsError
from miq.models import MiqSchedule
from miq.queue.message import Inherit, Message
from miq.queue.methods import base_name, find_method, queue_method
from miq.queue.put import THE_CALL, put_or_update, put_unless_exists
from miq.queue.run_at import RunAt, parse

log = logging.getLogger(__name__)

TEST = "test"
#: seconds that the actions of one schedule may take
TIMEOUT = 1200
#: the fields of `Message` that `options` may give, and their kinds
OPTIONS: Mapping[str, type] = {"queue_name": str, "zone": str, "role": str, "priority": int, "msg_timeout": int}
_COLUMNS = ("id", "name", "sched_action", "filter", "resource_type", "resource_id", "run_at", "last_run_on")


@dataclass(frozen=True)
class Action:
    """What is called, with what, and who may take it."""

    method: str
    args: list[Any]
    options: dict[str, Any]

    def as_json(self) -> str:
        """As the column holds it."""
        return json.dumps({"method": self.method, "args": self.args, "options": self.options})


@dataclass(frozen=True)
class Schedule:
    """One row that makes sense. `last_run_on` is UTC."""

    id: int
    name: str
    resource_type: str
    resource_id: int | None
    action: Action
    run_at: RunAt
    last_run_on: datetime | None


def read(row: Mapping[str, Any]) -> Schedule:
    """The schedule that a row describes, by its columns. Raises SettingsError that names it and what is wrong."""
    try:
        if row["filter"]:
            raise SettingsError("its filter is not evaluated: name one resource by resource_id, and clear the filter")
        if not row["resource_type"]:
            raise SettingsError("resource_type is empty: write the class that its method belongs to")
        return Schedule(
            id=row["id"],
            name=row["name"] or "",
            resource_type=row["resource_type"],
            resource_id=row["resource_id"],
            action=parse_action(row["sched_action"]),
            run_at=parse(row["run_at"]),
            last_run_on=row["last_run_on"],
        )
    except SettingsError as error:
        raise SettingsError(f"schedule {row['name']!r} (id {row['id']}): {error}") from None


def columns_of(row: MiqSchedule) -> dict[str, Any]:
    """What `read` takes, of a row of the ORM."""
    return {name: getattr(row, name) for name in _COLUMNS}


def enabled_rows(database: Database) -> Iterable[dict[str, Any]]:
    """What `read` takes, of every schedule that is enabled."""
    found = database.run(
        f"SELECT {', '.join(_COLUMNS)} FROM miq_schedules WHERE enabled ORDER BY id"  # noqa: S608 - our columns
    )
    return [dict(zip(_COLUMNS, row, strict=True)) for row in found]


def parse_action(text: str | None) -> Action:
    """The column's text. Raises SettingsError that says what is wrong with it."""
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        raise SettingsError('sched_action is not JSON: write {"method": .., "args": [..], "options": {..}}') from None
    method = value.get("method") if isinstance(value, Mapping) else None
    if not isinstance(method, str) or not method:
        raise SettingsError('sched_action is no object with a "method"')
    args, options = value.get("args") or [], value.get("options") or {}
    if not isinstance(args, list):
        raise SettingsError("args of sched_action: write an array [..]")
    if not isinstance(options, Mapping):
        raise SettingsError("options of sched_action: write an object {..}")
    return Action(method, args, {name: _option(name, option) for name, option in options.items()})


def _option(name: str, value: Any) -> Any:  # noqa: ANN401 - text or a number
    kind = OPTIONS.get(name)
    if kind is None:
        raise SettingsError(f"option {name!r} of sched_action: there are {', '.join(OPTIONS)}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SettingsError(f"option {name} of sched_action: {value!r} is no {'text' if kind is str else 'number'}")
    return value


# -- when its time has come --------------------------------------------------------------------------------------------


def fire(session: Session, schedule: Schedule, at: datetime) -> None:
    """Ask for the actions of a schedule that is due since `at` (UTC). One message waits at most, with the last time."""
    args = [schedule.action.method, f"{at.isoformat(timespec='seconds')}Z"]
    log.info("MIQ(MiqSchedule.queue_scheduled_work) Schedule: [%s], id: [%s], %s", schedule.name, schedule.id, args)
    message = Message("MiqSchedule", "invoke_actions", instance_id=schedule.id, msg_timeout=TIMEOUT)
    put_or_update(session, message, lambda waiting: {"args": args}, match=THE_CALL)


@queue_method("MiqSchedule", "invoke_actions", idempotent=True, model=MiqSchedule)
def invoke_actions(session: Session, row: MiqSchedule, action: str, at: str = "") -> int | None:
    """Put the call of a schedule; the id of its message. Raises SettingsError or BadMessage for what cannot be called.

    `action` names the method, `at` the time that it was due.
    """
    schedule = read(columns_of(row))
    message_id = None
    if action == TEST:
        log.info("MIQ(MiqSchedule#action_test) Schedule: [%s], id: [%s], due at [%s]", row.name, row.id, at)
    else:
        call = call_of(replace(schedule, action=replace(schedule.action, method=action)))
        message_id = put_unless_exists(session, replace(call, zone=_zone(session, schedule)))
    row.last_run_on = utc()
    return message_id


def call_of(schedule: Schedule) -> Message:
    """The message that a schedule puts, but for its zone. Raises BadMessage for what is not registered."""
    action = schedule.action
    method = find_method(schedule.resource_type, action.method)
    if method.model is None and schedule.resource_id is not None:
        raise BadMessage(f"{method.command} is a class method: leave the resource's id out")
    if method.model is not None and schedule.resource_id is None:
        raise BadMessage(f"{method.command} is called for one row: give its id as {schedule.resource_type}:ID")
    return Message(
        schedule.resource_type, action.method, action.args, instance_id=schedule.resource_id, **action.options
    )


def _zone(session: Session, schedule: Schedule) -> str | Inherit | None:
    """Where `options` say, else where the manager is, else where the schedule worker is."""
    if "zone" in schedule.action.options:
        zone: str = schedule.action.options["zone"]
        return zone
    if schedule.resource_id is not None and base_name(schedule.resource_type) == "ExtManagementSystem":
        return next((ems.zone for ems in manager_rows(session, [schedule.resource_id])), Inherit.ZONE)
    return Inherit.ZONE
