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
from miq.secrets import Key
from miq.server import seeding


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


def seed(dsn: str, home: Home) -> None:
    """Zones, roles and the rest that a server brings along, for whoever measures without one."""
    database = Database(dsn, "MIQ bench")
    with database.session() as session:
        seeding.seed(session, Key.load_or_create(home.key_file))
    database.close()


def cpu_seconds(pid: int) -> float:
    """What a process has had of the processors, exact to the microsecond (`ps` counts in hundredths)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
