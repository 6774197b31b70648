"""`miq sql`: the operators' cookbook. The queries are the files of `etc/sql`; psql takes the same ones.

A file's first line is the question that it answers. Queries run in a read-only transaction; one that changes
rows needs `--write`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from miq import paths
from miq.cli.connect import open_database
from miq.cli.output import AsJson, print_json, print_table
from miq.db import Database
from miq.errors import UsageError

_SHORT = re.compile(r"s0*(\d+)(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Query:
    """One file of the cookbook."""

    name: str
    question: str
    statement: str

    @property
    def writes(self) -> bool:
        """Whether it changes rows."""
        return not self.statement.upper().startswith(("SELECT", "WITH"))


def cookbook() -> dict[str, Query]:
    """All queries by name."""
    folder = paths.shipped("etc") / "sql"
    return {path.stem: _read(path) for path in sorted(folder.glob("*.sql"))}


def _read(path: Path) -> Query:
    question, _, statement = path.read_text().partition("\n")
    return Query(path.stem, question.removeprefix("--").strip(), statement.strip())


def find(name: str) -> Query:
    """The query of that name; S1 and s01 are S01. Raises UsageError."""
    queries = cookbook()
    short = _SHORT.fullmatch(name)
    found = queries.get(name) or (queries.get(f"S{int(short[1]):02}{short[2].lower()}") if short else None)
    if found is None:
        raise UsageError(f"no query {name!r}; `miq sql` lists them")
    return found


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which query; none: list them.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Allow a query that changes rows.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one of the operators' queries, or list them with their questions."""
    if name is None:
        _list(as_json)
        return
    query = find(name)
    if query.writes and not write:
        raise UsageError(f"{query.name} changes rows ({query.question}): add --write")
    with open_database() as database:
        columns, rows = run(database, query)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


def run(database: Database, query: Query) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows. Raises UsageError for a file that PostgreSQL does not take."""
    try:
        with database.transaction() as connection:
            if not query.writes:
                connection.execute("SET TRANSACTION READ ONLY")
            cursor = connection.execute(query.statement.encode())
            columns = [column.name for column in cursor.description or ()]
            return columns, cursor.fetchall() if columns else []
    except psycopg.ProgrammingError as error:
        raise UsageError(f"query {query.name}: {str(error).splitlines()[0]}") from None


def _list(as_json: bool) -> None:
    queries = cookbook().values()
    if as_json:
        print_json([{"name": each.name, "question": each.question, "writes": each.writes} for each in queries])
    else:
        rows = [(each.name, each.question + (" (--write)" if each.writes else "")) for each in queries]
        print_table(("Name", "Question"), rows)
