"""Worker rows: what the supervisor knows of a worker.

The row's class of work is its `type`, a name that `models.worker_types` maps to a small class, which names the runner.
Rows vanish when their process ends; `miq_worker_exits` keeps how."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from miq.models.base import Base, Big, Id


class MiqWorker(Base):
    """What the supervisor knows of one worker; vanishes with it."""

    __tablename__ = "miq_workers"
    __table_args__ = (
        Index("index_miq_workers_on_guid", "guid", unique=True),
        Index("index_miq_workers_on_miq_server_id", "miq_server_id"),
        Index("index_miq_workers_on_queue_name", "queue_name"),
        Index("index_miq_workers_on_status", "status"),
        Index("index_miq_workers_on_worker_type", "type"),
    )

    id: Mapped[Id]
    guid: Mapped[str | None]
    status: Mapped[str | None] = mapped_column(server_default=text("'creating'"))
    started_on: Mapped[datetime | None]
    stopped_on: Mapped[datetime | None]
    last_heartbeat: Mapped[datetime | None]
    pid: Mapped[int | None]
    queue_name: Mapped[str | None]
    type: Mapped[str | None]
    percent_memory: Mapped[float | None]
    percent_cpu: Mapped[float | None]
    cpu_time: Mapped[float | None]
    os_priority: Mapped[int | None]
    memory_usage: Mapped[Decimal | None]
    memory_size: Mapped[Decimal | None]
    uri: Mapped[str | None]
    miq_server_id: Mapped[Big | None]
    sql_spid: Mapped[int | None]
    proportional_set_size: Mapped[Decimal | None]
    unique_set_size: Mapped[Decimal | None]
    system_uid: Mapped[str | None]
    pid_start: Mapped[Big | None]
    unsupervised: Mapped[bool] = mapped_column(server_default=text("false"))


class WorkerStatus(StrEnum):
    """`miq_workers.status`; `ready`, `working` and `killed` are upstream's and written by nobody."""

    CREATING = "creating"
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ABORTED = "aborted"


STATUSES_STARTING = (WorkerStatus.CREATING, WorkerStatus.STARTING)
STATUSES_PRESENT = (*STATUSES_STARTING, WorkerStatus.STARTED, WorkerStatus.STOPPING)

# To a status, from which ones (reference 3.1).
WORKER_MOVES: dict[str, tuple[str, ...]] = {
    WorkerStatus.STARTING: (WorkerStatus.CREATING,),
    WorkerStatus.STARTED: (WorkerStatus.STARTING,),
    WorkerStatus.STOPPING: (WorkerStatus.CREATING, WorkerStatus.STARTING, WorkerStatus.STARTED),
    WorkerStatus.STOPPED: (WorkerStatus.STARTING, WorkerStatus.STARTED, WorkerStatus.STOPPING),
    WorkerStatus.ABORTED: STATUSES_PRESENT,
}
