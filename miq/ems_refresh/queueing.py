"""Asking for a refresh: at most one ready message per manager, whoever asks and how often.

In: ids of managers and why. Out: messages on the queues `ems_<id>` in the caller's session, and a task for each when
somebody waits. A paused manager gets none. Nothing is refreshed here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from miq import names, paths, settings_loader
from miq.connections import ManagerRow, manager_rows
from miq.ems_refresh import target
from miq.models import MiqQueue
from miq.models.worker_types import BaseRefreshWorker, worker_types
from miq.queue.message import Message
from miq.queue.put import THE_CALL, Waiting, put_or_update
from miq.queue.tasks import create_task as put_task
from miq.queue.tasks import task_callback
from miq.settings import Settings

log = logging.getLogger(__name__)


def queue_refresh(
    session: Session,
    ems_ids: Sequence[int],
    *,
    cause: str,
    create_task: bool = False,
    settings: Settings | None = None,
) -> list[int]:
    """Put or merge one full refresh per enabled manager; the ids of their tasks when asked for."""
    settings = settings or session.info.get("settings") or settings_loader.local(paths.home())
    tasks = []
    for ems in manager_rows(session, ems_ids):
        if not ems.enabled:
            log.info("MIQ(EmsRefresh.queue_refresh) EMS: [%s], id: [%s] is paused: no refresh", ems.name, ems.id)
            continue
        message_id = _put(session, ems, cause, settings)
        if create_task and message_id is not None:
            tasks.append(_task_of(session, message_id, ems))
    return tasks


def _put(session: Session, ems: ManagerRow, cause: str, settings: Settings) -> int | None:
    targets = [(ems.type or "ExtManagementSystem", ems.id)]
    message = Message(
        class_name="EmsRefresh",
        method_name="refresh",
        args=[targets, cause],
        queue_name=names.queue_of(ems.id),
        zone=ems.zone,
        role="ems_inventory",
        msg_timeout=queue_timeout(ems.type, settings),
    )

    def merge(waiting: Waiting | None) -> dict[str, Any] | None:
        if waiting is None:
            return None
        waited_for = waiting.args[0] if waiting.args else []
        waiting_cause = waiting.args[1] if len(waiting.args) > 1 else None
        return {"args": [target.union(waited_for, targets), target.unite_causes(waiting_cause, cause)]}

    return put_or_update(session, message, merge, match=THE_CALL)


def _task_of(session: Session, message_id: int, ems: ManagerRow) -> int:
    """The task of the waiting message; a new one when nobody waits for it yet."""
    waiting = session.get_one(MiqQueue, message_id, populate_existing=True)
    if waiting.miq_task_id is None:
        name = f"EmsRefresh({ems.name}) Refreshing relationships and power states"
        waiting.miq_task_id = put_task(session, name)
        waiting.miq_callback = task_callback(waiting.miq_task_id).as_json()
        session.flush()
    return waiting.miq_task_id


def queue_timeout(ems_type: str | None, settings: Settings) -> int:
    """Seconds that a refresh of such a manager may take: `queue_timeout` of its refresh worker."""
    path = next(
        (
            kind.settings_path
            for kind in worker_types().values()
            if issubclass(kind, BaseRefreshWorker) and kind.manager == ems_type
        ),
        (*BaseRefreshWorker.settings_path, "defaults"),
    )
    return int(settings.worker_number(path, "queue_timeout"))
