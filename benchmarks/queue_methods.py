"""The queue method of the benchmarks, for the mold to preload: says how long its message took to get to it.

`Bench.stamp` appends one line to a file of MIQ_HOME that its args name: the nanoseconds (CLOCK_MONOTONIC, which all
processes of a machine share) since the moment that they name.
"""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from miq import paths
from miq.queue.methods import queue_method


@queue_method("Bench", "stamp", idempotent=True)
def stamp(session: Session, record: None, put_at: int, name: str) -> None:
    """Its first statement reads the clock."""
    waited = time.monotonic_ns() - put_at
    with (paths.home().path / name).open("a") as file:
        file.write(f"{waited}\n")
