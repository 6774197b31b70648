"""Waiting for what a worker does to a manager: a check of its credentials, a refresh.

Where a server of the manager's zone lives, the work is queued and waited for with progress. Where none does, a check
runs in this process, and a refresh waits in the queue and says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from miq import names
from miq.cli.output import progress
from miq.cli.tasks import await_task
from miq.db import Database
from miq.errors import (
    IncompleteCredentials,
    InvalidCredentials,
    MiqError,
    ProviderError,
    ProviderUnreachable,
)
from miq.managers.credentials import TIMEOUT, Checked, check_now, queue_check
from miq.managers.rows import find_authentication
from miq.models import (
    AuthenticationStatus,
    ExtManagementSystem,
    MiqServer,
    MiqTask,
    MiqWorker,
    ServerStatus,
    TaskState,
    TaskStatus,
    WorkerStatus,
)
from miq.queue.tasks import find_task
from miq.settings import Settings

TAKE_SECONDS = 30.0
CHECK_SECONDS = float(TIMEOUT)

_ERRORS: dict[str | None, type[ProviderError]] = {
    AuthenticationStatus.INVALID: InvalidCredentials,
    AuthenticationStatus.INCOMPLETE: IncompleteCredentials,
    AuthenticationStatus.UNREACHABLE: ProviderUnreachable,
}


def is_served(session: Session, ems: ExtManagementSystem, settings: Settings) -> bool:
    """Whether a live server looks after the manager's zone."""
    oldest = func.utc_now() - func.make_interval(0, 0, 0, 0, 0, 0, settings.number("server.heartbeat_timeout", 120))
    alive = select(MiqServer.id).where(
        MiqServer.status == ServerStatus.STARTED, MiqServer.last_heartbeat > oldest, MiqServer.zone_id == ems.zone_id
    )
    return session.scalar(alive.limit(1)) is not None


def has_worker(session: Session, ems: ExtManagementSystem) -> bool:
    """Whether a worker takes from the manager's queue, by hand or supervised."""
    taking = select(MiqWorker.id).where(
        MiqWorker.queue_name == names.queue_of(ems.id),
        or_(MiqWorker.status == WorkerStatus.STARTED, MiqWorker.status == WorkerStatus.STARTING),
    )
    return session.scalar(taking.limit(1)) is not None


def check(database: Database, ems_id: int, settings: Settings) -> Checked:
    """Check the manager's credentials, by a worker if there is one. Raises MiqError when nobody took it."""
    with database.session() as session:
        ems = session.get_one(ExtManagementSystem, ems_id)
        if not is_served(session, ems, settings):
            with progress(f"checking {ems.name} in this process") as tell:
                tell("calling")
                return check_now(session, ems, settings)
        task_id = queue_check(session, ems)
    assert task_id is not None
    with progress(f"checking {ems.name}") as tell:
        task = _wait_for_check(database, task_id, lambda task: tell(task.state or ""))
    if task is None:
        raise MiqError(f"no worker has checked {ems.name} yet, it waits in the queue: see `miq queue` and `miq status`")
    if task.status != TaskStatus.OK:
        raise MiqError(f"the check of {ems.name} failed: {task.message}")
    return _found(database, ems_id)


def _wait_for_check(database: Database, task_id: int, tell: Callable[[MiqTask], None]) -> MiqTask | None:
    """Waits longer for one that a worker has taken."""
    task = await_task(database, task_id, seconds=TAKE_SECONDS, tell=tell)
    if task is not None:
        return task
    with database.session() as session:
        taken = find_task(session, task_id)
    if taken is None or taken.state == TaskState.QUEUED:
        return None
    return await_task(database, task_id, seconds=CHECK_SECONDS, tell=tell)


def _found(database: Database, ems_id: int) -> Checked:
    with database.session() as session:
        authentication = find_authentication(session, ems_id)
        if authentication is None or authentication.status is None:
            raise MiqError("the manager was changed while it was checked: `miq ems check` again")
        return Checked(authentication.status, authentication.status_details or "")


def raise_unless_valid(name: str, checked: Checked) -> None:
    """Raises the ProviderError that the status stands for, with what to do about it."""
    if not checked.valid:
        kind = _ERRORS.get(checked.status, ProviderError)
        raise kind(
            f"{name}: {checked.status}: {checked.details}"
            f" (kept; `miq ems edit {shlex.quote(name)}` changes it, `miq ems remove {shlex.quote(name)}` removes it)"
        )
