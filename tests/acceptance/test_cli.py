"""The real executable `miq` as its users run it: a process, a database, a simulated AWS over HTTP.

Shown here: exit codes, one line for an error and never a traceback, JSON that is a document and nothing else, secrets
that stay out of sight, and what is said while somebody waits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from miq.db import Database, normal_dsn
from miq.paths import Home
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery, deliver
from miq.queue.methods import load_methods
from miq.queue.record import record
from miq.settings import Settings
from tests.parts.moto import moto_server

MIQ = [sys.executable, "-m", "miq.workers.bin.miq"]
SECRET = "wJalrXUtnFEMI-s3cret"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def environment(home: Home, dsn: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MIQ_"))}
    return plain | {"MIQ_HOME": str(home.path), "DATABASE_URL": dsn, "NO_COLOR": "1", "SECRET": SECRET}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*MIQ, *arguments], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


class Ended:
    """How a command ended; its words never hold the secret, whatever it did."""

    def __init__(self, process: subprocess.Popen[str], given: str = "") -> None:
        self.out, self.err = process.communicate(given, timeout=60)
        self.code = process.returncode
        assert SECRET not in self.out + self.err
        assert "Traceback" not in self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that an error is."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("miq: ")]
        return line


def miq(environment: dict[str, str], *arguments: str, given: str = "") -> Ended:
    return Ended(start(environment, *arguments), given)


def add(environment: dict[str, str], name: str, endpoint: str, *more: str) -> Ended:
    options = ("--region", "us-east-1", "--userid", "AKIA", "--password-env", "SECRET", "--endpoint-url", endpoint)
    return miq(environment, "ems", "add", "ec2", name, *options, *more)


def until(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What `look` sees as soon as it sees something."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, "nothing was seen in time"
        time.sleep(0.05)
    return seen


# -- the command line itself -------------------------------------------------------------------------------------------


def test_help_is_quick_because_it_imports_no_database() -> None:
    script = "import sys; from miq.cli.app import main; main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(noun in done.stdout for noun in ("status", "queue", "ems", "sql", "db", "server"))
    assert "'sqlalchemy'" not in done.stdout


def test_reading_imports_no_sdk(environment: dict[str, str]) -> None:
    script = (
        "import sys; from miq.cli.app import main\n"
        "assert main(['status']) == main(['ems', 'list']) == main(['ems', 'types']) == 0\n"
        "print('botocore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


BAD_INPUT = {
    "No such command 'nonsense'": ["nonsense"],
    "No such option: --password": ["ems", "add", "ec2", "x", "--password", "y"],
    "no manager type 'nothing'": ["ems", "add", "nothing", "x"],
    "no Secret Access Key given": ["ems", "add", "ec2", "x", "--region", "us-east-1", "--userid", "u"],
    "variable NONE is not set": ["ems", "add", "ec2", "x", "--userid", "u", "--password-env", "NONE"],
    "/none cannot be read": ["ems", "add", "ec2", "x", "--userid", "u", "--password-file", "/none"],
    "has no region 'mars'": ["ems", "add", "ec2", "x", "--userid", "u", "--password-env", "SECRET", "--region", "mars"],
    "no manager 'nobody'": ["ems", "show", "nobody"],
    "no manager 'no one'": ["ems", "check", "no one"],
    "no query 'S99'": ["sql", "S99"],
    "add --write": ["sql", "S15"],
}


def test_bad_input_is_one_line_and_exit_code_2(environment: dict[str, str]) -> None:
    started = {said: start(environment, *arguments) for said, arguments in BAD_INPUT.items()}
    ended = {said: Ended(process) for said, process in started.items()}
    assert {said: (each.code, each.out) for said, each in ended.items()} == dict.fromkeys(BAD_INPUT, (2, ""))
    assert [said for said, each in ended.items() if said not in each.error] == []


def test_a_proxys_password_does_not_belong_on_the_command_line(environment: dict[str, str]) -> None:
    ended = add(environment, "x", "http://127.0.0.1:1", "--http-proxy", "http://me:pass@proxy:1")
    assert ended.code == 2
    assert "--http-proxy-env" in ended.error


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://x", "DATABASE_URL"),
        ("postgresql://127.0.0.1:1/x", "the database cannot be reached"),
    ],
)
def test_a_database_out_of_reach(environment: dict[str, str], url: str, said: str) -> None:
    ended = miq(environment | {"DATABASE_URL": url}, "status")
    assert (ended.code, said in ended.error) == (2, True)


def test_debug_shows_where_an_error_comes_from(environment: dict[str, str]) -> None:
    process = start(environment, "ems", "show", "nobody", "--debug")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" in err and "UnknownManager" in err


# -- db ----------------------------------------------------------------------------------------------------------------


def test_migration_step_by_step(environment: dict[str, str], empty_dsn: str) -> None:
    empty = environment | {"DATABASE_URL": empty_dsn}
    older = miq(empty, "status")
    assert (older.code, "run `miq db migrate`" in older.error) == (2, True)
    migrated = miq(empty, "db", "migrate")
    assert migrated.code == 0
    assert "migration 0001 applied in" in migrated.err
    state = miq(empty, "db", "status", "--json").json
    assert (state["current"], state["revision"], state["embedded"]) == (True, state["needed"], False)
    assert miq(empty, "db", "url").out.strip() == normal_dsn(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    newer = miq(empty, "queue")
    assert (newer.code, "newer than this program" in newer.error) == (2, True)


def test_the_embedded_database_has_no_address_while_it_does_not_run(environment: dict[str, str]) -> None:
    del environment["DATABASE_URL"]
    ended = miq(environment, "db", "url")
    assert (ended.code, "does not run" in ended.error) == (2, True)


# -- managers ----------------------------------------------------------------------------------------------------------


def test_the_life_of_a_manager(environment: dict[str, str], dsn: str, aws: str) -> None:
    options = ("--region", "us-east-1", "--userid", "AKIA", "--endpoint-url", aws)
    added = miq(environment, "ems", "add", "ec2", "prod", *options, "--password-stdin", "--json", given=f"{SECRET}\n")
    assert (added.code, added.json["status"]) == (0, "Valid")
    assert "checking prod in this process" in added.err
    again = add(environment, "prod", aws)
    assert (again.code, "already" in again.error) == (2, True)
    (listed,) = miq(environment, "ems", "list", "--json").json
    assert (listed["name"], listed["status"], listed["last_refresh"], listed["vms"]) == ("prod", "Valid", "never", 0)
    assert "prod" in miq(environment, "ems", "list").out
    changed = miq(environment, "ems", "edit", "prod", "--name", "live", "--endpoint-url", "http://127.0.0.1:1")
    assert (changed.code, "Unreachable" in changed.error) == (2, True)
    shown = miq(environment, "ems", "show", "live", "--json").json
    assert (shown["status"], shown["endpoint_url"], shown["userid"]) == ("Unreachable", "http://127.0.0.1:1", "AKIA")
    refused = miq(environment, "ems", "remove", "live")
    assert (refused.code, "--yes" in refused.error) == (2, True)
    assert miq(environment, "ems", "remove", "live", "--yes").code == 0
    assert miq(environment, "ems", "list", "--json").json == []
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM authentications").fetchone() == (0,)


def test_a_manager_whose_check_failed_stays_with_its_status(environment: dict[str, str]) -> None:
    ended = add(environment, "far away", "http://127.0.0.1:1")
    assert ended.code == 2
    assert "Unreachable" in ended.error
    assert "miq ems edit 'far away'" in ended.error and "miq ems remove 'far away'" in ended.error
    assert miq(environment, "ems", "show", "far away", "--json").json["status"] == "Unreachable"


def test_a_missing_key_is_named_before_anything_is_written(environment: dict[str, str], home: Home) -> None:
    assert add(environment, "one", "http://127.0.0.1:1", "--no-check").code == 0
    home.key_file.unlink()
    ended = add(environment, "two", "http://127.0.0.1:1", "--no-check")
    assert (ended.code, str(home.key_file) in ended.error) == (2, True)
    assert [row["name"] for row in miq(environment, "ems", "list", "--json").json] == ["one"]


def live_server(database: Database) -> None:
    """The row of a server that lives somewhere."""
    database.run(
        "INSERT INTO miq_servers (guid, name, status, zone_id, started_on, last_heartbeat)"
        " SELECT 'elsewhere', 'EVM', 'started', id, utc_now(), utc_now() FROM zones WHERE name = 'default'"
    )


def test_a_check_is_a_workers_where_a_server_lives(environment: dict[str, str], database: Database, aws: str) -> None:
    assert add(environment, "prod", aws, "--no-check").code == 0
    live_server(database)
    process = start(environment, "ems", "check", "prod")
    _work_once(database, environment)
    ended = Ended(process)
    assert (ended.code, ended.out) == (0, "prod: Valid\n")
    assert "checking prod: Queued" in ended.err


def _work_once(database: Database, environment: dict[str, str]) -> None:
    """Be the generic worker, for one message."""
    load_methods()
    route = Route("generic", "default", ["ems_operations"], None)
    (message,) = until(lambda: claim(database, Handler("MiqWorker", 1), route))
    delivery = Delivery(database, Handler("MiqWorker", 1), info={"settings": Settings({})})
    record(deliver(message, delivery), delivery)


def test_a_refresh_waits_in_the_queue_when_nobody_takes_it(environment: dict[str, str], database: Database) -> None:
    assert add(environment, "prod", "http://127.0.0.1:1", "--no-check").code == 0
    queued = miq(environment, "ems", "refresh", "prod")
    assert (queued.code, "waits in the queue: no server" in queued.err) == (0, True)
    live_server(database)
    waited = miq(environment, "ems", "refresh", "prod", "--wait")
    assert (waited.code, "credentials are not checked" in waited.error) == (1, True)
    (row,) = miq(environment, "queue", "--json").json["messages"]
    assert (row["zone"], row["method"], row["count"]) == ("default", "EmsRefresh.refresh", 1)


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("error", 1)])
def test_a_refresh_is_waited_for(environment: dict[str, str], database: Database, state: str, code: int) -> None:
    assert add(environment, "prod", "http://127.0.0.1:1", "--no-check").code == 0
    live_server(database)
    database.run("UPDATE authentications SET status = 'Valid'")
    process = start(environment, "ems", "refresh", "prod", "--wait")
    row = until(lambda: database.run("SELECT miq_task_id FROM miq_queue WHERE state = 'ready'").fetchone())
    counts = {"vms": {"seen": 7, "created": 7, "updated": 0, "unchanged": 0, "archived": 0, "complete": True}}
    database.run(
        "INSERT INTO ems_refreshes (ems_id, state, collections, miq_task_id, started_on, seconds, error, cause)"
        " SELECT id, %(state)s, %(counts)s, %(task)s, utc_now(), 1.5, %(error)s, 'user' FROM ext_management_systems",
        {"state": state, "counts": json.dumps(counts), "task": row[0], "error": "no answer" if code else None},
    )
    database.run("UPDATE miq_tasks SET state = 'Finished'")
    ended = Ended(process)
    assert ended.code == code
    assert f"{state} in 1.5 s" in ended.out
    assert "vms            7        7" in ended.out
    assert (not code) or "no answer" in ended.error


# -- status, queue, sql ------------------------------------------------------------------------------------------------


def test_status_shows_servers_workers_exits_and_what_is_wrong(environment: dict[str, str], database: Database) -> None:
    assert add(environment, "prod", "http://127.0.0.1:1", "--no-check").code == 0
    live_server(database)
    database.run(
        "INSERT INTO miq_workers (guid, type, status, pid, queue_name, miq_server_id, proportional_set_size)"
        " SELECT g, t, s, p, q, (SELECT id FROM miq_servers), 31457280 FROM (VALUES"
        " ('a', 'MiqGenericWorker', 'started', 11, 'generic'), ('b', 'MiqGenericWorker', 'stopping', 12, 'generic'),"
        " ('c', 'ManageIQ::Providers::Gone::CloudManager::RefreshWorker', 'started', 13, 'ems_9')) AS v(g, t, s, p, q)"
    )
    database.run(
        "INSERT INTO miq_worker_exits (type, queue_name, pid, ended_on, signal, reason, deaths_in_vain, back_off_until)"
        " VALUES ('MiqGenericWorker', 'generic', 9, utc_now(), 9, 'killed', 5, utc_now() + interval '1 minute')"
    )
    text = miq(environment, "status").out
    assert "1 of 1 servers running" in text
    assert "stop pending" in text and "30/1024" in text
    assert "All rows have the values: Region=0, Zone=default, Server=EVM" in text
    assert "signal SIGKILL: killed" in text
    assert "died 5 times in vain" in text
    assert "Gone::CloudManager::RefreshWorker is unknown here" in text
    found = miq(environment, "status", "--json").json
    assert (found["running"], len(found["workers"]), found["exits"][0]["signal"]) == (True, 3, 9)
    assert {"guid", "unique_set_size", "cpu_time", "uri"} <= set(found["workers"][0])


def test_status_says_that_the_server_is_down(environment: dict[str, str], database: Database, home: Home) -> None:
    assert "No server has run" in miq(environment, "status").out
    assert add(environment, "prod", "http://127.0.0.1:1", "--no-check").code == 0
    live_server(database)
    home.guid_file.write_text("elsewhere\n")
    ended = miq(environment, "status")
    assert (ended.code, "The server is down" in ended.out) == (0, True)


def test_the_cookbook(environment: dict[str, str]) -> None:
    assert {"name": "S01", "question": "How long is the queue?", "writes": False} in miq(
        environment, "sql", "--json"
    ).json
    assert miq(environment, "sql", "s1", "--json").json == [{"count": 0}]
    assert miq(environment, "sql", "S15", "--write", "--json").json == []


# -- server ------------------------------------------------------------------------------------------------------------


def test_stop_ends_the_server_of_this_home(environment: dict[str, str], home: Home) -> None:
    script = (
        "import signal, sys, setproctitle; setproctitle.setproctitle('MIQ Server')\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        home.pid_file.write_text(f"{server.pid}\n")
        process = start(environment, "server", "stop")
        assert server.wait(30) == 0
        ended = Ended(process)
    assert (ended.code, ended.out) == (0, f"server {server.pid} stopped\n")
    none = miq(environment, "server", "stop")
    assert (none.code, "no server runs" in none.err) == (0, True)


def test_stop_leaves_alone_whoever_has_the_pid_by_now(environment: dict[str, str], home: Home) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        home.pid_file.write_text(str(bystander.pid))
        assert "no server runs" in miq(environment, "server", "stop").err
        assert bystander.poll() is None
        bystander.send_signal(signal.SIGKILL)


def test_the_installed_executable_is_this_one() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("miq")), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("miq ")
