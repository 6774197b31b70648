"""RefreshWorker: keeps the inventory of one manager: asks for a full refresh when it starts, then serves `ems_<id>`."""

from __future__ import annotations

from miq.ems_refresh.queueing import queue_refresh
from miq.errors import ExitNow
from miq.workers.queue_worker_base import QueueWorkerBase


class RefreshWorker(QueueWorkerBase):
    """The runner of every refresh worker type that is fed by messages."""

    def after_initialize(self) -> None:
        super().after_initialize()
        found = self.database.run("SELECT 1 FROM ext_management_systems WHERE id = %(id)s", {"id": self.ems_id})
        if found.fetchone() is None:
            raise ExitNow(1, f"there is no manager for queue {self.launch.queue_name!r}")

    def before_work(self) -> None:
        assert self.ems_id is not None
        with self.database.session() as session:
            queue_refresh(session, [self.ems_id], cause="worker start", settings=self.settings)
