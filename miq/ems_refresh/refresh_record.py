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

from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from miq import process
from miq.clock import utc
from miq.ems_refresh.saver import Counts
from miq.models import RefreshState
from miq.session import run_in

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
    run_in(
        session,
        "UPDATE ems_refreshes SET state = 'error', error = 'the worker died', finished_on = %(now)s"
        " WHERE ems_id = %(ems_id)s AND state = 'running'",
        {"ems_id": ems_id, "now": now},
    )
    opened = run_in(
        session,
        "INSERT INTO ems_refreshes (ems_id, cause, started_on, miq_task_id, worker_guid)"
        " VALUES (%(ems_id)s, %(cause)s, %(now)s, %(task_id)s, %(guid)s) RETURNING id",
        {
            "ems_id": ems_id,
            "cause": cause,
            "now": now,
            "task_id": miq_task_id,
            "guid": session.info.get("worker_guid"),
        },
    ).fetchone()
    session.commit()
    assert opened is not None
    process.reset_peak_rss()
    return Record(opened[0], ems_id)


def finish(
    session: Session, record: Record, state: RefreshState, error: str | None, counts: Mapping[str, Counts]
) -> None:
    """Close the record and tell the manager."""
    now = _close(session, record, state, error, counts)
    saved = ", last_refresh_success_date = %(now)s" if state in (RefreshState.OK, RefreshState.PARTIAL) else ""
    run_in(
        session,
        "UPDATE ext_management_systems"  # noqa: S608 - a constant
        f" SET last_refresh_date = %(now)s, last_refresh_error = %(error)s{saved} WHERE id = %(ems_id)s",
        {"ems_id": record.ems_id, "now": now, "error": error},
    )
    session.commit()


def stopped(session: Session, record: Record) -> None:
    """Close the record of a refresh that was left half way on purpose."""
    _close(session, record, RefreshState.ERROR, "stopped", {})
    session.commit()


def _close(
    session: Session, record: Record, state: RefreshState, error: str | None, counts: Mapping[str, Counts]
) -> datetime:
    now = utc()
    values: dict[str, Any] = {
        "id": record.id,
        "state": state,
        "now": now,
        "seconds": round(time.monotonic() - record.began, 3),
        "collections": Jsonb({name: count.as_json() for name, count in counts.items()}),
        "error": error,
        "peak": process.peak_rss(),
    }
    run_in(
        session,
        "UPDATE ems_refreshes SET state = %(state)s, finished_on = %(now)s, seconds = %(seconds)s,"
        " collections = %(collections)s, error = %(error)s, memory_peak = %(peak)s WHERE id = %(id)s",
        values,
    )
    return now
