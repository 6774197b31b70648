"""The database of one process: one connection, sessions over it, its notifications, and `move()`.

A process has exactly one connection (a PostgreSQL backend costs over a megabyte): statements of the queue and COPYs run
on it directly, ORM sessions borrow it. It is made on first use, after any fork, and anew when it was lost; whoever
loses it in mid-work gets psycopg's or SQLAlchemy's OperationalError and decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.pq import ConnStatus, PGconn, TransactionStatus
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from miq.errors import DatabaseError, IllegalMove
from miq.session import LazySession, OneConnection, Row

OutOfReach = psycopg.OperationalError


def normal_dsn(dsn: str) -> str:
    """The DSN as psycopg takes it. Raises DatabaseError when it cannot be one."""
    text = dsn.strip()
    scheme, _, rest = text.partition("://")
    if rest and scheme in ("postgres", "postgresql+psycopg"):
        text = f"postgresql://{rest}"
    try:
        psycopg.conninfo.conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        # What the library says of it quotes it, the password too.
        raise DatabaseError(
            "DATABASE_URL is not a PostgreSQL address: write postgresql://USER@HOST:PORT/DATABASE"
        ) from None
    return text


def connection_lost(error: BaseException) -> bool:
    """Whether the connection is gone: what was not committed never happened, and the next statement needs a new one."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.OperationalError):
        return isinstance(error, DBAPIError) and error.connection_invalidated
    state = cause.sqlstate
    return state is None or state.startswith("08") or state in ("57P01", "57P02", "57P03")


