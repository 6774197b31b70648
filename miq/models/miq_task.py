"""Tasks: what a user waits for while messages do the work."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class MiqTask(Base):
    """Work that somebody waits for."""

    __tablename__ = "miq_tasks"
    __table_args__ = (Index("index_miq_tasks_on_miq_server_id", "miq_server_id"),)

    id: Mapped[Id]
    name: Mapped[str | None]
    state: Mapped[str | None]
    status: Mapped[str | None]
    message: Mapped[LongText | None]
    userid: Mapped[str | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    pct_complete: Mapped[int | None]
    context_data: Mapped[LongText | None]
    results: Mapped[LongText | None]
    miq_server_id: Mapped[Big | None]
    identifier: Mapped[str | None]
    started_on: Mapped[datetime | None]
    zone: Mapped[str | None]


class TaskState(StrEnum):
    """`miq_tasks.state`."""

    INITIALIZED = "Initialized"
    QUEUED = "Queued"
    ACTIVE = "Active"
    FINISHED = "Finished"


class TaskStatus(StrEnum):
    """`miq_tasks.status`."""

    OK = "Ok"
    WARN = "Warn"
    ERROR = "Error"
    TIMEOUT = "Timeout"

    @classmethod
    def of(cls, outcome: str) -> TaskStatus:
        """What the end of a message makes of its task; an end that tasks do not have, as `expired`, is an Error."""
        return next((status for status in cls if status.lower() == outcome.lower()), cls.ERROR)


# To a state, from which ones.
TASK_MOVES: dict[str, tuple[str, ...]] = {
    TaskState.QUEUED: (TaskState.INITIALIZED,),
    TaskState.ACTIVE: (TaskState.INITIALIZED, TaskState.QUEUED, TaskState.ACTIVE),
    TaskState.FINISHED: (TaskState.INITIALIZED, TaskState.QUEUED, TaskState.ACTIVE),
}
