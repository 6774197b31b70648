"""The table of worker classes, for operators' SQL; the classes themselves are in `worker_types`."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped

from miq.models.base import Base, Id, Names


class MiqWorkerType(Base):
    """One worker class that this installation knows."""

    __tablename__ = "miq_worker_types"
    __table_args__ = (Index("index_miq_worker_types_on_worker_type", "worker_type", unique=True),)

    id: Mapped[Id]
    worker_type: Mapped[str]
    bundler_groups: Mapped[Names | None]
    kill_priority: Mapped[int | None]
