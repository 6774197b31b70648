"""Messages that do nothing of interest: to try a zone, a role, a queue or a worker out.

INSERT INTO miq_queue (class_name, method_name, args) VALUES ('Diagnostics', 'sleep', '[2]');
"""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from miq.queue.methods import queue_method


@queue_method("Diagnostics", "noop", idempotent=True)
def noop(session: Session, record: None) -> None:
    """Nothing at all."""


@queue_method("Diagnostics", "sleep", idempotent=True)
def sleep(session: Session, record: None, seconds: float) -> None:
    """Work for `seconds`; may run again after its worker died."""
    time.sleep(seconds)


@queue_method("Diagnostics", "once", idempotent=False)
def once(session: Session, record: None, seconds: float) -> None:
    """Work for `seconds`; never runs twice."""
    time.sleep(seconds)
