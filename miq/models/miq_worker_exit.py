"""How workers ended: the answer to "why did it die last night"."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class MiqWorkerExit(Base):
    """One ended worker; purged after 7 days."""

    __tablename__ = "miq_worker_exits"
    __table_args__ = (
        Index("index_miq_worker_exits_on_type", "type", "queue_name", "ended_on"),
        Index("index_miq_worker_exits_on_ended_on", "ended_on"),
    )

    id: Mapped[Id]
    type: Mapped[str]
    queue_name: Mapped[str | None]
    miq_server_id: Mapped[Big | None]
    worker_id: Mapped[Big | None]
    guid: Mapped[str | None]
    pid: Mapped[int | None]
    started_on: Mapped[datetime | None]
    ended_on: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    reason: Mapped[LongText | None]
    memory_usage: Mapped[Decimal | None]
    message_id: Mapped[Big | None]
    messages_finished: Mapped[int | None]
    deaths_in_vain: Mapped[int] = mapped_column(server_default=text("0"))
    back_off_until: Mapped[datetime | None]
