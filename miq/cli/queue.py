"""`miq queue`: what waits and runs, as `evm:queue` counts it; failed messages in a line below."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq.cli.connect import open_session
from miq.cli.output import AsJson, moment, print_json, print_table
from miq.models import MessageState, MiqQueue

PENDING = (MessageState.READY, MessageState.DEQUEUE)


def command(as_json: AsJson = False) -> None:
    """What waits in the queue and what is being worked on, by zone, queue, role and method."""
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
