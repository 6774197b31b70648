"""The plain queue runners: nothing but the loop; their types say which queue they serve."""

from __future__ import annotations

from miq.workers.queue_worker_base import QueueWorkerBase


class GenericWorker(QueueWorkerBase):
    """Takes whatever stands in queue `generic`."""
