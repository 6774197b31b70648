"""Sessions: plain statements and the ORM's are one transaction; one that is not used costs nothing."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from miq.db import Database
from miq.models import Zone
from miq.session import run_in


def plain(session: Session, name: str) -> None:
    run_in(session, "INSERT INTO zones (name) VALUES (%(name)s)", {"name": name})


def orm(session: Session, name: str) -> None:
    session.add(Zone(name=name))


def names(database: Database) -> list[str]:
    return [row[0] for row in database.run("SELECT name FROM zones WHERE name LIKE 'test%' ORDER BY name")]


def test_one_that_is_not_used_does_not_connect() -> None:
    with Database("host=/nonexistent dbname=miq").session():
        pass


@pytest.mark.parametrize("order", [(plain, orm), (orm, plain), (plain, plain), (orm, orm)])
def test_all_or_nothing(dsn: str, order: tuple[object, object]) -> None:
    first, second = order
    database = Database(dsn)  # each order on a new connection: SQLAlchemy looks around on its first
    with pytest.raises(ZeroDivisionError), database.session() as session:
        first(session, "test a")  # type: ignore[operator]
        second(session, "test b")  # type: ignore[operator]
        session.flush()
        raise ZeroDivisionError
    assert names(database) == []
    database.close()
    with database.session() as session:
        first(session, "test a")  # type: ignore[operator]
        second(session, "test b")  # type: ignore[operator]
    assert names(database) == ["test a", "test b"]
    database.close()


def test_each_sees_the_others(database: Database) -> None:
    with database.session() as session:
        plain(session, "test a")
        assert session.scalar(select(Zone.name).where(Zone.name == "test a")) == "test a"
        orm(session, "test b")
        assert run_in(session, "SELECT 1 FROM zones WHERE name = 'test b'").fetchone() == (1,)
        session.rollback()
        plain(session, "test c")
        session.commit()
        plain(session, "test d")
        session.rollback()
    assert names(database) == ["test c"]


def test_a_savepoint_holds_both(database: Database) -> None:
    with database.session() as session:
        plain(session, "test a")
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            plain(session, "test b")
            raise ZeroDivisionError
    assert names(database) == ["test a"]


def test_a_lost_connection_is_not_replaced_in_the_middle(dsn: str, database: Database) -> None:
    other = Database(dsn)
    for after in (plain, orm):
        with pytest.raises((psycopg.OperationalError, DBAPIError)), database.session() as session:
            plain(session, "test a")
            other.run("SELECT pg_terminate_backend(%(pid)s, 5000)", {"pid": database.backend_pid})
            with pytest.raises(psycopg.OperationalError):
                plain(session, "test b")
            database.run("SELECT 1")
            after(session, "test c")
            session.flush()
    other.close()
    assert names(database) == []