def worth_waiting(error: BaseException) -> bool:
    """Whether the same may succeed later: the connection is gone, or the server lacks something just now."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, psycopg.OperationalError) or connection_lost(error)


def first_line(error: BaseException) -> str:
    """An error's text, cut to what fits a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Database:
    """This process's connection to the database.

    `dsn` is what `normal_dsn` made of the user's. `statement_timeout` and `lock_timeout` are seconds, None for no
    limit. `application_name` is cut at 63 bytes by the server.
    """

    def __init__(
        self,
        dsn: str,
        application_name: str = "MIQ",
        *,
        connect_timeout: int = 5,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
    ) -> None:
        self.dsn = dsn
        self.application_name = application_name
        self._connect_timeout = connect_timeout
        self._limits = {"statement_timeout": statement_timeout, "lock_timeout": lock_timeout}
        self._connection: OneConnection | None = None
        self._engine: Engine | None = None
        self._channels: dict[str, Callable[[str], None]] = {}

    # -- the connection ------------------------------------------------------------------------------------------------

    @property
    def connection(self) -> OneConnection:
        """The live connection, made when there is none.

        Raises psycopg.OperationalError when the server is out of reach.
        """
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connect()
        assert self._connection is not None
        return self._connection

    @property
    def current(self) -> OneConnection | None:
        """The connection if there is one now; makes none."""
        usable = self._connection is not None and not self._connection.closed
        return self._connection if usable else None

    def _connect(self) -> None:
        """By libpq's own blocking connect: the wrapper's way there, in Python, costs every worker a megabyte of pages
        that it would share with the mold.
        """
        self.close()
        pgconn = PGconn.connect(self._conninfo().encode())
        if pgconn.status != ConnStatus.OK:
            error = pgconn.get_error_message()
            pgconn.finish()
            raise psycopg.OperationalError(error)
        pgconn.nonblocking = 1
        connection = OneConnection(pgconn)
        connection.add_notify_handler(lambda notice: self._notified(notice.channel, notice.payload))
        self._connection = connection
        for channel in self._channels:
            self.run(f'LISTEN "{channel}"')

    def _conninfo(self) -> str:
        options = ["-c timezone=UTC"]
        options += [f"-c {name}={int(value * 1000)}" for name, value in self._limits.items() if value]
        ours = {
            "application_name": self.application_name[:63],
            "connect_timeout": str(self._connect_timeout),
            "options": " ".join(options),
        }
        if "://" in self.dsn:
            pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in ours.items())
            return f"{self.dsn}{'&' if '?' in self.dsn else '?'}{pairs}"
        return " ".join([self.dsn, *(f"{name}='{value}'" for name, value in ours.items())])

    def close(self) -> None:
        """Give the connection back to the server, quietly."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def backend_pid(self) -> int:
        """The server process behind the connection: `sql_spid`."""
        return self.connection.info.backend_pid

    def rename(self, application_name: str) -> None:
        """Show another `application_name` in pg_stat_activity from now on."""
        self.application_name = application_name
        self.run("SELECT set_config('application_name', %(name)s, false)", {"name": application_name[:63]})

    # -- statements outside the ORM ------------------------------------------------------------------------------------

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> psycopg.Cursor[Row]:
        """Run one statement: within the transaction that is open, else committed by itself in one round trip."""
        connection = self.connection
        if connection.info.transaction_status != TransactionStatus.IDLE:
            return connection.execute(statement, parameters)
        connection.autocommit = True
        try:
            return connection.execute(statement, parameters)
        finally:
            if not connection.closed:
                connection.autocommit = False

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Row]]:
        """Several statements that happen together or not at all."""
        connection = self.connection
        with connection.transaction():
            yield connection

    # -- sessions ------------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """An SQLAlchemy engine over the one connection."""
        connection = self.connection
        if self._engine is None:
            engine = create_engine(
                "postgresql+psycopg://",
                creator=lambda: connection,
                poolclass=StaticPool,
                pool_reset_on_return="rollback",
            )
            with connection.unrolled():
                engine.connect().close()
            self._engine = engine
        return self._engine

    @contextmanager
    def session(self) -> Iterator[Session]:
        """An ORM session, committed at the end, rolled back on an error. `session.info["database"]` is this object.

        It connects with its first statement, and one that is not used costs nothing.
        """
        with LazySession(expire_on_commit=False, info={"database": self}) as session:
            yield session
            session.commit()

    # -- notifications -------------------------------------------------------------------------------------------------

    def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """Call `heard` with the payload whenever the channel is notified; survives reconnection."""
        self._channels[channel] = heard
        self.run(f'LISTEN "{channel}"')

    def fileno(self) -> int:
        """Readable when notifications may have come."""
        return self.connection.fileno()

    def take_notifications(self) -> None:
        """Hear what has arrived, without waiting. Raises psycopg.OperationalError when the connection is gone."""
        pgconn = self.connection.pgconn
        try:
            pgconn.consume_input()
        except psycopg.OperationalError:
            self.close()
            raise
        while (notice := pgconn.notifies()) is not None:
            self._notified(notice.relname.decode(), notice.extra.decode())

    def _notified(self, channel: str, payload: str) -> None:
        heard = self._channels.get(channel)
        if heard:
            heard(payload)


def database_of(session: Session) -> Database:
    """The Database whose `session()` this is."""
    database: Database = session.info["database"]
    return database


def lock_manager(connection: psycopg.Connection[Row], ems_id: int) -> None:
    """Wait for whoever writes this manager's inventory, and keep others out until the transaction ends.

    The saver and the removal of a manager take it, whatever process they are in.
    """
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%(key)s, 0))", {"key": f"ems_{ems_id}"})


# -- status moves ------------------------------------------------------------------------------------------------------


def move(
    database: Database,
    table: str,
    record_id: int,
    to: str,
    moves: Mapping[str, Sequence[str]],
    **values: Any,  # noqa: ANN401 - any column of the table
) -> None:
    """The one way a status changes: only from where `moves` allows, in one statement. Raises IllegalMove.

    Plain SQL, not the ORM: every worker does this at its birth, and the ORM's machinery would cost each of them
    megabytes.
    """
    columns = "".join(f", {name} = %({name})s" for name in values)
    allowed = ", ".join(f"'{each}'" for each in moves[to])
    changed = database.run(
        f"UPDATE {table} SET status = '{to}'{columns} WHERE id = %(id)s AND status IN ({allowed})",  # noqa: S608
        {"id": record_id, **values},
    )
    if changed.rowcount == 1:
        return
    now = database.run(f"SELECT status FROM {table} WHERE id = %(id)s", {"id": record_id}).fetchone()  # noqa: S608
    raise IllegalMove(f"{table} {record_id}: {now[0] if now else 'gone'} may not become {to}")
