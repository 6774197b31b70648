"""Zones group servers and managers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Id, LongText


class Zone(Base):
    """`default`, the invisible maintenance zone, and the user's own."""

    __tablename__ = "zones"
    __table_args__ = (Index("index_zones_on_name", "name", unique=True),)

    id: Mapped[Id]
    name: Mapped[str | None]
    description: Mapped[str | None]
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    settings: Mapped[LongText | None]
    visible: Mapped[bool | None] = mapped_column(server_default=text("true"))
