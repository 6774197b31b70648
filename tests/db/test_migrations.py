"""The schema: up, down and up again on a database with rows; models and migrations say the same."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from miq.db import Database
from miq.errors import DatabaseError, SchemaOutdated, SchemaTooNew
from miq.models import Base, MiqServer, Zone
from miq.schema import check_schema, head_revision, migrate, schema_revision

PEER = Path(__file__).parents[3] / "shared" / "reference" / "schema-columns.tsv"
#: what is ours besides the modelled schema
OWN_TABLES = {"miq_worker_exits", "ems_refreshes"}
OWN_COLUMNS = {
    "miq_workers": {"pid_start", "unsupervised"},
    "miq_queue": {"attempts", "last_error", "merge_key"},
    "miq_databases": {"v2_key_fingerprint"},
    "vms": {"former_ems_id", "archived_on"},
}


@pytest.fixture
def empty(empty_dsn: str) -> Any:
    database = Database(empty_dsn)
    yield database
    database.close()


def quiet(text: str) -> None:
    return


def test_models_equal_the_migrated_schema(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_up_down_and_up_again_with_rows(empty: Database) -> None:
    told: list[str] = []
    migrate(empty, progress=told.append)
    assert [line.split()[1] for line in told] == ["0001", "0002", "0003"] and all(" s" in line for line in told)
    with empty.session() as session:
        session.add_all([Zone(name="z"), MiqServer(guid="g", status="stopped")])
    empty.run("INSERT INTO vms (name, ems_id, ems_ref) VALUES ('v', 1, 'i-1')")
    migrate(empty, to="0001", progress=quiet)
    assert empty.run("SELECT to_regclass('vms')").fetchone() == (None,)
    assert empty.run("SELECT name FROM zones").fetchall() == [("z",)]
    migrate(empty, progress=quiet)
    check_schema(empty)
    migrate(empty, to="base", progress=quiet)
    left = empty.run(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = 'public' AND relname NOT LIKE 'alembic%%' UNION ALL"
        " SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'public'",
        {},
    ).fetchall()
    assert left == []
    migrate(empty, progress=quiet)
    assert schema_revision(empty) == head_revision()


def test_ids_carry_the_region(empty: Database) -> None:
    migrate(empty, region=7, progress=quiet)
    with empty.session() as session:
        zone = Zone(name="z")
        session.add(zone)
        session.flush()
        assert zone.id == 7 * 10**12 + 1


def test_an_older_schema_names_the_fix(empty: Database) -> None:
    with pytest.raises(SchemaOutdated, match="miq db migrate"):
        check_schema(empty)
    migrate(empty, to="0001", progress=quiet)
    with pytest.raises(SchemaOutdated, match=r"0001.*miq db migrate"):
        check_schema(empty)


def test_a_newer_schema_is_left_alone(database: Database) -> None:
    database.run("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="9999"):
        check_schema(database)
    with pytest.raises(SchemaTooNew, match="9999"):
        migrate(database, progress=quiet)
    assert schema_revision(database) == "9999"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://nobody@/none?host=/nonexistent",
        "postgresql://u:hidden@127.0.0.1:1/none",
        "host=/nonexistent dbname=x",
    ],
)
def test_a_server_out_of_reach_is_one_line_without_the_password(dsn: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        check_schema(Database(dsn, connect_timeout=2))
    text = str(caught.value)
    assert "cannot be reached" in text and "\n" not in text and "hidden" not in text


def test_names_and_types_are_those_of_the_modelled_schema() -> None:
    """Every column of ours that upstream has too keeps its name and type; what is ours alone is named above."""
    if not PEER.is_file():
        pytest.skip(f"{PEER} is not there")
    upstream: dict[str, dict[str, str]] = {}
    for name, column_name, kind, *_ in csv.reader(PEER.read_text().splitlines(), delimiter="\t"):
        upstream.setdefault(name, {})[column_name] = kind
    names = {
        "BIGINT": "bigint", "INTEGER": "integer", "VARCHAR": "character varying", "TEXT": "text", "BOOLEAN": "boolean",
        "DOUBLE": "double precision", "NUMERIC": "numeric", "JSONB": "jsonb", "DATETIME": "timestamp without time zone",
        "BLOB": "bytea",
    }  # fmt: skip
    for table in Base.metadata.sorted_tables:
        if table.name in OWN_TABLES:
            continue
        theirs = upstream[table.name]
        ours = {column.name for column in table.columns}
        assert ours - set(theirs) == OWN_COLUMNS.get(table.name, set()), table.name
        assert set(theirs) - ours == set(), table.name
        for column in table.columns:
            if column.name in theirs:
                kind = "ARRAY" if "ARRAY" in repr(column.type) else names[str(column.type)]
                assert kind == theirs[column.name], f"{table.name}.{column.name}"
