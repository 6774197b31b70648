"""`miq tasks`: what somebody waits for, how far it is, and how it ended."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miq.cli.connect import open_database, open_session
from miq.cli.output import AsJson, age, columns_of, moment, print_facts, print_json, print_table, progress, say
from miq.db import Database
from miq.errors import MiqError, UsageError
from miq.models import MiqQueue, MiqTask, TaskState, TaskStatus
from miq.queue.tasks import find_task, no_task, remove_task, wait_for_task

TaskId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="A task, see `miq tasks`.")]

command = typer.Typer(invoke_without_command=True)


@command.callback()
def show_list(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only those in this state, e.g. Active.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are Finished.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the tasks that are not Finished."""
    if context.invoked_subcommand is not None:
        return
    wanted = _state(state)
    with open_session() as session:
        now = session.scalars(select(func.utc_now())).one()
        tasks = _tasks(session, wanted, everything)
    if as_json:
        print_json([_record(task, now) for task in tasks])
        return
    rows = [
        (
            task.id,
            task.name,
            task.state,
            task.status,
            task.message,
            task.pct_complete,
            task.userid,
            age(_seconds(task, now)),
            task.zone,
        )
        for task in tasks
    ]
    print_table(("Id", "Name", "State", "Status", "Message", "%", "User", "Age", "Zone"), rows, right=("Id", "%"))


def _state(wanted: str | None) -> TaskState | None:
    if wanted is None:
        return None
    found = {state.lower(): state for state in TaskState}.get(wanted.lower())
    if found is None:
        raise UsageError(f"no task state {wanted!r}; there are: {', '.join(TaskState)}")
    return found


def _tasks(session: Session, state: TaskState | None, everything: bool) -> list[MiqTask]:
    statement = select(MiqTask).order_by(MiqTask.id)
    if state is not None:
        statement = statement.where(MiqTask.state == state)
    elif not everything:
        statement = statement.where(MiqTask.state.is_distinct_from(TaskState.FINISHED))
    return list(session.scalars(statement))


def _seconds(task: MiqTask, now: datetime) -> float | None:
    return (now - task.created_on).total_seconds() if task.created_on is not None else None


def _record(task: MiqTask, now: datetime) -> dict[str, Any]:
    return columns_of(task) | {"results": result_of(task), "age": _seconds(task, now)}


def result_of(task: MiqTask) -> Any:  # noqa: ANN401 - any JSON value
    """What the task's method returned; text that is no JSON, of whoever wrote it, as it is."""
    try:
        return None if task.results is None else json.loads(task.results)
    except ValueError:
        return task.results


@command.command("show")
def show(task_id: TaskId, as_json: AsJson = False) -> None:
    """Show one task."""
    with open_session() as session:
        now = session.scalars(select(func.utc_now())).one()
        task = _found(session, task_id)
        messages = session.scalars(
            select(MiqQueue.id).where(MiqQueue.miq_task_id == task_id).order_by(MiqQueue.id)
        ).all()
    if as_json:
        print_json(_record(task, now) | {"messages": list(messages)})
    else:
        print_facts(_facts(task, now, list(messages)))


def _found(session: Session, task_id: int) -> MiqTask:
    task = find_task(session, task_id)
    if task is None:
        raise no_task(task_id)
    return task


def _facts(task: MiqTask, now: datetime, messages: list[int]) -> list[tuple[str, object]]:
    return [
        ("Name", task.name),
        ("Id", task.id),
        ("State", task.state),
        ("Status", task.status),
        ("Message", task.message),
        ("Complete", None if task.pct_complete is None else f"{task.pct_complete}%"),
        ("User", task.userid),
        ("Zone", task.zone),
        ("About", task.identifier),
        ("Server id", task.miq_server_id),
        ("Created", moment(task.created_on, now)),
        ("Started", moment(task.started_on, now)),
        ("Updated", moment(task.updated_on, now)),
        ("Result", task.results),
        ("In the queue", ", ".join(f"message {each}" for each in messages)),
    ]


@command.command("wait")
def wait(
    task_id: TaskId,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait; for ever when not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait for a task to end; exit code 1 when it does not end well, or not in time."""
    with open_database() as database:
        with database.session() as session:
            _found(session, task_id)
        task = wait_for(database, task_id, math.inf if timeout is None else timeout)
        finish(database, task, as_json)


def await_task(database: Database, task_id: int, *, seconds: float, tell: Callable[[MiqTask], None]) -> MiqTask | None:
    """The task when it is Finished, None when it is not in time, or gone. `tell` is told of every look."""
    return wait_for_task(lambda: _read(database, task_id), seconds=seconds, seen=tell)


def _read(database: Database, task_id: int) -> MiqTask | None:
    with database.session() as session:
        return find_task(session, task_id)


def wait_for(database: Database, task_id: int, seconds: float) -> MiqTask:
    """The task when it is Finished, with progress meanwhile.

    Raises MiqError when it is not in time, and UsageError when somebody removes it.
    """
    with progress(f"task {task_id}") as tell:
        ended = await_task(database, task_id, seconds=seconds, tell=lambda task: tell(_words(task)))
    if ended is not None:
        return ended
    left = _read(database, task_id)
    if left is None:
        raise no_task(task_id)
    raise MiqError(f"task {task_id} has not ended within {seconds:g} s, it goes on: {_words(left)}")


def _words(task: MiqTask) -> str:
    """How far it is, in a few words."""
    percent = "" if task.pct_complete is None else f" {task.pct_complete}%"
    return f"{task.state}{percent}, {task.message}"


def finish(database: Database, task: MiqTask, as_json: bool) -> None:
    """Print how it ended and what came of it. Raises MiqError, for the exit code, when it did not end well."""
    if as_json:
        with database.session() as session:
            print_json(_record(task, session.scalars(select(func.utc_now())).one()))
    elif task.status == TaskStatus.OK:
        print(f"task {task.id} {task.state}, {task.status}: {task.message}")
    if not as_json and task.results is not None:
        print(json.dumps(result_of(task), indent=2, ensure_ascii=False))
    if task.status != TaskStatus.OK:
        raise MiqError(f"task {task.id} ended as {task.status}: {task.message}")


@command.command("remove")
def remove(task_id: TaskId, as_json: AsJson = False) -> None:
    """Remove a task that is Queued or Finished; its message, if it has one, stays in the queue."""
    with open_session() as session:
        remove_task(session, task_id)
        messages = list(session.scalars(select(MiqQueue.id).where(MiqQueue.miq_task_id == task_id)))
    if as_json:
        print_json({"id": task_id, "messages": messages})
        return
    print(f"removed task {task_id}")
    for message_id in messages:
        say(f"message {message_id} of it stays in the queue: `miq queue show {message_id}`")
