"""The saver: pages into staging tables as they are read, then one transaction that makes the inventory so.

In: collections with objects built into them. Out: rows, and what became of each collection. A page is one short
transaction, so none is open while an API is read; the merge is one transaction under the manager's lock, so readers
see the old inventory or the new one. Unchanged rows are not written, and rows vanish only from collections that were
read whole. It never reads an API, parses, or decides whether a refresh went well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import psycopg

from miq.db import Database, lock_manager
from miq.ems_refresh import merge_sql
from miq.ems_refresh.graph import order
from miq.ems_refresh.inventory_collection import Collections, InventoryCollection, Vanish
from miq.ems_refresh.merge_sql import Statements
from miq.errors import RefreshFailed

log = logging.getLogger(__name__)

#: from so many staged rows on, the planner is told how many there are
LARGE = 1000
_NAMED = 5

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass
class Counts:
    """What became of one collection; `archived` counts deleted rows too, where that is the collection's rule."""

    seen: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    archived: int = 0
    skipped: int = 0
    complete: bool = True

    def as_json(self) -> dict[str, int | bool]:
        """As `ems_refreshes.collections` holds it."""
        return asdict(self)


class Saver:
    """Saves the collections of one refresh of one manager. A context: leaving it drops the staging tables."""

    def __init__(self, database: Database, ems_id: int, collections: Collections) -> None:
        self._database = database
        self._ems_id = ems_id
        self._collections = collections
        self._order = order(collections.definitions)
        self._statements = {
            name: Statements(definition, collections.definitions, self._order.second_pass.get(name, ()))
            for name, definition in collections.definitions.items()
        }
        self._parameters = {"ems_id": ems_id, **merge_sql.parameters(collections.definitions)}

    def __enter__(self) -> Saver:
        self._drop()
        with self._database.transaction() as connection:
            for statements in self._statements.values():
                connection.execute(statements.create_stage())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._drop()
            return
        with suppress(
            psycopg.Error
        ):  # the error in hand counts; what stays behind goes with the connection or the next run
            self._drop()

    def _drop(self) -> None:
        tables = ", ".join(statements.stage for statements in self._statements.values())
        self._database.run(f"DROP TABLE IF EXISTS {tables}")

    def known(self, name: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """What the database holds of a collection, before anything is saved."""
        statement = merge_sql.known(self._collections.definitions[name], columns)
        return self._database.run(statement, self._parameters).fetchall()

    # -- pages ---------------------------------------------------------------------------------------------------------

    def stage(self) -> None:
        """Take the objects built so far out of the collections."""
        filled = [collection for collection in self._collections.values() if collection.page]
        if not filled:
            return
        with self._database.transaction() as connection:
            for collection in filled:
                self._copy(connection, collection)

    def _copy(self, connection: Connection, collection: InventoryCollection) -> None:
        rows = collection.take_page()
        with connection.cursor().copy(self._statements[collection.name].copy()) as copy:
            for number, row in enumerate(rows, collection.staged):
                copy.write_row((number, *row))
        collection.staged += len(rows)

    # -- the merge -----------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Counts]:
        """Merge everything that was staged, all or nothing; what became of each collection."""
        self.stage()
        with self._database.transaction() as connection:
            lock_manager(connection, self._ems_id)
            self._still_there(connection)
            counts = {name: self._merge(connection, self._collections[name]) for name in self._order.names}
            for name in self._order.second_pass:
                linked = self._run(connection, self._statements[name].link())
                log.debug("MIQ(Saver#save) EMS id: [%s], %s: %s rows linked", self._ems_id, name, linked)
        return counts

    def _still_there(self, connection: Connection) -> None:
        """A manager that was removed while it was read gets no rows."""
        found = connection.execute("SELECT 1 FROM ext_management_systems WHERE id = %(id)s", {"id": self._ems_id})
        if found.fetchone() is None:
            raise RefreshFailed(f"manager {self._ems_id} was removed while it was refreshed: nothing is saved")

    def _merge(self, connection: Connection, collection: InventoryCollection) -> Counts:
        statements = self._statements[collection.name]
        self._tell_planner(connection, collection, statements.stage)
        counts = Counts(complete=collection.complete, skipped=collection.skipped)
        read = self._run(connection, statements.create_found())
        counts.skipped += self._drop_unresolved(connection, collection, statements)
        counts.seen = read - (counts.skipped - collection.skipped)
        self._tell_planner(connection, collection, statements.found)
        for statement in (statements.update(), statements.reconnect()):
            counts.updated += self._run(connection, statement) if statement else 0
        counts.created = self._run(connection, statements.insert())
        counts.unchanged = counts.seen - counts.created - counts.updated
        if collection.complete:
            counts.archived = self._vanish(connection, collection, statements)
        self._tell_duplicates(collection, read)
        return counts

    def _drop_unresolved(self, connection: Connection, collection: InventoryCollection, statements: Statements) -> int:
        statement = statements.drop_unresolved()
        if statement is None:
            return 0
        labels = [str(row[0]) for row in connection.execute(statement)]
        if labels:
            log.warning(
                "MIQ(Saver#save) EMS id: [%s], %s: %d skipped, what they hang on is not there: %s",
                self._ems_id, collection.name, len(labels), ", ".join(labels[:_NAMED]),
            )  # fmt: skip
        return len(labels)

    def _vanish(self, connection: Connection, collection: InventoryCollection, statements: Statements) -> int:
        match collection.definition.vanish:
            case Vanish.ARCHIVE:
                return self._run(connection, statements.archive())
            case Vanish.DELETE:
                return self._run(connection, statements.delete())
            case Vanish.KEEP:
                return 0

    def _tell_planner(self, connection: Connection, collection: InventoryCollection, table: str) -> None:
        if collection.staged >= LARGE:
            connection.execute(f"ANALYZE {table}")

    def _tell_duplicates(self, collection: InventoryCollection, read: int) -> None:
        duplicates = collection.staged - collection.kept - read
        if duplicates:
            log.warning(
                "MIQ(Saver#save) EMS id: [%s], %s: %d objects came more than once, the last one counts",
                self._ems_id, collection.name, duplicates,
            )  # fmt: skip

    def _run(self, connection: Connection, statement: str) -> int:
        return connection.execute(statement, self._parameters).rowcount
