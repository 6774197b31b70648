"""`miq ems`: the managers. Adding and editing are in `ems_forms`, waiting in `ems_wait`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from sqlalchemy import func, select

from miq import plugins
from miq.cli import ems_forms, ems_refresh, ems_wait
from miq.cli.connect import open_database, open_session, settings_of
from miq.cli.output import AsJson, moment, print_facts, print_json, print_table, say
from miq.errors import UsageError
from miq.managers.find import find_manager
from miq.managers.overview import ManagerOverview, overviews
from miq.managers.remove import remove_manager

NameOrId = Annotated[str, typer.Argument(metavar="MANAGER", help="Name or id.")]

command = typer.Typer()
command.command("add")(ems_forms.add)
command.command("edit")(ems_forms.edit)
command.command("refresh")(ems_refresh.refresh)


@command.command("types")
def show_types(as_json: AsJson = False) -> None:
    """List the types of managers that are installed."""
    kinds = [
        {
            "ems_type": kind.ems_type,
            "description": kind.description,
            "type": kind.type,
            "supports": sorted(kind.supports),
            "credentials": dict(kind.credential_labels),
            "regions": dict(kind.regions()),
        }
        for kind in plugins.manager_types().values()
    ]
    if as_json:
        print_json({"types": kinds, "broken": plugins.broken()})
        return
    rows = [(kind["ems_type"], kind["description"], kind["type"], ", ".join(kind["supports"])) for kind in kinds]
    print_table(("Type", "Description", "Class", "Supports"), rows)
    for name, why in plugins.broken().items():
        say(f"provider {name} does not load: {why}")


@command.command("list")
def show_list(as_json: AsJson = False) -> None:
    """List the managers with their state."""
    with open_session() as session:
        now, managers = session.scalars(select(func.utc_now())).one(), overviews(session)
    if as_json:
        print_json([_as_record(manager) for manager in managers])
        return
    columns = (
        "Id", "Name", "Type", "Region", "Zone", "Enabled", "Credentials", "Last refresh", "At", "VMs", "Templates",
    )  # fmt: skip
    rows = [
        (
            manager.id,
            manager.name,
            _type(manager),
            manager.region,
            manager.zone,
            manager.enabled,
            manager.status or "never checked",
            manager.last_refresh,
            moment(manager.last_refresh_date, now),
            manager.vms,
            manager.templates,
        )
        for manager in managers
    ]
    print_table(columns, rows, right=("Id", "VMs", "Templates"))


def _type(manager: ManagerOverview) -> str:
    kind = plugins.manager_type(manager.type)
    return kind.ems_type if kind else f"{manager.type} (unknown)"


def _as_record(manager: ManagerOverview) -> dict[str, Any]:
    """Not `asdict`, which would copy the refresh row and lose its columns."""
    return {**vars(manager), "refresh": manager.refresh}


@command.command("show")
def show(manager: NameOrId, as_json: AsJson = False) -> None:
    """Show one manager."""
    with open_session() as session:
        ems = find_manager(session, manager)
        found = overviews(session, [ems.id])[0]
    if as_json:
        print_json(_as_record(found))
        return
    print_facts(_facts(found))
    if found.refresh is not None:
        print()
        ems_refresh.print_refresh(found.refresh)


def _facts(manager: ManagerOverview) -> list[tuple[str, object]]:
    credentials = f"{manager.status or 'never checked'} {manager.status_details or ''}"
    return [
        ("Name", manager.name),
        ("Id", manager.id),
        ("Type", f"{_type(manager)} ({manager.type})"),
        ("Region", manager.region),
        ("Zone", manager.zone),
        ("Enabled", manager.enabled),
        ("Endpoint", manager.endpoint_url),
        ("Verify TLS", manager.verify_ssl),
        ("HTTP proxy", manager.http_proxy),
        ("User", manager.userid),
        ("Credentials", credentials),
        ("Last valid", manager.last_valid_on),
        ("Last invalid", manager.last_invalid_on),
        ("Last refresh", f"{manager.last_refresh} {manager.last_refresh_error or ''}"),
        ("Refreshed", manager.last_refresh_date),
        ("VMs", manager.vms),
        ("Templates", manager.templates),
    ]


@command.command("check")
def check(manager: NameOrId, as_json: AsJson = False) -> None:
    """Check a manager's credentials."""
    with open_database() as database:
        settings = settings_of(database)
        with database.session() as session:
            ems = find_manager(session, manager)
        checked = ems_wait.check(database, ems.id, settings)
    if as_json:
        print_json({"id": ems.id, "name": ems.name, "status": checked.status, "status_details": checked.details})
    else:
        print(f"{ems.name}: {checked.status}")
    ems_wait.raise_unless_valid(ems.name or "", checked)


@command.command("remove")
def remove(
    manager: NameOrId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a manager; its VMs and templates stay as archived rows."""
    with open_session() as session:
        ems = find_manager(session, manager)
        name, ems_id = ems.name, ems.id
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"removing {name} asks first: add --yes")
            session.commit()
            typer.confirm(f"Remove {name} (id {ems_id})?", abort=True, err=True)
        done = remove_manager(session, ems)
    if as_json:
        print_json({"id": ems_id, "name": name, "rows": done})
    else:
        print(f"removed {name}: {done['vms']} VMs and templates archived")
