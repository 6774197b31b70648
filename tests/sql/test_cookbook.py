"""Every query of `etc/sql` on a migrated database with rows: its columns, and the answer that an operator expects.

The columns are those of the queries that operators already have (S1 to S33 of the demands); those about tables of later
inventories are named in MISSING.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from miq.cli.sql import cookbook, find, run
from miq.db import Database
from miq.errors import UsageError

SEED = Path(__file__).with_name("seed.sql")
MISSING = {"S24", "S25", "S31", "S32"}
Rows = list[tuple[Any, ...]]

QUEUE = "id priority method_name state queue_name zone role created_on class_name"
TIMES = "id priority method_name state queue_name class_name zone role msg_timeout"

#: columns, and how many rows; the golden answers are below
COLUMNS: dict[str, tuple[str, int]] = {
    "S01": ("count", 1),
    "S02": (QUEUE, 8),
    "S03": (f"{QUEUE} last_error", 1),
    "S05": ("zone", 4),
    "S06": (TIMES, 8),
    "S07": (TIMES, 1),
    "S08": ("id target_id method_name class_name queue_name zone created_on", 1),
    "S09": ("id lock_version priority role", 2),
    "S10": ("id lock_version priority role", 1),
    "S11": ("zone queue_name role class_name method_name oldest count", 8),
    "S12": ("state zone role count", 8),
    "S12_jobs": ("state zone type count", 1),
    "S13": ("id class_name method_name handler_type handler_id updated_on msg_timeout", 1),
    "S14": ("count oldest", 1),
    "S15": ("id state class_name method_name", 1),
    "S16": ("id class_name method_name instance_id task_id state created_on", 1),
    "S17": ("handler_id type pid id class_name method_name updated_on", 1),
    "S18": ("role first last count", 5),
    "S19": ("pid type queue_name miq_server_id", 2),
    "S20": ("id type pid last_heartbeat system_uid guid", 1),
    "S21": ("id guid name version status hostname pid zone_id is_master last_heartbeat", 1),
    "S22": ("id region created_at guid", 1),
    "S23": ("name count", 2),
    "S26": ("id name", 3),
    "S26_linked": ("name vendor", 1),
    "S26_templates": ("name guid", 1),
    "S27": ("pid application_name", 1),
    "S28": ("id type pid sql_spid state query_start query", 1),
    "S29": ("pid application_name locktype relation mode blocked_by", 0),
    "S30": ("client_addr datname pid wait_event_type wait_event query", 1),
    "S30_size": ("datname pg_database_size", 1),
    "S33": ("key value resource_type resource_id", 1),
    "S33_roles": ("server role active priority", 3),
}

GOLDEN: dict[str, Rows] = {
    "S01": [(8,)],
    "S05": [("default",), ("east",), ("west",), (None,)],
    "S09": [(2, 0, 20, "ems_operations"), (6, 0, 50, None)],
    "S10": [(2, 0, 20, "ems_operations")],
    "S12_jobs": [("waiting_to_start", "default", "VmScan", 1)],
    "S15": [(7, "error", "MiqAeEngine", "deliver")],
    "S19": [(101, "MiqGenericWorker", "generic", 1), (102, "MiqScheduleWorker", None, 1)],
    "S23": [("prod", 2), ("test", 0)],
    "S26": [(1, "web"), (2, "image"), (3, "clone")],
    "S26_linked": [("clone", "vmware")],
    "S26_templates": [("image", "vm-2")],
    "S33": [("/server/role", "event", "MiqServer", 1)],
    "S33_roles": [
        ("EVM", "ems_operations", True, 2),
        ("EVM", "event", True, 2),
        ("EVM", "scheduler", False, 3),
    ],
}

#: ids that the answer names, by the column that holds them
IDS: dict[str, tuple[str, list[int]]] = {
    "S02": ("id", [2, 6, 1, 3, 4, 5, 7, 8]),
    "S03": ("id", [7]),
    "S04": ("id", [1, 2, 3, 4, 5, 6, 7]),
    "S07": ("id", [7]),
    "S08": ("target_id", [7]),
    "S13": ("id", [5]),
    "S14": ("count", [1]),
    "S16": ("id", [8]),
    "S17": ("handler_id", [1]),
    "S20": ("id", [2]),
    "S21": ("id", [1]),
    "S22": ("region", [0]),
    "S28": ("id", [1]),
}


@pytest.fixture(scope="module")
def seeded(postgres: str, template: str) -> Iterator[Database]:
    """One database for all: only S15 changes anything, and its test takes it back."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE cookbook TEMPLATE {template} STRATEGY file_copy")
        database = Database(postgres.replace("/miq?", "/cookbook?", 1), "MIQ|1|-|-|-|miq|-")
        database.connection.execute(SEED.read_bytes())
        database.connection.commit()
        yield database
        database.close()
        connection.execute("DROP DATABASE cookbook WITH (FORCE)")


def test_every_query_of_the_demands_whose_tables_exist_is_there() -> None:
    asked = {f"S{number:02}" for number in range(1, 34)} - MISSING
    assert asked <= set(cookbook())
    assert set(cookbook()) == set(COLUMNS) | {"S04"}


def test_every_query_says_what_it_answers() -> None:
    assert all(query.question for query in cookbook().values())
    assert [query.name for query in cookbook().values() if query.writes] == ["S15"]


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "S15"])
def test_columns_and_number_of_rows(seeded: Database, name: str) -> None:
    columns, rows = run(seeded, find(name))
    expected, count = COLUMNS[name]
    assert (columns, len(rows)) == (expected.split(), count)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "S15"])
def test_golden_answers(seeded: Database, name: str) -> None:
    assert run(seeded, find(name))[1] == GOLDEN[name]


@pytest.mark.parametrize("name", IDS)
def test_the_rows_meant_are_found(seeded: Database, name: str) -> None:
    column, expected = IDS[name]
    columns, rows = run(seeded, find(name))
    assert [row[columns.index(column)] for row in rows] == expected


def test_s15_deletes_what_failed(seeded: Database) -> None:
    with seeded.transaction() as connection:
        columns, rows = run(seeded, find("S15"))
        assert (" ".join(columns), rows) == (COLUMNS["S15"][0], GOLDEN["S15"])
        assert connection.execute("SELECT count(*) FROM miq_queue").fetchone() == (7,)
        raise psycopg.Rollback


def test_a_query_cannot_write_by_accident(seeded: Database) -> None:
    query = find("S01")
    sly = type(query)("S01", "?", "WITH gone AS (DELETE FROM miq_queue RETURNING id) SELECT * FROM gone")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        run(seeded, sly)
    assert run(seeded, query)[1] == [(8,)]


def test_short_names_are_understood() -> None:
    assert {find(name).name for name in ("S1", "s01", "S01", "s001")} == {"S01"}
    assert find("s12_JOBS").name == "S12_jobs"
    with pytest.raises(UsageError, match="no query 'S99'"):
        find("S99")
