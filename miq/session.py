"""Sessions that borrow the process's one connection, and plain statements in the same transaction.

The ORM's machinery costs a forked process megabytes of pages that it would share with the mold, so a session makes
nothing before its first statement, and what every worker does is a plain statement (`run_in`). Both kinds share one
transaction: what one has changed the other sees, and they commit together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

Row = tuple[Any, ...]

#: seconds that the server is given to end a statement that nobody waits for any more
CANCEL_TIMEOUT = 2.0


class OneConnection(psycopg.Connection[Row]):
    """The connection that plain statements and SQLAlchemy share."""

    _unrolled = False

    @property
    def has_begun(self) -> bool:
        """Whether a transaction is open, a failed one too, and nothing is under way."""
        return self.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def rollback(self) -> None:
        """Take back the transaction that is open."""
        if not self._unrolled:
            super().rollback()

    @contextmanager
    def unrolled(self) -> Iterator[None]:
        """SQLAlchemy ends its looking around on a new connection with a rollback: not of what is open on this one."""
        self._unrolled = self.info.transaction_status != TransactionStatus.IDLE
        try:
            yield
        finally:
            self._unrolled = False


class Lender(Protocol):
    """What a session needs of its `Database`."""

    @property
    def connection(self) -> OneConnection: ...
    @property
    def current(self) -> OneConnection | None: ...
    @property
    def engine(self) -> Engine: ...


class LazySession(Session):
    """A session of `Database.session()`: plain statements (`run_in`) and the ORM's share its one transaction."""

    @property
    def database(self) -> Lender:
        """Whose connection this session borrows."""
        database: Lender = self.info["database"]
        return database

    @cached_property
    def raw(self) -> OneConnection:
        """The connection of this session, from its first statement on: a lost one is not replaced under it."""
        return self.database.connection

    @property
    def used(self) -> bool:
        """Whether anything was done with it: plain statements, or the ORM."""
        return "raw" in self.__dict__ or self._mapped

    def get_bind(self, *args: Any, **options: Any) -> Engine | Connection:  # noqa: ANN401 - SQLAlchemy's own
        """SQLAlchemy asks for it with the first statement of the ORM."""
        if self.bind is None:
            if self.raw is not self.database.current:
                raise psycopg.OperationalError("the connection of this session was lost")
            self.bind = self.database.engine
        return super().get_bind(*args, **options)

    @property
    def _mapped(self) -> bool:
        """Whether the ORM has anything to do: its commit and its close cost as much as a plain statement."""
        return self.in_transaction() or bool(self._new)

    def commit(self) -> None:
        """Commit what either has changed."""
        if self._mapped:
            super().commit()
        if self._has_begun():
            self.raw.commit()

    def rollback(self) -> None:
        """Take back what either has changed."""
        super().rollback()
        if self._has_begun():
            self.raw.rollback()

    def close(self) -> None:
        """Take back what was not committed."""
        if self._mapped or self.identity_map:
            super().close()
        if self._has_begun():
            self.raw.rollback()

    def abandon(self) -> None:
        """Give the connection up in the middle of whatever it does; what was not committed never happened."""
        if "raw" in self.__dict__:
            with suppress(psycopg.Error):
                self.raw.cancel_safe(timeout=CANCEL_TIMEOUT)
        self.invalidate()
        if "raw" in self.__dict__:
            self.raw.close()

    def _has_begun(self) -> bool:
        return "raw" in self.__dict__ and self.raw.has_begun


def run_in(session: Session, statement: str, parameters: Mapping[str, Any] | None = None) -> psycopg.Cursor[Row]:
    """One plain statement in the session's transaction, after what the ORM has still to write.

    For what every worker does: the ORM's machinery costs a forked process some thirteen megabytes.
    """
    return raw_connection(session).execute(statement, parameters)


def raw_connection(session: Session) -> OneConnection:
    """The psycopg connection under a session, in the session's transaction, after what the ORM has still to write."""
    assert isinstance(session, LazySession)
    session.flush()
    if session.in_nested_transaction():
        session.connection()  # makes the savepoint, if there is none yet
    return session.raw
