"""What was written to the database in between: rows, WAL of tables and indexes, numbers of sequences.

`with nothing_written(database, tables)` fails when anything of these tables was written, by whomever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from miq.db import Database

INVENTORY = (
    "availability_zones", "flavors", "vms", "hardwares", "disks", "networks", "operating_systems", "custom_attributes",
)  # fmt: skip


@dataclass(frozen=True)
class Writes:
    """Rows that are other ones than before (by place and transaction), WAL records, numbers drawn."""

    rows: int
    wal: int
    numbers: int

    @property
    def total(self) -> int:
        return self.rows + self.wal + self.numbers


def _versions(database: Database, tables: Sequence[str]) -> set[Any]:
    return {
        (table, *row) for table in tables for row in database.run(f"SELECT ctid::text, xmin::text, id FROM {table}")
    }


def _numbers(database: Database, tables: Sequence[str]) -> int:
    taken = "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {}_id_seq"
    rows = [database.run(taken.format(table)).fetchone() for table in tables]
    return sum(int(row[0]) for row in rows if row)


def _position(database: Database) -> Any:
    row = database.run("SELECT pg_current_wal_insert_lsn()").fetchone()
    assert row
    return row[0]


def _wal(database: Database, since: Any, tables: Sequence[str]) -> int:
    """WAL records of changes to the tables, their indexes and sequences; what vacuum does is not ours."""
    database.run("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    database.run("SELECT pg_logical_emit_message(true, 'test', 'everything up to here is flushed')")
    row = database.run(
        """SELECT count(*) FROM pg_get_wal_block_info(%(since)s::pg_lsn, pg_current_wal_flush_lsn())
            WHERE (resource_manager, split_part(record_type, '+', 1)) IN (
                    ('Heap', 'INSERT'), ('Heap', 'UPDATE'), ('Heap', 'HOT_UPDATE'), ('Heap', 'DELETE'),
                    ('Heap', 'LOCK'),
                    ('Heap2', 'MULTI_INSERT'), ('Heap2', 'LOCK_UPDATED'), ('Btree', 'INSERT_LEAF'), ('Sequence', 'LOG'))
              AND relfilenode IN (
              SELECT pg_relation_filenode(c.oid) FROM pg_class c
               WHERE c.oid IN (SELECT oid FROM pg_class WHERE relname = ANY(%(tables)s))
                  OR c.oid IN (SELECT indexrelid FROM pg_index
                                WHERE indrelid IN (SELECT oid FROM pg_class WHERE relname = ANY(%(tables)s)))
                  OR c.relname = ANY(%(sequences)s))""",
        {"since": since, "tables": list(tables), "sequences": [f"{table}_id_seq" for table in tables]},
    ).fetchone()
    assert row
    return int(row[0])


class Watch:
    """What has been written since this was made."""

    def __init__(self, database: Database, tables: Sequence[str] = INVENTORY) -> None:
        self._database, self._tables = database, tables
        self._before = _versions(database, tables), _numbers(database, tables)
        self._since = _position(database)

    def writes(self) -> Writes:
        """Since the beginning."""
        wal = _wal(self._database, self._since, self._tables)
        versions, numbers = self._before
        changed = versions ^ _versions(self._database, self._tables)
        return Writes(len(changed), wal, _numbers(self._database, self._tables) - numbers)


@contextmanager
def nothing_written(database: Database, tables: Sequence[str] = INVENTORY) -> Iterator[None]:
    """Fails when anything was."""
    watch = Watch(database, tables)
    yield
    assert watch.writes() == Writes(0, 0, 0)
