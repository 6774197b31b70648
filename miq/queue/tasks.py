"""Tasks: rows that a user waits for while messages do the work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.models import MiqTask, TaskState, TaskStatus
from miq.models.miq_task import TASK_MOVES
from miq.queue.methods import queue_method
from miq.queue.put import Callback

_STATUS = {"ok": TaskStatus.OK, "warn": TaskStatus.WARN, "timeout": TaskStatus.TIMEOUT}


def create_task(session: Session, name: str, *, userid: str = "system") -> int:
    """A task in state Queued; its id."""
    task = MiqTask(
        name=name,
        userid=userid,
        state=TaskState.QUEUED,
        status=TaskStatus.OK,
        message="Queued the action",
        created_on=utc(),
    )
    task.updated_on = task.created_on
    session.add(task)
    session.flush()
    return task.id


def task_callback(task_id: int) -> Callback:
    """The callback that ends the task with its message's outcome."""
    return Callback("MiqTask", "queue_callback", task_id, [TaskState.FINISHED])


@queue_method("MiqTask", "queue_callback", idempotent=True, model=MiqTask)
def queue_callback(session: Session, task: MiqTask | None, state: str, status: str, message: str, result: Any) -> None:  # noqa: ANN401
    """End the task as its message ended (reference 5.6). A task that is gone, or over, is left as it is."""
    if task is None or task.state not in TASK_MOVES[TaskState.FINISHED]:
        return
    task.state = state
    task.status = _STATUS.get(status, TaskStatus.ERROR)
    task.message = "Task completed successfully" if status == "ok" else message
    task.results = json.dumps(result) if result is not None else None
    task.updated_on = utc()


def wait_for_task(
    read: Callable[[], MiqTask | None], *, seconds: float, seen: Callable[[MiqTask], None], pause: float = 0.2
) -> MiqTask | None:
    """Wait until a task is Finished; None when it is not within `seconds`. `seen` is told of every look."""
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
