"""Keeping the inventory of a manager: collect, parse, save. See `refresher` for one refresh, `queueing` to ask for one.

This module only registers what messages may call:
`EmsRefresh.refresh` with `[[class_name, id], ...]` and, optionally, why; one manager's failure does not keep the
others from being refreshed, but fails the message in the end. And `refresh_all_ems_timer` of a class of managers,
which the schedule calls.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from miq import plugins
from miq.connections import ManagerRow, manager_rows
from miq.ems_refresh import target
from miq.ems_refresh.queueing import queue_refresh
from miq.ems_refresh.refresher import refresh_manager
from miq.errors import RefreshFailed
from miq.models import ExtManagementSystem
from miq.queue.methods import queue_method

__all__ = ["queue_refresh", "refresh", "refresh_all_ems_timer"]

log = logging.getLogger(__name__)

BASE_CLASS = "ExtManagementSystem"


@queue_method("EmsRefresh", "refresh", idempotent=True)
def refresh(session: Session, record: None, targets: Any, cause: str | None = None) -> None:  # noqa: ANN401
    """Refresh the managers that are named, one after the other. Raises RefreshFailed with what went wrong."""
    failures = []
    for class_name, record_id in target.read(targets):
        ems = _manager(session, class_name, record_id)
        if ems is None:
            continue
        try:
            refresh_manager(session, ems, cause=cause)
        except RefreshFailed as error:
            failures.append(str(error))
    if failures:
        raise RefreshFailed("; ".join(failures))


def _manager(session: Session, class_name: str, record_id: int) -> ManagerRow | None:
    """The manager behind a target; None, with a log line, for one that is not to be refreshed."""
    if class_name != BASE_CLASS and plugins.manager_type(class_name) is None:
        log.warning("MIQ(EmsRefresh.refresh) %s %s: not a manager of an installed provider", class_name, record_id)
        return None
    ems = next(iter(manager_rows(session, [record_id])), None)
    if ems is None:
        log.warning("MIQ(EmsRefresh.refresh) EMS id: [%s] is gone: no refresh", record_id)
    elif not ems.enabled:
        log.info("MIQ(EmsRefresh.refresh) EMS: [%s], id: [%s] is paused: no refresh", ems.name, ems.id)
        return None
    return ems


@queue_method(BASE_CLASS, "refresh_all_ems_timer", idempotent=True)
def refresh_all_ems_timer(session: Session, record: None, class_name: str) -> None:
    """Queue a refresh of every enabled manager of a class."""
    of_class = select(ExtManagementSystem.id).where(ExtManagementSystem.type == class_name)
    queue_refresh(session, session.scalars(of_class).all(), cause="schedule")
