"""The record of a refresh: its row in `ems_refreshes`, and the `last_refresh_*` columns of its manager.

`last_refresh_date` moves at every end. Whatever was saved, ok or partial, moves `last_refresh_success_date`;
`last_refresh_error` is null only after an ok, so a partial refresh shows what could not be read. A stopped one
changes nothing of the manager. Each function commits by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from miq import process
from miq.clock import utc
from miq.ems_refresh.saver import Counts
from miq.models import EmsRefresh, ExtManagementSystem, RefreshState

log = logging.getLogger(__name__)


@dataclass
class Record:
    """One refresh under way."""

    id: int
    ems_id: int
    began: float = field(default_factory=time.monotonic)


def begin(session: Session, ems_id: int, cause: str | None, miq_task_id: int | None) -> Record:
    """Open the record; one that a dead worker left running is closed first."""
    now = utc()
    left = update(EmsRefresh).where(EmsRefresh.ems_id == ems_id, EmsRefresh.state == RefreshState.RUNNING)
    session.execute(left.values(state=RefreshState.ERROR, error="the worker died", finished_on=now))
    row = EmsRefresh(
        ems_id=ems_id,
        kind="full",
        cause=cause,
        state=RefreshState.RUNNING,
        started_on=now,
        collections={},
        miq_task_id=miq_task_id,
        worker_guid=session.info.get("worker_guid"),
    )
    session.add(row)
    session.commit()
    process.reset_peak_rss()
    return Record(row.id, ems_id)


def finish(
    session: Session, record: Record, state: RefreshState, error: str | None, counts: Mapping[str, Counts]
) -> None:
    """Close the record and tell the manager."""
    now = _close(session, record, state, error, counts)
    told: dict[str, Any] = {"last_refresh_date": now, "last_refresh_error": error}
    if state in (RefreshState.OK, RefreshState.PARTIAL):
        told["last_refresh_success_date"] = now
    session.execute(update(ExtManagementSystem).where(ExtManagementSystem.id == record.ems_id).values(told))
    session.commit()


def stopped(session: Session, record: Record) -> None:
    """Close the record of a refresh that was left half way on purpose."""
    _close(session, record, RefreshState.ERROR, "stopped", {})
    session.commit()


def _close(
    session: Session, record: Record, state: RefreshState, error: str | None, counts: Mapping[str, Counts]
) -> datetime:
    now = utc()
    session.execute(
        update(EmsRefresh)
        .where(EmsRefresh.id == record.id)
        .values(
            state=state,
            finished_on=now,
            seconds=round(time.monotonic() - record.began, 3),
            collections={name: count.as_json() for name, count in counts.items()},
            error=error,
            memory_peak=process.peak_rss(),
        )
    )
    return now
