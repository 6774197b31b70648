"""Tasks: rows that a user waits for while messages do the work.

    Initialized ─▶ Queued ─▶ Active ─▶ Finished        Ok, Warn, Error or Timeout

A message names its task (`miq_task_id`), which becomes Active when the message starts; the message's callback ends it
with the message's outcome and keeps the result as JSON. A task that is over is left as it is, whoever ends it again.
Every change is one plain statement in the caller's session; only waiting reads rows of the ORM, for commands do that.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.db import database_of
from miq.errors import UsageError
from miq.models import MiqTask, TaskState, TaskStatus
from miq.models.miq_task import TASK_MOVES
from miq.queue.message import Callback, Message
from miq.queue.methods import queue_method
from miq.queue.put import origin_of, put
from miq.queue.statements import statement
from miq.session import run_in

log = logging.getLogger(__name__)


def create_task(
    session: Session, name: str, *, userid: str = "system", zone: str | None = None, identifier: str | None = None
) -> int:
    """A task in state Queued; its id. `identifier` is `Class:id` of what it is about."""
    message = f"Queued the action: [{name}] being run for user: [{userid}]"
    columns = {"name": name, "userid": userid, "message": message, "zone": zone, "identifier": identifier}
    row = run_in(session, statement("task_create"), columns).fetchone()
    assert row is not None
    log.info("MIQ(MiqTask.create) Task: [%s] %s", row[0], message)
    return int(row[0])


def task_callback(task_id: int) -> Callback:
    """The callback that ends the task with its message's outcome."""
    return Callback("MiqTask", "queue_callback", task_id, [TaskState.FINISHED])


def generic_action_with_callback(session: Session, name: str, userid: str, message: Message) -> int:
    """Put a message that a user waits for; the id of its task (reference 5.6).

    Options, a mapping that comes first in `args`, are told the task as `task_id`. If the message's zone is in
    maintenance, nobody takes it, and the task has ended already.
    """
    zone = message.zone_from(origin_of(session))
    about = f"{message.class_name}:{message.instance_id}" if message.instance_id is not None else None
    task_id = create_task(session, name, userid=userid, zone=zone, identifier=about)
    args = list(message.args)
    if args and isinstance(args[0], dict):
        args[0] = {**args[0], "task_id": task_id}
    if put(session, replace(message, args=args, miq_task_id=task_id, callback=task_callback(task_id))) is None:
        update_status(session, task_id, TaskState.FINISHED, TaskStatus.ERROR, f"Zone {zone} is in maintenance")
    return task_id


@queue_method("MiqTask", "queue_callback", idempotent=True, model=MiqTask)
def queue_callback(session: Session, task: MiqTask | None, state: str, status: str, message: str, result: Any) -> None:  # noqa: ANN401
    """Move the task to `state` as its message ended (reference 5.6). One that is gone, or over, is left as it is."""
    if task is None:
        return
    if status == "ok":
        message = "Task completed successfully"
    update_status(session, task.id, state, status, message or "Task did not complete successfully", result=result)


def update_status(
    session: Session,
    task_id: int,
    state: str,
    status: str,
    message: str,
    *,
    result: Any = None,  # noqa: ANN401 - any JSON value
) -> bool:
    """Move a task, unless it is gone or may not go there; whether it went.

    A status that tasks do not have, such as `Expired`, is an Error. The first move to Active starts its clock.
    """
    running = session.info.get("message")
    stored = TaskStatus.of(status)
    changed = run_in(
        session,
        statement("task_update"),
        {
            "id": task_id,
            "state": state,
            "status": stored,
            "message": message,
            "results": None if result is None else _as_json(result),
            "running_id": running.id if running is not None else None,
            "from": ",".join(TASK_MOVES.get(state, ())),
        },
    ).rowcount
    if changed:
        log.info("MIQ(MiqTask#update_status) Task: [%s] [%s] [%s] [%s]", task_id, state, stored, message)
    return bool(changed)


def _as_json(result: Any) -> str:  # noqa: ANN401 - whatever a method returned
    """A result as text; what JSON does not know is written as Python does: a task must end, whatever the result."""
    try:
        return json.dumps(result, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(str(result))


def tell_progress(session: Session, *, pct_complete: int | None = None, message: str | None = None) -> None:
    """From within a running method: tell whoever waits for its task how far it is; nothing when nobody does.

    A process has one connection. So others see it at once as long as the method has no transaction open, which long
    work has not while it waits for somebody; else with the method's next commit.
    """
    running = session.info.get("message")
    if running is None or running.miq_task_id is None:
        return
    percent = None if pct_complete is None else max(0, min(100, pct_complete))
    database_of(session).run(
        statement("task_progress"), {"id": running.miq_task_id, "pct_complete": percent, "message": message}
    )


def remove_task(session: Session, task_id: int) -> None:
    """Delete a task that is Queued or Finished, and its job. Raises UsageError when it, or its job, is at work."""
    if run_in(session, statement("task_remove"), {"id": task_id}).fetchone() is not None:
        log.info("MIQ(MiqTask#destroy) Task deleted; id: [%s]", task_id)
        return
    row = run_in(session, "SELECT state FROM miq_tasks WHERE id = %(id)s", {"id": task_id}).fetchone()
    if row is None:
        raise no_task(task_id)
    if row[0] in (TaskState.QUEUED, TaskState.FINISHED):
        raise UsageError(f"task {task_id} has a job that is at work: remove it when that has finished")
    raise UsageError(f"task {task_id} is {row[0]}: only one that is Queued or Finished can be removed")


def no_task(task_id: int) -> UsageError:
    """What is said of a task that is not there."""
    return UsageError(f"no task {task_id}; `miq tasks --all` lists them")


def wait_for_task(
    read: Callable[[], MiqTask | None], *, seconds: float, seen: Callable[[MiqTask], None], pause: float = 0.2
) -> MiqTask | None:
    """Wait until a task is Finished; None when it is not within `seconds`, or gone. `seen` is told of every look."""
    end = time.monotonic() + seconds
    while (task := read()) is not None and task.state != TaskState.FINISHED:
        seen(task)
        if time.monotonic() > end:
            return None
        time.sleep(pause)
    return task


def find_task(session: Session, task_id: int) -> MiqTask | None:
    """The task as it is now."""
    return session.scalars(
        select(MiqTask).where(MiqTask.id == task_id).execution_options(populate_existing=True)
    ).first()
