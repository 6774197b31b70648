"""The message queue, one row per message.

A finished message is deleted; one that failed stays in `error` or `timeout` until it is purged. `args` is a JSON array.
`attempts`, `last_error` and `merge_key` are ours; everything else is the modelled schema."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id, LongText


class MiqQueue(Base):
    """A message: call a method, routed by queue, zone, role, server and priority."""

    __tablename__ = "miq_queue"
    __table_args__ = (
        Index("miq_queue_get_idx", "queue_name", "priority", "id", postgresql_where=text("state = 'ready'")),
        Index(
            "miq_queue_merge_idx",
            "merge_key",
            unique=True,
            postgresql_where=text("state = 'ready' AND merge_key IS NOT NULL"),
        ),
        Index(
            "miq_queue_task_idx",
            "task_id",
            unique=True,
            postgresql_where=text("state = 'dequeue' AND task_id IS NOT NULL"),
        ),
        Index("miq_queue_handler_idx", "handler_type", "handler_id", postgresql_where=text("state = 'dequeue'")),
        Index(
            "miq_queue_failed_idx",
            "updated_on",
            postgresql_where=text("state IN ('warn', 'error', 'timeout', 'expired')"),
        ),
        Index(
            "miq_queue_due_idx",
            "queue_name",
            "deliver_on",
            postgresql_where=text("state = 'ready' AND deliver_on IS NOT NULL"),
        ),
        Index(
            "miq_queue_expiry_idx", "expires_on", postgresql_where=text("state = 'ready' AND expires_on IS NOT NULL")
        ),
        Index("miq_queue_stateless_idx", "id", postgresql_where=text("state IS NULL")),
        Index(
            "miq_queue_busy_merge_idx",
            "merge_key",
            postgresql_where=text("state = 'dequeue' AND merge_key IS NOT NULL"),
        ),
        Index("index_miq_queue_on_task_id", "task_id", postgresql_where=text("task_id IS NOT NULL")),
        Index("index_miq_queue_on_miq_task_id", "miq_task_id", postgresql_where=text("miq_task_id IS NOT NULL")),
    )

    id: Mapped[Id]
    target_id: Mapped[Big | None]
    priority: Mapped[int | None] = mapped_column(server_default=text("100"))
    method_name: Mapped[str | None]
    state: Mapped[str | None] = mapped_column(server_default=text("'ready'"))
    created_on: Mapped[datetime | None] = mapped_column(server_default=text("utc_now()"))
    updated_on: Mapped[datetime | None]
    lock_version: Mapped[int | None] = mapped_column(server_default=text("0"))
    task_id: Mapped[str | None]
    deliver_on: Mapped[datetime | None]
    queue_name: Mapped[str | None] = mapped_column(server_default=text("'generic'"))
    class_name: Mapped[str | None]
    instance_id: Mapped[Big | None]
    args: Mapped[LongText | None]
    miq_callback: Mapped[LongText | None]
    msg_data: Mapped[bytes | None]
    zone: Mapped[str | None]
    role: Mapped[str | None]
    server_guid: Mapped[str | None]
    msg_timeout: Mapped[int | None] = mapped_column(server_default=text("600"))
    handler_id: Mapped[Big | None]
    handler_type: Mapped[str | None]
    expires_on: Mapped[datetime | None]
    tracking_label: Mapped[str | None]
    user_id: Mapped[Big | None]
    group_id: Mapped[Big | None]
    tenant_id: Mapped[Big | None]
    miq_task_id: Mapped[Big | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[LongText | None]
    merge_key: Mapped[str | None]


class Priority(IntEnum):
    """Lower is sooner; a row may hold any number from 0 to 200."""

    MAX = 0
    HIGH = 20
    MEDIUM = 50
    NORMAL = 100
    LOW = 150
    MIN = 200


class MessageState(StrEnum):
    """`miq_queue.state`."""

    READY = "ready"
    DEQUEUE = "dequeue"
    WARN = "warn"
    ERROR = "error"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
