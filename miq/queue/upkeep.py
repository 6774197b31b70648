"""Upkeep of the queue and of the supervisor's history, called by timer through the queue itself."""

from __future__ import annotations

from sqlalchemy.orm import Session

from miq.db import database_of
from miq.queue.methods import queue_method
from miq.queue.statements import statement


@queue_method("MiqQueue", "purge_timer", idempotent=True)
def purge_failed(session: Session, record: None, seconds: float) -> int:
    """Delete failed messages older than `seconds`; how many."""
    return database_of(session).run(statement("purge_failed"), {"seconds": seconds}).rowcount


@queue_method("MiqWorkerExit", "purge_timer", idempotent=True)
def purge_exits(session: Session, record: None, seconds: float) -> int:
    """Delete exits of workers older than `seconds`; how many."""
    return database_of(session).run(statement("purge_exits"), {"seconds": seconds}).rowcount
