"""How `miq schedules` tells of a schedule: what it calls, when, and what is wrong with one that makes no sense."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from miq.cli.output import print_json
from miq.errors import SettingsError
from miq.models import MiqSchedule
from miq.queue.run_at import next_run
from miq.queue.schedules import columns_of, read


def described(row: MiqSchedule, now: datetime) -> dict[str, Any]:
    """What is shown of a schedule at `now` (UTC). One that makes no sense has a `problem`, and never runs."""
    facts = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "enabled": bool(row.enabled),
        "resource_type": row.resource_type,
        "resource_id": row.resource_id,
        "userid": row.userid,
        "last_run_on": row.last_run_on,
    }
    try:
        schedule = read(columns_of(row))
    except SettingsError as error:
        return {**facts, "call": None, "args": None, "run_at": None, "next_run_on": None, "problem": str(error)}
    where = schedule.resource_type + (f":{schedule.resource_id}" if schedule.resource_id is not None else "")
    return {
        **facts,
        "call": f"{where}.{schedule.action.method}",
        "args": schedule.action.args,
        "run_at": str(schedule.run_at),
        "next_run_on": next_run(schedule.run_at, now, row.last_run_on) if row.enabled else None,
        "problem": None,
    }


def minute(moment: datetime | None) -> str | None:
    """A time of any day; UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else None


def tell(verb: str, told: dict[str, Any], as_json: bool) -> None:
    """What was done with a schedule, and when it runs next."""
    if as_json:
        print_json(told)
        return
    following = f", next run {minute(told['next_run_on'])}" if told["next_run_on"] else ""
    print(f"{verb} {told['name']} (id {told['id']}): {told['problem'] or told['run_at']}{following}")
