"""Jobs: state machines that run over many messages."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class Job(Base):
    """One run of a state machine."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("index_jobs_on_guid", "guid", unique=True),
        Index("index_jobs_on_dispatch_status", "dispatch_status"),
        Index("index_jobs_on_miq_server_id", "miq_server_id"),
        Index("index_jobs_on_miq_task_id", "miq_task_id"),
        Index("index_jobs_on_state", "state"),
        Index("index_jobs_on_target_id_and_target_class", "target_id", "target_class"),
        Index("index_jobs_on_type", "type"),
    )

    id: Mapped[Id]
    guid: Mapped[str | None]
    state: Mapped[str | None]
    status: Mapped[str | None]
    message: Mapped[LongText | None]
    name: Mapped[str | None]
    userid: Mapped[str | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    target_id: Mapped[Big | None]
    target_class: Mapped[str | None]
    type: Mapped[str | None]
    agent_message: Mapped[LongText | None]
    started_on: Mapped[datetime | None]
    dispatch_status: Mapped[str | None]
    sync_key: Mapped[str | None]
    miq_server_id: Mapped[Big | None]
    zone: Mapped[str | None]
    options: Mapped[LongText | None]
    context: Mapped[LongText | None]
    miq_task_id: Mapped[Big | None]
