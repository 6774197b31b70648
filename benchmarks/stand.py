"""What the benchmarks stand on: a PostgreSQL, a server on a MIQ_HOME of its own, an account in a simulator."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miq.db import Database
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.schema import migrate


@contextmanager
def fresh_home() -> Iterator[Home]:
    """An empty MIQ_HOME that goes with the run."""
    with tempfile.TemporaryDirectory(prefix="miq-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        os.environ["MIQ_HOME"] = folder
        yield Home(Path(folder)).make()


@contextmanager
def migrated(home: Home) -> Iterator[str]:
    """The DSN of a migrated database on an embedded PostgreSQL of the run's own."""
    with EmbeddedPostgres(home) as dsn:
        database = Database(dsn, "MIQ bench")
        migrate(database, progress=lambda text: None)
        database.close()
        yield dsn
