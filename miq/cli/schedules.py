"""`miq schedules`: what is called by the clock, when it ran last and runs next; enable, disable, remove.

Adding one is in `schedules_add`. The schedule worker hears of every change at once.
"""

from __future__ import annotations

import re
from typing import Annotated

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq.cli.connect import open_session
from miq.cli.output import AsJson, print_json, print_table
from miq.cli.schedules_add import add
from miq.cli.schedules_told import described, minute, tell
from miq.clock import utc
from miq.errors import UsageError
from miq.models import MiqSchedule

_LARGEST_ID = 2**63 - 1

NameOrId = Annotated[str, typer.Argument(metavar="NAME", help="Name or id.")]

command = typer.Typer(invoke_without_command=True)
command.command("add")(add)


@command.callback()
def _noun(context: typer.Context, as_json: AsJson = False) -> None:
    """List the schedules, when each ran last and runs next."""
    if context.invoked_subcommand is None:
        show_list(as_json)


@command.command("list")
def show_list(as_json: AsJson = False) -> None:
    """List the schedules, when each ran last and runs next."""
    with open_session() as session:
        now = session.scalars(select(func.utc_now())).one()
        found = [described(row, now) for row in session.scalars(select(MiqSchedule).order_by(MiqSchedule.id))]
    if as_json:
        print_json(found)
        return
    columns = ("Id", "Name", "Enabled", "Calls", "Runs", "Last run", "Next run")
    rows = [
        (
            told["id"],
            told["name"],
            told["enabled"],
            told["call"],
            told["problem"] or told["run_at"],
            minute(told["last_run_on"]),
            minute(told["next_run_on"]),
        )
        for told in found
    ]
    print_table(columns, rows, right=("Id",))


@command.command("enable")
def enable(schedule: NameOrId, as_json: AsJson = False) -> None:
    """Run a schedule again, from its next time on."""
    _switch("enabled", schedule, True, as_json)


@command.command("disable")
def disable(schedule: NameOrId, as_json: AsJson = False) -> None:
    """Do not run a schedule any more; it stays."""
    _switch("disabled", schedule, False, as_json)


@command.command("remove")
def remove(schedule: NameOrId, as_json: AsJson = False) -> None:
    """Remove a schedule."""
    with open_session() as session:
        row = _find(session, schedule)
        told = described(row, utc()) | {"next_run_on": None}
        session.delete(row)
    tell("removed", told, as_json)


def _switch(verb: str, wanted: str, enabled: bool, as_json: bool) -> None:
    with open_session() as session:
        row = _find(session, wanted)
        row.enabled, row.updated_at = enabled, utc()
        told = described(row, session.scalars(select(func.utc_now())).one())
    tell(verb, told, as_json)


def _find(session: Session, wanted: str) -> MiqSchedule:
    """The one of that name, or else that id. Raises UsageError."""
    found = list(session.scalars(select(MiqSchedule).where(MiqSchedule.name == wanted).order_by(MiqSchedule.id)))
    if not found and re.fullmatch(r"[0-9]{1,19}", wanted) and int(wanted) <= _LARGEST_ID:
        found = list(session.scalars(select(MiqSchedule).where(MiqSchedule.id == int(wanted))))
    if not found:
        raise UsageError(f"no schedule {wanted!r}; `miq schedules` lists them")
    if len(found) > 1:
        ids = ", ".join(f"{row.id} ({row.resource_type})" for row in found)
        raise UsageError(f"{len(found)} schedules are named {wanted!r}: name one by its id: {ids}")
    return found[0]
