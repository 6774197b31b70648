"""`miq ems refresh`: ask for a refresh of a manager, wait for it, and show what it found."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.cli import ems_wait
from miq.cli.connect import open_database, settings_of
from miq.cli.output import AsJson, print_json, print_table, progress, say
from miq.cli.tasks import await_task
from miq.db import Database
from miq.ems_refresh.queueing import queue_refresh
from miq.errors import MiqError, RefreshFailed, UsageError
from miq.managers.find import find_manager
from miq.managers.rows import find_authentication
from miq.models import AuthenticationStatus, EmsRefresh, ExtManagementSystem, MiqTask, RefreshState
from miq.settings import Settings

COUNTS = ("seen", "created", "updated", "unchanged", "archived")


def refresh(
    manager: Annotated[str, typer.Argument(metavar="MANAGER", help="Name or id.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 7200.0,
    as_json: AsJson = False,
) -> None:
    """Read a manager's whole inventory anew."""
    with open_database() as database:
        settings = settings_of(database)
        with database.session() as session:
            ems = find_manager(session, manager)
            if not ems.enabled:
                raise UsageError(f"{ems.name} is paused: nothing refreshes it")
            (task_id,) = queue_refresh(session, [ems.id], cause="user", create_task=True, settings=settings)
            nobody = _why_nobody(session, ems, settings)
        if not wait:
            _queued(ems, task_id, nobody, as_json)
            return
        if nobody:
            raise MiqError(f"the refresh of {ems.name} waits in the queue: {nobody}")
        run = _wait(database, ems, task_id, timeout)
    if as_json:
        print_json(run)
    else:
        print_refresh(run)
    if run.state == RefreshState.ERROR:
        raise RefreshFailed(f"the refresh of {ems.name} failed: {run.error}")


def _queued(ems: ExtManagementSystem, task_id: int, nobody: str | None, as_json: bool) -> None:
    if as_json:
        print_json({"id": ems.id, "name": ems.name, "task_id": task_id, "waits_because": nobody})
    else:
        print(f"refresh of {ems.name} queued (task {task_id})")
        if nobody:
            say(f"it waits in the queue: {nobody}")


def _why_nobody(session: Session, ems: ExtManagementSystem, settings: Settings) -> str | None:
    """Why no worker will take the message for now; None when one will."""
    if ems_wait.has_worker(session, ems):
        return None
    if not ems_wait.is_served(session, ems, settings):
        return "no server of its zone runs (`miq-server` starts one)"
    authentication = find_authentication(session, ems.id)
    status = authentication.status if authentication else None
    if status != AuthenticationStatus.VALID:
        return f"its credentials are {status or 'not checked'} (`miq ems check`)"
    return None


def _wait(database: Database, ems: ExtManagementSystem, task_id: int, timeout: float) -> EmsRefresh:
    with progress(f"refreshing {ems.name}") as tell:

        def seen(task: MiqTask) -> None:
            with database.session() as session:
                run = _run(session, task_id)
            tell(_words(run) if run is not None else task.state or "")

        task = await_task(database, task_id, seconds=timeout, tell=seen)
    if task is None:
        raise MiqError(f"the refresh of {ems.name} has not ended within {timeout:.0f} s (task {task_id}); it goes on")
    with database.session() as session:
        found = _run(session, task_id)
    if found is None:
        raise RefreshFailed(f"the refresh of {ems.name} failed: {task.message}")
    return found


def _run(session: Session, task_id: int) -> EmsRefresh | None:
    mine = select(EmsRefresh).where(EmsRefresh.miq_task_id == task_id).order_by(EmsRefresh.id.desc()).limit(1)
    return session.scalars(mine.execution_options(populate_existing=True)).first()


def _words(run: EmsRefresh) -> str:
    """How far it is, in a few words."""
    seen = {name: counts.get("seen", 0) for name, counts in run.collections.items()}
    return f"{run.state} {', '.join(f'{name} {count}' for name, count in seen.items())}".strip()


def print_refresh(run: EmsRefresh) -> None:
    """The run in a line, and its counts by collection."""
    seconds = f" in {run.seconds:.1f} s" if run.seconds is not None else ""
    cause = run.cause or "no cause given"
    print(f"refresh {run.id} ({run.kind}, {cause}): {run.state}{seconds} {run.error or ''}".rstrip())
    rows = [
        (name, *(counts.get(count, 0) for count in COUNTS), "" if counts.get("complete", True) else "read in part")
        for name, counts in sorted(run.collections.items())
    ]
    if rows:
        heads = [count.capitalize() for count in COUNTS]
        print_table(("Collection", *heads, ""), rows, right=heads)
