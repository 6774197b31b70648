"""The region: all zones on one database; and the database's own row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id


class MiqRegion(Base):
    """One row per database; record ids start at region * 10^12 + 1."""

    __tablename__ = "miq_regions"
    __table_args__ = (Index("index_miq_regions_on_region", "region", unique=True),)

    id: Mapped[Id]
    region: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    description: Mapped[str | None]
    guid: Mapped[str | None]
    maintenance_zone_id: Mapped[Big | None]


class MiqDatabase(Base):
    """Facts of the database itself: whose encryption key its secrets need."""

    __tablename__ = "miq_databases"

    id: Mapped[Id]
    created_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    session_secret_token: Mapped[str | None]
    csrf_secret_token: Mapped[str | None]
    guid: Mapped[str | None]
    v2_key_fingerprint: Mapped[str | None]
