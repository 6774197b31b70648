"""`miq queue show`: one message with all that its row holds, who has it, and why nobody takes it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq.cli.connect import open_database
from miq.cli.output import AsJson, columns_of, moment, print_facts, print_json
from miq.errors import UsageError
from miq.models import MessageState, MiqQueue, MiqServer, MiqWorker
from miq.queue.region import read_region
from miq.queue.routes import Address, why_nobody

MessageId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="A message.")]


def show(message_id: MessageId, as_json: AsJson = False) -> None:
    """Show one message."""
    with open_database() as database:
        with database.session() as session:
            message = session.get(MiqQueue, message_id)
            if message is None:
                raise UsageError(f"no message {message_id}: those that end well are deleted; see `miq queue`")
            now = session.scalars(select(func.utc_now())).one()
            handler = _handler(session, message)
        reason = None
        if message.state == MessageState.READY and not (message.deliver_on and message.deliver_on > now):
            reason = why_nobody(address_of(message), read_region(database))
    data = _data(message.msg_data)
    if as_json:
        print_json({**columns_of(message), "data": data, "handler": handler, "waits_because": reason})
    else:
        print_facts(_facts(message, data, handler, reason, now))


def address_of(message: MiqQueue) -> Address:
    """What of the row says who may take it."""
    return Address(message.queue_name, message.zone, message.role, message.server_guid, message.priority)


def _handler(session: Session, message: MiqQueue) -> dict[str, Any] | None:
    """The row of whoever holds it; None when nobody does, or the row is gone."""
    model = {"MiqWorker": MiqWorker, "MiqServer": MiqServer}.get(message.handler_type or "")
    row = session.get(model, message.handler_id) if model is not None and message.handler_id is not None else None
    return columns_of(row) if row is not None else None


def _data(stored: bytes | None) -> Any:  # noqa: ANN401 - any JSON value
    if stored is None:
        return None
    try:
        return json.loads(stored)
    except ValueError:
        return f"{len(stored)} bytes"


def _facts(
    message: MiqQueue,
    data: Any,  # noqa: ANN401 - any JSON value
    handler: dict[str, Any] | None,
    reason: str | None,
    now: datetime,
) -> list[tuple[str, object]]:
    return [
        ("Id", message.id),
        ("State", f"{message.state}{f', nobody takes it: {reason}' if reason else ''}"),
        ("Last error", message.last_error),
        ("Method", f"{message.class_name}.{message.method_name}"),
        ("Instance", message.instance_id),
        ("Target", message.target_id),
        ("Args", message.args),
        ("Data", None if data is None else json.dumps(data)),
        ("Queue", message.queue_name),
        ("Zone", message.zone or "any"),
        ("Role", message.role),
        ("Server", message.server_guid),
        ("Priority", message.priority),
        ("Time-out", f"{message.msg_timeout} s"),
        ("Attempts", message.attempts),
        ("Held by", _held_by(message, handler)),
        ("Created", moment(message.created_on, now)),
        ("Updated", moment(message.updated_on, now)),
        ("Not before", moment(message.deliver_on, now)),
        ("Expires", moment(message.expires_on, now)),
        ("Task id", message.task_id),
        ("Task", message.miq_task_id),
        ("Callback", message.miq_callback),
        ("Label", message.tracking_label),
    ]


def _held_by(message: MiqQueue, handler: dict[str, Any] | None) -> str | None:
    if message.handler_id is None:
        return None
    if handler is None:
        return f"{message.handler_type} {message.handler_id}, which is gone"
    return f"{handler.get('type') or message.handler_type} {message.handler_id}, pid {handler['pid']}"
