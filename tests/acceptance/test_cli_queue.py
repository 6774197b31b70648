"""`miq queue` and `miq tasks` as operators run them, on a real database. The test is the worker where one is needed.

The commands run in this process, by their one entry, which makes their exit codes and lines; those that wait for
somebody are processes of their own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from miq.cli import app
from miq.db import Database
from miq.models import MiqQueue, MiqTask, Zone
from miq.paths import Home
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery, deliver
from miq.queue.message import Message
from miq.queue.methods import load_methods
from miq.queue.put import put
from miq.queue.record import record
from miq.queue.tasks import create_task
from miq.secrets import Key
from miq.server import seeding
from tests.acceptance.test_cli import Ended, live_server, start, until

Environment = dict[str, str]


@pytest.fixture
def environment(home: Home, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """For processes, and for what runs in this one."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MIQ_"))}
    return plain | {"MIQ_HOME": str(home.path), "DATABASE_URL": dsn, "NO_COLOR": "1"}


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that an error is."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("miq: ")]
        return line


Miq = Callable[..., Ran]


@pytest.fixture
def miq(environment: Environment, capsys: pytest.CaptureFixture[str]) -> Miq:
    def run(*arguments: object) -> Ran:
        code = app.main([str(each) for each in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def database(database: Database, home: Home) -> Database:
    """Seeded, with a server that lives in zone `default` and none in `east`."""
    with database.session() as session:
        seeding.seed(session, Key.load_or_create(home.key_file))
        session.add(Zone(name="east"))
    live_server(database)
    return database


def rows(database: Database) -> list[MiqQueue]:
    with database.session() as session:
        return list(session.scalars(select(MiqQueue).order_by(MiqQueue.id)))


def added(database: Database, method: str = "noop", **options: Any) -> int:
    with database.session() as session:
        message_id = put(session, Message("Diagnostics", method, zone=None, **options))
    assert message_id is not None
    return message_id


def failed(database: Database, state: str = "error", days: int = 0, **options: Any) -> int:
    message_id = added(database, **options)
    database.run(
        "UPDATE miq_queue SET state = %(state)s, last_error = 'broken', attempts = 1,"
        " updated_on = utc_now() - make_interval(days => %(days)s) WHERE id = %(id)s",
        {"state": state, "id": message_id, "days": days},
    )
    return message_id


def work_once(database: Database) -> None:
    """Be the generic worker, for one message."""
    load_methods()
    handler = Handler("MiqWorker", 1)
    (message,) = until(lambda: claim(database, handler, Route("generic", "default", [], None)))
    delivery = Delivery(database, handler)
    outcome = deliver(message, delivery)
    if not outcome.written:
        record(outcome, delivery)


# -- listing -----------------------------------------------------------------------------------------------------------


def test_without_a_subcommand_the_queue_is_listed(miq: Miq, database: Database) -> None:
    added(database)
    added(database, queue_name="ems_1", role="ems_inventory")
    failed(database, "timeout")
    listed = miq("queue")
    assert (listed.code, listed.err) == (0, "")
    head, _, *lines = listed.out.splitlines()
    assert head.split() == ["Zone", "Queue", "Role", "Method", "Oldest", "Count"]
    assert [line.split()[0] for line in lines] == ["ems_1", "generic", "Failed:"]
    assert lines[-1] == "Failed: 1 timeout; `miq sql S03` lists them."
    found = miq("queue", "--json").json
    assert [(row["queue_name"], row["count"]) for row in found["messages"]] == [("ems_1", 1), ("generic", 1)]
    assert found["failed"] == {"timeout": 1}


@pytest.mark.parametrize("never", ["infinity", "-infinity", "0044-03-15 BC"])
def test_a_time_that_python_cannot_tell_is_shown(miq: Miq, database: Database, never: str) -> None:
    database.run(
        "INSERT INTO miq_queue (class_name, method_name, deliver_on) VALUES ('Diagnostics', 'noop', %(never)s)",
        {"never": never},
    )
    for command in (["queue"], ["queue", "--health"], ["queue", "--orphans"], ["queue", "show", "1"], ["sql", "S11"]):
        assert miq(*command).code == 0
        assert miq(*command, "--json").code == 0


def test_orphans_say_why_nobody_takes_them(miq: Miq, database: Database) -> None:
    added(database)
    assert miq("queue", "--orphans").out == "Somebody can take whatever is due.\n"
    assert miq("queue", "--orphans", "--json").json == []
    for _ in range(2):
        added(database, role="smartproxy")
    added(database, "sleep", queue_name="nobody's")
    shown = miq("queue", "--orphans").out
    assert "role 'smartproxy' is active nowhere" in shown
    first, second = miq("queue", "--orphans", "--json").json
    assert (first["queue_name"], first["role"], first["count"], first["methods"]) == (
        "generic", "smartproxy", 2, ["Diagnostics.noop"],
    )  # fmt: skip
    assert second["reason"] == 'no worker serves queue "nobody\'s"'


def test_health_shows_depth_dead_rows_and_what_is_stuck(miq: Miq, database: Database) -> None:
    added(database)
    stuck = added(database, "sleep", args=[1])
    database.run(
        "UPDATE miq_queue SET state = 'dequeue', handler_type = 'MiqWorker', handler_id = 77, updated_on = utc_now()"
        " WHERE id = %(id)s",
        {"id": stuck},
    )
    shown = miq("queue", "--health").out
    assert "Dead rows" in shown and "Last autovacuum" in shown
    line = next(line for line in shown.splitlines() if line.endswith("its handler is gone"))
    assert str(stuck) in line and "Worker 77" in line
    found = miq("queue", "--health", "--json").json
    assert (found["queues"][0]["ready"], found["queues"][0]["running"]) == (1, 1)
    assert (found["stuck"][0]["id"], found["stuck"][0]["handler_id"]) == (stuck, 77)
    assert {"dead_rows", "last_autovacuum"} <= set(found["table"])


# -- put ---------------------------------------------------------------------------------------------------------------


def test_put_writes_all_that_is_said(miq: Miq, database: Database) -> None:
    done = miq(
        "queue", "put", "--queue", "x", "--zone", "default", "--role", "event", "--server", "EVM",
        "--priority", "20", "--in", "60", "--expires-in", "3600", "--timeout", "30", "--task-id", "t", "--json",
        "--", "ManageIQ::Providers::Amazon::CloudManager.refresh_all_ems_timer", "-7",
    )  # fmt: skip
    assert done.code == 0, done.err
    (row,) = rows(database)
    assert done.json == {"id": row.id, "queue_name": "x", "waits_because": None}
    assert (row.class_name, row.method_name, row.args) == (
        "ManageIQ::Providers::Amazon::CloudManager", "refresh_all_ems_timer", "[-7]",
    )  # fmt: skip
    assert (row.queue_name, row.zone, row.role, row.server_guid, row.priority, row.msg_timeout, row.task_id) == (
        "x", "default", "event", "elsewhere", 20, 30, "t",
    )  # fmt: skip
    assert row.deliver_on is not None and row.expires_on is not None and row.created_on is not None
    assert 55 < (row.deliver_on - row.created_on).total_seconds() < 65
    assert 3590 < (row.expires_on - row.created_on).total_seconds() < 3610


ARGS = {
    "1.5": 1.5, '{"a": [null]}': {"a": [None]}, '"1"': "1", "007": "007", "plain text": "plain text", "true": True,
    "NaN": "NaN", "[": "[",
}  # fmt: skip


def test_an_argument_is_json_or_text(miq: Miq, database: Database) -> None:
    assert [miq("queue", "put", "EmsRefresh.refresh", text).code for text in ARGS] == [0] * len(ARGS)
    found = [json.loads(row.args or "") for row in rows(database)]
    assert found == [[value] for value in ARGS.values()]


def test_put_says_that_nobody_will_take_it(miq: Miq, database: Database) -> None:
    done = miq("queue", "put", "Diagnostics.noop", "--zone", "east")
    (row,) = rows(database)
    assert (done.code, done.out) == (0, f"message {row.id} put into queue generic\n")
    assert done.err == f"message {row.id} waits: no server of zone 'east' runs\n"
    assert miq("queue", "put", "Diagnostics.noop", "--zone", "east", "--json").json["waits_because"]
    assert miq("queue", "put", "Diagnostics.noop").err == ""


BAD_PUTS = {
    "no queue method 'Diagnostics.nop'; is it noop?": ["Diagnostics.nop"],
    "no queue method 'Diagnostics.42'; there are noop, once, sleep": ["Diagnostics.42"],
    "no queue method 'Diagnostic.noop'; is it Diagnostics.noop": ["Diagnostic.noop"],
    "no queue method '42.42'; there are": ["42.42"],
    "'noop' is no queue method: write CLASS.METHOD": ["noop"],
    "Diagnostics.sleep(seconds) cannot be called so: missing": ["Diagnostics.sleep"],
    "Diagnostics.noop() cannot be called so: too many": ["Diagnostics.noop", "1"],
    "Diagnostics.noop is a class method": ["Diagnostics.noop", "--instance", "1"],
    "name it with --instance ID": ["ExtManagementSystem.authentication_check_types"],
    "no ExtManagementSystem 4711": ["ExtManagementSystem.authentication_check_types", "--instance", "4711"],
    "--target is for class methods": ["MiqTask.queue_callback", "--instance", "1", "--target", "1", "a", "b", "c"],
    "no zone 'mars'; there are: default, east": ["Diagnostics.noop", "--zone", "mars"],
    "no role 'smartstat'; is it smartstate?": ["Diagnostics.noop", "--role", "smartstat"],
    "no server 'HAL'; there are: EVM (id": ["Diagnostics.noop", "--server", "HAL"],
    "priority 201 of Diagnostics.noop: write a number from 0": ["Diagnostics.noop", "--priority", "201"],
    "msg_timeout 0 of Diagnostics.noop": ["Diagnostics.noop", "--timeout", "0"],
    "does not fit its columns": ["Diagnostics.noop", "--timeout", "99999999999"],
    "--in -1: write seconds": ["Diagnostics.noop", "--in", "-1"],
    "--in nan: write seconds": ["Diagnostics.noop", "--in", "nan"],
    "expire before it is due": ["Diagnostics.noop", "--in", "60", "--expires-in", "60"],
    "cannot be sent": ["Diagnostics.sleep", "1e999"],
    "Invalid value for '--instance'": ["Diagnostics.noop", "--instance", "99999999999999999999"],
}
BAD_COMMANDS = {
    "no message 4711: those that end well": ["queue", "show", "4711"],
    "say --all": ["queue", "retry"],
    "not both": ["queue", "retry", "1", "--all"],
    "no message 4711; `miq sql S03`": ["queue", "retry", "4711"],
    "no state 'ready' of failed messages": ["queue", "purge", "--state", "ready"],
    "--older-than 'soon': write seconds": ["queue", "purge", "--older-than", "soon"],
    "ask for one": ["queue", "--orphans", "--health"],
    "no task 4711": ["tasks", "show", "4711"],
    "no task 4711; `miq": ["tasks", "wait", "4711"],
    "no task 4711; ": ["tasks", "remove", "4711"],
    "no task state 'Idle'; there are: Initialized": ["tasks", "--state", "Idle"],
}


def test_bad_input_is_one_line_exit_code_2_and_not_one_row(miq: Miq, database: Database) -> None:
    commands = BAD_COMMANDS | {said: ["queue", "put", *each] for said, each in BAD_PUTS.items()}
    ended = {said: miq(*command) for said, command in commands.items()}
    assert {said: (each.code, each.out) for said, each in ended.items()} == dict.fromkeys(commands, (2, ""))
    assert {said: len(each.err.splitlines()) for said, each in ended.items()} == dict.fromkeys(commands, 1)
    assert [(said, each.error) for said, each in ended.items() if said not in each.error] == []
    assert rows(database) == []


def test_a_zone_in_maintenance_and_a_name_of_two_servers(miq: Miq, database: Database) -> None:
    (name,) = database.run("SELECT name FROM zones WHERE name LIKE '\\_\\_maint%'").fetchall()[0]
    refused = miq("queue", "put", "Diagnostics.noop", "--zone", name)
    assert (refused.code, "is the one for maintenance" in refused.error) == (2, True)
    database.run("INSERT INTO miq_servers (guid, name) VALUES ('another', 'EVM')")
    ambiguous = miq("queue", "put", "Diagnostics.noop", "--server", "EVM")
    assert (ambiguous.code, "2 servers are called 'EVM'" in ambiguous.error) == (2, True)
    assert miq("queue", "put", "Diagnostics.noop", "--server", "another").code == 0
    assert [row.server_guid for row in rows(database)] == ["another"]


def test_put_and_wait(environment: Environment, database: Database) -> None:
    process = start(environment, "queue", "put", "Diagnostics.sleep", "0.5", "--wait")
    work_once(database)
    ended = Ended(process)
    assert ended.code == 0
    assert "Finished, Ok: Task completed successfully" in ended.out
    assert ": Queued, " in ended.err or ": Active, " in ended.err
    process = start(environment, "queue", "put", "Diagnostics.sleep", "soon", "--wait", "--json")
    work_once(database)
    ended = Ended(process)
    assert (ended.code, ended.json["status"]) == (1, "Error")
    assert f"ended as Error: {ended.json['message']}" in ended.error


# -- one message -------------------------------------------------------------------------------------------------------


def test_show_tells_all_of_a_message(miq: Miq, database: Database) -> None:
    message_id = added(database, "sleep", args=[1], data={"a": 1}, role="smartproxy")
    shown = miq("queue", "show", str(message_id))
    assert "ready, nobody takes it: role 'smartproxy' is active nowhere" in shown.out
    assert "Diagnostics.sleep" in shown.out and '{"a": 1}' in shown.out
    database.run(
        "INSERT INTO miq_workers (guid, type, pid, miq_server_id)"
        " SELECT 'w', 'MiqGenericWorker', 11, id FROM miq_servers"
    )
    database.run(
        "UPDATE miq_queue SET state = 'dequeue', handler_type = 'MiqWorker', handler_id = (SELECT id FROM miq_workers)"
    )
    found = miq("queue", "show", str(message_id), "--json").json
    assert (found["state"], found["data"], found["handler"]["pid"], found["waits_because"]) == (
        "dequeue", {"a": 1}, 11, None,
    )  # fmt: skip
    assert "MiqGenericWorker" in miq("queue", "show", str(message_id)).out


# -- failed ones -------------------------------------------------------------------------------------------------------


def test_retry_by_id_and_by_what_they_are(miq: Miq, database: Database) -> None:
    one, two = failed(database), failed(database, "timeout")
    three, four = failed(database, "error", queue_name="x"), added(database)
    assert miq("queue", "retry", str(one), str(two)).out == "2 messages put back\n"
    assert [row.state for row in rows(database)] == ["ready", "ready", "error", "ready"]
    refused = miq("queue", "retry", str(three), str(four))
    assert (refused.code, f"message {four} has not failed: it is ready" in refused.error) == (2, True)
    assert [row.state for row in rows(database)] == ["ready", "ready", "error", "ready"]
    assert miq("queue", "retry", "--all", "--queue", "y", "--json").json == {"retried": []}
    options = ("--queue", "x", "--state", "error", "--method", "Diagnostics.noop")
    assert miq("queue", "retry", "--all", *options, "--json").json == {"retried": [three]}
    assert {row.state for row in rows(database)} == {"ready"}


def test_purge_deletes_failed_ones_only_and_asks_first(miq: Miq, database: Database) -> None:
    old, new, ready = failed(database, days=3), failed(database, "warn"), added(database)
    refused = miq("queue", "purge")
    assert (refused.code, "deleting 2 messages asks first: add --yes" in refused.error) == (2, True)
    assert miq("queue", "purge", str(ready), "--yes").code == 2
    assert len(rows(database)) == 3
    assert miq("queue", "purge", "--older-than", "2.days", "--yes").out == "1 message deleted\n"
    assert [row.id for row in rows(database)] == [new, ready]
    assert old not in [row.id for row in rows(database)]
    assert miq("queue", "purge", "--method", "Diagnostics", "--yes", "--json").json == {"deleted": 1}
    assert [row.id for row in rows(database)] == [ready]
    assert miq("queue", "purge").out == "0 messages deleted\n"


# -- tasks -------------------------------------------------------------------------------------------------------------


def made(database: Database, name: str = "try", **columns: Any) -> int:
    with database.session() as session:
        task_id = create_task(session, name)
        task = session.get_one(MiqTask, task_id)
        for column, value in columns.items():
            setattr(task, column, value)
    return task_id


def test_the_list_of_tasks(miq: Miq, database: Database) -> None:
    queued = made(database, "first")
    active = made(database, "second", state="Active", pct_complete=40, zone="east")
    over = made(database, "third", state="Finished", results='{"a": 1}')
    listed = miq("tasks").out.splitlines()
    assert listed[0].split() == ["Id", "Name", "State", "Status", "Message", "%", "User", "Age", "Zone"]
    assert [line.split()[0] for line in listed[2:]] == [str(queued), str(active)]
    assert "  40  system  " in listed[3] and listed[3].endswith("east")
    everything = miq("tasks", "--all", "--json").json
    assert [task["id"] for task in everything] == [queued, active, over]
    assert everything[2]["results"] == {"a": 1}
    assert [task["id"] for task in miq("tasks", "--state", "finished", "--json").json] == [over]


def test_one_task_from_its_message_to_its_removal(environment: Environment, miq: Miq, database: Database) -> None:
    process = start(environment, "queue", "put", "Diagnostics.sleep", "0", "--wait", "--in", "3600")
    row = until(lambda: database.run("SELECT id, miq_task_id FROM miq_queue").fetchone())
    process.kill()
    process.communicate()
    shown = miq("tasks", "show", str(row[1]))
    assert f"message {row[0]}" in shown.out and "Diagnostics.sleep" in shown.out
    late = miq("tasks", "wait", str(row[1]), "--timeout", "0.1")
    assert (late.code, "has not ended within 0.1 s" in late.error) == (1, True)
    database.run("UPDATE miq_tasks SET state = 'Active'")
    refused = miq("tasks", "remove", str(row[1]))
    assert (refused.code, "is Active" in refused.error) == (2, True)
    database.run("UPDATE miq_tasks SET state = 'Queued'")
    removed = miq("tasks", "remove", str(row[1]))
    assert (removed.code, removed.out) == (0, f"removed task {row[1]}\n")
    assert f"message {row[0]} of it stays in the queue" in removed.err


@pytest.mark.parametrize(("status", "code"), [("Ok", 0), ("Warn", 1), ("Error", 1), ("Timeout", 1)])
def test_waiting_tells_how_a_task_ended(miq: Miq, database: Database, status: str, code: int) -> None:
    task_id = made(database, state="Finished", status=status, message="so it was", results="[1]")
    ended = miq("tasks", "wait", str(task_id))
    assert ended.code == code
    assert "so it was" in (ended.error if code else ended.out)
    assert json.loads(miq("tasks", "wait", str(task_id), "--json").out)["results"] == [1]
