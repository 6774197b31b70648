"""`miq schedules add`: a queue method, on what, how often.

What could not be called when its time has come is refused before it is written: a method that nobody registered,
arguments that it does not take, a row, zone or role that is not there, a time that is over.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq.cli.connect import open_session
from miq.cli.output import AsJson
from miq.cli.schedules_told import described, tell
from miq.clock import utc
from miq.errors import BadMessage, UsageError
from miq.managers.find import find_zone
from miq.models import MiqSchedule, Priority
from miq.models.server_role import ROLES
from miq.queue.methods import find_method, known_methods, load_methods
from miq.queue.run_at import RunAt, Unit, next_run, parse_interval, parse_start, time_zone
from miq.queue.schedules import TEST, Action, Schedule, call_of

USERID = "system"
_LARGEST_ID = 2**63 - 1


def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    method: Annotated[str, typer.Option(help="The queue method to call, or test, which writes a line to the log.")],
    resource: Annotated[str, typer.Option(metavar="TYPE[:ID]", help="Its class, and the row to call it on.")],
    every: Annotated[str, typer.Option(help=f"A number and one of {', '.join(Unit)}; e.g. 2 weekly.")],
    at: Annotated[str | None, typer.Option(help="HH:MM, or date and time, to count from; now if not given.")] = None,
    tz: Annotated[str, typer.Option(help="The time zone whose clocks count, e.g. Europe/Berlin.")] = "UTC",
    args: Annotated[str, typer.Option(help="What to call it with, a JSON array.")] = "[]",
    queue: Annotated[str | None, typer.Option(help="The queue of its messages.")] = None,
    zone: Annotated[str | None, typer.Option(help="Only for servers of this zone.")] = None,
    role: Annotated[str | None, typer.Option(help="Only where this role is active.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=int(Priority.MIN), help="0 (soon) to 200.")] = None,
    timeout: Annotated[int | None, typer.Option(min=1, metavar="SECONDS", help="How long it may run.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Do not run it yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a schedule."""
    routing = {"queue_name": queue, "zone": zone, "role": role, "priority": priority, "msg_timeout": timeout}
    action = Action(method, _args(args), {key: value for key, value in routing.items() if value is not None})
    resource_type, resource_id = _resource(resource)
    with open_session() as session:
        now = session.scalars(select(func.utc_now())).one()
        wanted = Schedule(0, _name(name), resource_type, resource_id, action, _run_at(every, at, tz, now), None)
        _check_call(session, wanted)
        _check_takers(session, zone, role)
        _check_name(session, wanted)
        row = _row(wanted, description, enabled=not disabled)
        session.add(row)
        session.flush()
        told = described(row, now)
    tell("added", told, as_json)


def _row(wanted: Schedule, description: str | None, *, enabled: bool) -> MiqSchedule:
    return MiqSchedule(
        name=wanted.name,
        description=description or wanted.name,
        sched_action=wanted.action.as_json(),
        resource_type=wanted.resource_type,
        resource_id=wanted.resource_id,
        run_at=wanted.run_at.as_json(),
        enabled=enabled,
        userid=USERID,
        updated_at=utc(),
    )


# -- reading what was said ---------------------------------------------------------------------------------------------


def _name(name: str) -> str:
    if not name.strip():
        raise UsageError("a schedule needs a name")
    return name.strip()


def _resource(text: str) -> tuple[str, int | None]:
    """The class and the id; a class of managers has double colons in its name."""
    match = re.fullmatch(r"(\w+(?:::\w+)*)(?::([0-9]{1,19}))?", text.strip())
    if match is None or int(match[2] or 0) > _LARGEST_ID:
        raise UsageError(f"--resource {text!r}: write TYPE or TYPE:ID, e.g. ExtManagementSystem:5")
    return match[1], int(match[2]) if match[2] else None


def _args(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise UsageError(f"--args {text!r}: write a JSON array, e.g. '[1, \"a\"]'")
    return value


def _run_at(every: str, at: str | None, tz: str, now: datetime) -> RunAt:
    """Raises SettingsError for what is no time, UsageError for one that never comes."""
    (unit, value), zone = parse_interval(every), time_zone(tz)
    if at is None and unit == Unit.ONCE:
        raise UsageError("once needs a time: --at HH:MM, or --at with a date and time")
    start = parse_start(at, zone, now) if at is not None else now.replace(microsecond=0)
    run_at = RunAt(start, zone, unit, value)
    if next_run(run_at, now) is None:
        raise UsageError(f"it would never run: {run_at} is over")
    return run_at


# -- what can be called, and by whom -----------------------------------------------------------------------------------


def _check_call(session: Session, wanted: Schedule) -> None:
    if wanted.action.method == TEST:
        return
    load_methods()
    try:
        call = call_of(wanted)
    except BadMessage as error:
        command = f"{wanted.resource_type}.{wanted.action.method}"
        known = [each.command for each in known_methods()]
        near = [] if command in known else difflib.get_close_matches(command, known, n=3)
        hint = f"; is it {' or '.join(near)}?" if near else ""
        raise UsageError(f"{error}{hint}") from None
    method = find_method(call.class_name, call.method_name)
    try:
        inspect.signature(method.function).bind(None, None, *call.args)
    except TypeError as error:
        raise UsageError(f"{call.command} cannot be called with {json.dumps(call.args)}: {error}") from None
    if method.model is not None and session.get(method.model, call.instance_id) is None:
        raise UsageError(f"no {wanted.resource_type} {wanted.resource_id}")


def _check_takers(session: Session, zone: str | None, role: str | None) -> None:
    known = [name for name, *_ in ROLES]
    if role is not None and role not in known:
        raise UsageError(f"no role {role!r}; there are: {', '.join(known)}")
    if zone is not None:
        find_zone(session, zone)


def _check_name(session: Session, wanted: Schedule) -> None:
    """Names are unique per user and class, as in the modelled system."""
    taken = session.scalar(
        select(MiqSchedule.id).where(
            MiqSchedule.name == wanted.name,
            MiqSchedule.userid == USERID,
            MiqSchedule.resource_type == wanted.resource_type,
        )
    )
    if taken is not None:
        raise UsageError(f"there is a schedule named {wanted.name!r} for {wanted.resource_type} already (id {taken})")
