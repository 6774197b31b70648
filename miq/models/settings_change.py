"""Settings that differ from the shipped ones."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class SettingsChange(Base):
    """One changed setting of a region, zone or server; `value` is YAML."""

    __tablename__ = "settings_changes"
    __table_args__ = (
        Index("index_settings_changes_on_key", "key"),
        Index("settings_changes_identity", "resource_type", "resource_id", "key", unique=True),
    )

    id: Mapped[Id]
    resource_type: Mapped[str | None]
    resource_id: Mapped[Big | None]
    key: Mapped[str | None]
    value: Mapped[LongText | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("utc_now()"))
