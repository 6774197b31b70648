"""Fixtures that every part of the suite shares: one real PostgreSQL, a fresh migrated database a test, an own MIQ_HOME.

PostgreSQL is the embedded one, started once a session; each test gets a copy of a migrated template. Nothing here
reads or writes the developer's own MIQ_HOME, and nothing ends a process that it did not start.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from miq.db import Database
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.schema import migrate

_numbers = itertools.count(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs root is deselected for an ordinary user, and counted; root runs everything."""
    if os.geteuid() == 0:
        return
    kept = [item for item in items if "root" not in item.keywords]
    dropped = [item for item in items if "root" in item.keywords]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a running PostgreSQL: the embedded one, or what MIQ_TEST_POSTGRES names.

    Such a one looks like postgresql://miq@/miq?host=DIR; its role may create databases, and it has no `miq_template`
    yet. The checks of what was written to the WAL need PostgreSQL 16; all else runs on 15.
    """
    if given := os.environ.get("MIQ_TEST_POSTGRES"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="miq-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Home(Path(folder)).make()) as dsn:
            yield dsn


def _named(dsn: str, name: str) -> str:
    return dsn.replace("/miq?", f"/{name}?", 1)


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The name of a migrated database to copy."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE miq_template")
    database = Database(_named(postgres, "miq_template"))
    migrate(database)
    database.close()
    return "miq_template"


@pytest.fixture
def empty_dsn(postgres: str) -> Iterator[str]:
    """A database without a table."""
    yield from _fresh(postgres, "template1")


@pytest.fixture
def dsn(postgres: str, template: str) -> Iterator[str]:
    """A fresh, migrated database."""
    yield from _fresh(postgres, template)


def _fresh(postgres: str, template: str) -> Iterator[str]:
    name = f"miq_test_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield _named(postgres, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    """This process's Database on a fresh, migrated database."""
    database = Database(dsn, "MIQ test")
    yield database
    database.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An own MIQ_HOME, in the environment too."""
    monkeypatch.setenv("MIQ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return Home(tmp_path / "home").make()
