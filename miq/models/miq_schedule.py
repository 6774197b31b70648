"""Schedules that users define."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class MiqSchedule(Base):
    """A user's schedule."""

    __tablename__ = "miq_schedules"
    __table_args__ = (
        Index(
            "miq_schedules_identity",
            "name",
            "userid",
            "resource_type",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index("index_miq_schedules_on_miq_search_id", "miq_search_id"),
        Index("index_miq_schedules_on_updated_at", "updated_at"),
        Index("index_miq_schedules_on_zone_id", "zone_id"),
    )

    id: Mapped[Id]
    name: Mapped[str | None]
    description: Mapped[str | None]
    sched_action: Mapped[LongText | None]
    filter: Mapped[LongText | None]
    resource_type: Mapped[str | None]
    run_at: Mapped[LongText | None]
    enabled: Mapped[bool | None]
    userid: Mapped[str | None]
    prod_default: Mapped[str | None]
    last_run_on: Mapped[datetime | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_at: Mapped[datetime | None]
    miq_search_id: Mapped[Big | None]
    zone_id: Mapped[Big | None]
    adhoc: Mapped[bool | None]
    resource_id: Mapped[Big | None]
