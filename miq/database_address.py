"""Which database: DATABASE_URL's, else the embedded one of MIQ_HOME, which runs for as long as somebody needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from miq.db import normal_dsn
from miq.paths import Home
from miq.postgres import EmbeddedPostgres


@contextmanager
def database_address(home: Home) -> Iterator[str]:
    """The DSN, valid inside the `with`. Raises DatabaseError for a malformed DATABASE_URL, PostgresError."""
    if given := os.environ.get("DATABASE_URL"):
        yield normal_dsn(given)
        return
    with EmbeddedPostgres(home.make()) as dsn:
        yield dsn
