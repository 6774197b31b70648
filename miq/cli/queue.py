"""`miq queue`: what waits and runs, as `evm:queue` counts it, what nobody can take, and how the queue is.

Putting a message is in `queue_put`, one message in `queue_show`, failed ones in `queue_failed`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq import names
from miq.cli import queue_failed, queue_put, queue_show
from miq.cli.connect import open_database, open_session
from miq.cli.output import AsJson, age, moment, print_facts, print_json, print_table
from miq.db import Database
from miq.errors import UsageError
from miq.models import MessageState, MiqQueue
from miq.queue.report import QueueHealth, Stuck, TableHealth, read_health
from miq.queue.routes import orphans

PENDING = (MessageState.READY, MessageState.DEQUEUE)

command = typer.Typer(invoke_without_command=True)
command.command("put")(queue_put.put_message)
command.command("show")(queue_show.show)
command.command("retry")(queue_failed.retry)
command.command("purge")(queue_failed.purge)


@command.callback()
def show_queue(
    context: typer.Context,
    only_orphans: Annotated[bool, typer.Option("--orphans", help="What nobody can take, and why.")] = False,
    health: Annotated[bool, typer.Option("--health", help="Depth and age by queue, dead rows, what is stuck.")] = False,
    as_json: AsJson = False,
) -> None:
    """What waits in the queue and what is being worked on, by zone, queue, role and method."""
    if context.invoked_subcommand is not None:
        return
    if only_orphans and health:
        raise UsageError("--orphans and --health are two reports: ask for one")
    if not (only_orphans or health):
        _show_groups(as_json)
        return
    with open_database() as database:
        (_show_orphans if only_orphans else _show_health)(database, as_json)


# -- what waits --------------------------------------------------------------------------------------------------------


def _show_groups(as_json: bool) -> None:
    with open_session() as session:
        now, groups, failed = session.scalars(select(func.utc_now())).one(), _groups(session), _failed(session)
    if as_json:
        print_json({"messages": groups, "failed": failed})
        return
    rows = [
        (row["zone"], row["queue_name"], row["role"], row["method"], moment(row["oldest"], now), row["count"])
        for row in groups
    ]
    print_table(("Zone", "Queue", "Role", "Method", "Oldest", "Count"), rows, right=("Count",))
    if failed:
        print(f"Failed: {', '.join(f'{count} {state}' for state, count in failed.items())}; `miq sql S03` lists them.")


def _groups(session: Session) -> list[dict[str, Any]]:
    oldest = func.min(func.coalesce(MiqQueue.deliver_on, MiqQueue.created_on))
    method = func.concat_ws(".", MiqQueue.class_name, MiqQueue.method_name)
    statement = (
        select(
            MiqQueue.zone,
            MiqQueue.queue_name,
            MiqQueue.role,
            method.label("method"),
            oldest.label("oldest"),
            func.count().label("count"),
        )
        .where(MiqQueue.state.in_(PENDING))
        .group_by(MiqQueue.zone, MiqQueue.queue_name, MiqQueue.role, MiqQueue.class_name, MiqQueue.method_name)
        .order_by(MiqQueue.zone, MiqQueue.queue_name, MiqQueue.role, oldest.desc())
    )
    return [dict(row) for row in session.execute(statement).mappings()]


def _failed(session: Session) -> dict[str, int]:
    counted = select(MiqQueue.state, func.count()).where(MiqQueue.state.not_in(PENDING)).group_by(MiqQueue.state)
    return {str(state): count for state, count in session.execute(counted.order_by(MiqQueue.state))}


# -- what nobody can take ----------------------------------------------------------------------------------------------


def _show_orphans(database: Database, as_json: bool) -> None:
    found = orphans(database)
    if as_json:
        print_json([asdict(orphan) for orphan in found])
        return
    if not found:
        print("Somebody can take whatever is due.")
        return
    now = _now(database)
    rows = [
        (
            orphan.zone,
            orphan.queue_name,
            orphan.role,
            orphan.server_guid,
            orphan.count,
            moment(orphan.oldest, now),
            ", ".join(orphan.methods),
            orphan.reason,
        )
        for orphan in found
    ]
    print_table(("Zone", "Queue", "Role", "Server", "Count", "Oldest", "Methods", "Why"), rows, right=("Count",))


def _now(database: Database) -> Any:  # noqa: ANN401 - a timestamp, as the driver gives it
    row = database.run("SELECT utc_now()").fetchone()
    assert row is not None
    return row[0]


# -- how it is ---------------------------------------------------------------------------------------------------------


def _show_health(database: Database, as_json: bool) -> None:
    health = read_health(database)
    if as_json:
        print_json(asdict(health))
        return
    now = _now(database)
    counts = ("Ready", "Deferred", "Running", "Failed")
    rows = [_queue_cells(queue, moment(queue.oldest, now)) for queue in health.queues]
    print_table(("Queue", *counts, "Oldest", "Age"), rows, right=counts)
    print()
    print_facts(_table_facts(health.table, now))
    if health.stuck:
        print("\nStuck:")
        columns = ("Id", "Method", "Queue", "Handler", "PID", "Server", "Held", "Why")
        print_table(columns, list(map(_stuck_cells, health.stuck)), right=("Id", "PID"))


def _queue_cells(queue: QueueHealth, oldest: str) -> tuple[object, ...]:
    return (queue.queue_name, queue.ready, queue.deferred, queue.running, queue.failed, oldest, age(queue.age))


def _table_facts(table: TableHealth, now: Any) -> list[tuple[str, object]]:  # noqa: ANN401 - see _now
    return [
        ("Rows", table.live_rows),
        ("Dead rows", table.dead_rows),
        ("Size", f"{table.bytes / 2**20:.1f} MB"),
        ("Last vacuum", moment(table.last_vacuum, now) or "never"),
        ("Last autovacuum", moment(table.last_autovacuum, now) or "never"),
        ("Last autoanalyze", moment(table.last_autoanalyze, now) or "never"),
    ]


def _stuck_cells(message: Stuck) -> tuple[object, ...]:
    kind = names.brief(message.worker_type) if message.worker_type else message.handler_type
    handler = f"{kind} {message.handler_id}" if message.handler_id is not None else "nobody"
    return (
        message.id,
        message.method,
        message.queue_name,
        handler,
        message.pid,
        message.server,
        age(message.held),
        message.reason,
    )
