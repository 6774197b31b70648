"""The history of refreshes, running ones included. Ours: the modelled system keeps only the last error.

`collections` maps each collection to {seen, created, updated, unchanged, archived, complete}."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, Json, LongText


class EmsRefresh(Base):
    """One run of a refresh: what it read and what it changed."""

    __tablename__ = "ems_refreshes"
    __table_args__ = (Index("index_ems_refreshes_on_ems_id", "ems_id", "id"),)

    id: Mapped[Id]
    ems_id: Mapped[Big]
    kind: Mapped[str] = mapped_column(server_default=text("'full'"))
    cause: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'running'"))
    started_on: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    finished_on: Mapped[datetime | None]
    seconds: Mapped[float | None]
    collections: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    error: Mapped[LongText | None]
    memory_peak: Mapped[Big | None]
    miq_task_id: Mapped[Big | None]
    worker_guid: Mapped[str | None]


class RefreshState(StrEnum):
    """`ems_refreshes.state`. `partial`: something could not be read, so nothing of that collection was archived."""

    RUNNING = "running"
    OK = "ok"
    PARTIAL = "partial"
    ERROR = "error"
