"""What cannot be used, end to end: the installed executables, a real database, real endpoints that refuse.

Whatever is refused: exit code 2, one line that names the thing and the fix, no traceback, no secret, and not one row
changed. What cannot be refused, because it turns up while the server runs, is named by `miq status` and takes down
nothing but itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from miq.db import Database
from miq.paths import Home
from miq.schema import migrate
from tests.parts.certificate import self_signed
from tests.parts.front import front
from tests.process.appliance import appliance

pytestmark = pytest.mark.timeout(120)

BIN = Path(sys.executable).parent
SECRET = "wJalrXUtnFEMI-s3cret"
NOWHERE = "http://127.0.0.1:1"
WORKER = ("miq-worker", "--once", "MiqGenericWorker")
#: a daemon, a worker by hand, a command that reads
PROGRAMS = [("miq-server",), WORKER, ("miq", "status")]
every_program = pytest.mark.parametrize("command", PROGRAMS, ids=lambda command: " ".join(command))

Environment = dict[str, str]


@pytest.fixture
def environment(home: Home, dsn: str) -> Environment:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MIQ_", "PG"))}
    return plain | {"MIQ_HOME": str(home.path), "DATABASE_URL": dsn, "NO_COLOR": "1", "SECRET": SECRET}


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str


def run(environment: Environment, *command: str, seconds: float = 60) -> Ended:
    """Run one of the executables to its end; what it says holds neither the secret nor a traceback."""
    program = [str(BIN / command[0]), *command[1:]]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        try:
            out, err = (each.decode() for each in process.communicate(timeout=seconds))
        finally:
            process.kill()
    assert SECRET not in out + err
    assert "Traceback" not in err
    return Ended(process.returncode, out, err)


def refused(environment: Environment, *command: str) -> str:
    """The one line of a program that cannot use its input; it says nothing else."""
    ended = run(environment, *command)
    assert (ended.code, ended.out) == (2, ""), ended
    (line,) = ended.err.splitlines()
    name, _, said = line.partition(": ")
    assert name == command[0]
    return said


def contents(dsn: str) -> dict[str, str]:
    """Every table, as a digest of all its rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        digest = "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {} AS t"
        return {name: str(connection.execute(digest.format(name).encode()).fetchall()[0][0]) for (name,) in tables}


@contextmanager
def nothing_written(dsn: str) -> Iterator[None]:
    before = contents(dsn)
    yield
    after = contents(dsn)
    assert {name for name in before | after if before.get(name) != after.get(name)} == set()


def sql(dsn: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def add(environment: Environment, endpoint: str, *more: str) -> Ended:
    options = ("--region", "us-east-1", "--userid", "AKIA", "--password-env", "SECRET", "--endpoint-url", endpoint)
    return run(environment, "miq", "ems", "add", "ec2", "prod", *options, *more)


# -- managers ----------------------------------------------------------------------------------------------------------


def not_valid(ended: Ended, status: str) -> str:
    """The line of a manager that was added and does not answer as it should: kept, with the fix."""
    (line,) = [line for line in ended.err.splitlines() if line.startswith("miq: ")]
    assert (ended.code, line.startswith(f"miq: prod: {status}: ")) == (2, True), ended
    assert "`miq ems edit prod` changes it" in line
    return line


def assert_it_stands_there_whole(environment: Environment, status: str) -> None:
    """One manager, its endpoint and its credentials: the status says what is wrong, and nothing was read."""
    dsn = environment["DATABASE_URL"]
    shown = json.loads(run(environment, "miq", "ems", "show", "prod", "--json").out)
    assert (shown["status"], shown["last_refresh"], shown["vms"]) == (status, "never", 0)
    rows = sql(
        dsn,
        "SELECT (SELECT count(*) FROM ext_management_systems), (SELECT count(*) FROM endpoints),"
        " (SELECT count(*) FROM authentications), (SELECT count(*) FROM miq_queue), (SELECT count(*) FROM vms)",
    )
    assert rows == [(1, 1, 1, 0, 0)]
    assert sql(dsn, "SELECT status FROM authentications WHERE password LIKE 'v2:{%%' AND last_valid_on IS NULL") == [
        (status,)
    ]


def test_bad_credentials(environment: Environment) -> None:
    with front(None) as aws:
        aws.refuse("*", 401, "AuthFailure", f"AWS was not able to validate {SECRET}")
        assert "Login failed" in not_valid(add(environment, aws.url), "Invalid")
    assert_it_stands_there_whole(environment, "Invalid")


def test_an_unreachable_endpoint(environment: Environment) -> None:
    assert "cannot be reached" in not_valid(add(environment, NOWHERE), "Unreachable")
    assert_it_stands_there_whole(environment, "Unreachable")


def test_a_certificate_that_is_not_trusted(environment: Environment, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with front(None, certificate=(certificate, key)) as aws:
        aws.refuse("*", 401, "AuthFailure")
        assert "certificate of the endpoint is not trusted" in not_valid(add(environment, aws.url), "Unreachable")
        assert_it_stands_there_whole(environment, "Unreachable")
        assert aws.seen == []
        edited = run(environment, "miq", "ems", "edit", "prod", "--ca-file", str(certificate))
        not_valid(edited, "Invalid")  # TLS is well now: the refusal was heard
        run(environment, "miq", "ems", "edit", "prod", "--ca-file", "", "--insecure")
        assert aws.calls["DescribeRegions"] == 2


def test_an_endpoint_without_tls(environment: Environment) -> None:
    with front(None) as aws:
        line = not_valid(add(environment, aws.url.replace("http:", "https:")), "Unreachable")
    assert "no TLS with the endpoint" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "nothing", "x"], "no manager type 'nothing'"),
        (["add", "ec2", "x", "--userid", "u", "--password-env", "SECRET"], "--region"),
        (["add", "ec2", "x", "--userid", "u", "--password-env", "SECRET", "--endpoint-url", "ftp://x"], "http(s)"),
        (["add", "ec2", "x", "--userid", "u", "--password-env", "SECRET", "--http-proxy-env", "PROXY"], "HTTP proxy"),
        (["add", "ec2", "x", "--userid", "u", "--password-env", "SECRET", "--ca-file", "{garbage}"], "certificate"),
        (["refresh", "nobody"], "no manager 'nobody'"),
    ],
)
def test_a_manager_that_cannot_be(
    environment: Environment, dsn: str, tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    given = [each.format(garbage=garbage) for each in arguments]
    if "ec2" in given and said != "--region":
        given += ["--region", "us-east-1"]
    assert add(environment, NOWHERE, "--no-check").code == 0
    with nothing_written(dsn):
        assert said in refused(environment | {"PROXY": f"http://me:{SECRET}"}, "miq", "ems", *given)


# -- words on the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["miq", "nonsense"], "No such command 'nonsense'"),
        (["miq", "--nonsense"], "No such option: --nonsense"),
        (["miq", "queue", "more"], "unexpected extra argument"),
        (["miq", "db", "migrate", "--region", "north"], "'north' is not a valid int"),
        (["miq-server", "--nonsense"], "--nonsense"),
        (["miq-server", "more"], "more"),
        (["miq-worker", "--nonsense"], "--nonsense"),
        (["miq-worker", "NoSuchWorker"], "unknown worker class 'NoSuchWorker': `miq-worker -l` lists them"),
        (["miq-worker", "Amazon::CloudManager::RefreshWorker", "first"], "'first'"),
        (["miq-worker", "Amazon::CloudManager::RefreshWorker", "7"], "no manager has the id 7"),
        (["miq-worker", "MiqGenericWorker", "1", "2"], "2"),
    ],
)
def test_words_that_mean_nothing(environment: Environment, dsn: str, command: Sequence[str], said: str) -> None:
    with nothing_written(dsn):
        assert said in refused(environment, *command)


# -- the database ------------------------------------------------------------------------------------------------------


@every_program
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"nonsense://me:{SECRET}@localhost/miq", "DATABASE_URL is not a PostgreSQL address"),
        (f"postgresql://me:{SECRET}@localhost:port/miq", "DATABASE_URL"),
        (f"postgresql://me:{SECRET}@localhost/miq?no_such_option=1", "DATABASE_URL"),
        (f"host=localhost password='{SECRET}", "DATABASE_URL"),
        (f"postgresql://me:{SECRET}@127.0.0.1:1/miq", "the database cannot be reached"),
        (f"postgresql://me:{SECRET}@host.invalid/miq", "the database cannot be reached"),
    ],
    ids=["scheme", "port", "option", "quote", "refused", "no host"],
)
def test_a_wrong_address(environment: Environment, home: Home, command: Sequence[str], url: str, said: str) -> None:
    line = refused(environment | {"DATABASE_URL": url}, *command)
    assert said in line and "DATABASE_URL" in line
    assert not (home.path / "postgres").exists()


@every_program
def test_a_database_that_is_not_there(environment: Environment, dsn: str, command: Sequence[str]) -> None:
    other = dsn.replace("/miq_test_", "/miq_absent_", 1)
    assert 'database "miq_absent_' in refused(environment | {"DATABASE_URL": other}, *command)


@every_program
@pytest.mark.parametrize("revision", [None, "0001"])
def test_an_older_schema(
    environment: Environment, empty_dsn: str, command: Sequence[str], revision: str | None
) -> None:
    if revision:
        database = Database(empty_dsn)
        migrate(database, to=revision)
        database.close()
    with nothing_written(empty_dsn):
        line = refused(environment | {"DATABASE_URL": empty_dsn}, *command)
    assert f"is at {revision or 'nothing'}" in line and "run `miq db migrate`" in line


@every_program
def test_a_newer_schema(environment: Environment, dsn: str, command: Sequence[str]) -> None:
    sql(dsn, "UPDATE alembic_version SET version_num = '9999'")
    with nothing_written(dsn):
        line = refused(environment, *command)
        assert "is at 9999, which is newer than this program" in line and "upgrade `miq`" in line
        assert "newer than this program" in run(environment, "miq", "db", "migrate").err


# -- the appliance -----------------------------------------------------------------------------------------------------


def test_a_second_server_on_the_same_home(environment: Environment, dsn: str, home: Home) -> None:
    with appliance(dsn, home.path) as server:
        server.wait_for_workers(3)
        workers = server.workers()
        line = refused(environment, "miq-server")
        assert f"pid {server.process.pid}" in line and "miq server stop" in line
        assert server.workers() == workers
        assert server.sql("SELECT pid, status FROM miq_servers") == [(server.process.pid, "started")]
        assert server.stop() == 0


KEY_NEEDED = [("miq-server",), WORKER, ("miq", "ems", "edit", "prod", "--password-env", "SECRET")]


@pytest.mark.parametrize("command", KEY_NEEDED, ids=lambda command: " ".join(command))
@pytest.mark.parametrize("key", [None, "another", "damaged"])
def test_a_database_whose_key_is_not_there(
    environment: Environment, dsn: str, home: Home, tmp_path: Path, command: Sequence[str], key: str | None
) -> None:
    assert add(environment, NOWHERE, "--no-check").code == 0
    home.key_file.unlink()
    if key == "another":
        run(environment | {"MIQ_HOME": str(tmp_path / "other")}, "miq-server")
        Home(tmp_path / "other").make()
        from miq.secrets import Key

        Key.load_or_create(home.key_file)
    elif key == "damaged":
        home.key_file.write_text("nonsense\n")
        home.key_file.chmod(0o600)
    content = home.key_file.read_bytes() if key else None
    with nothing_written(dsn):
        line = refused(environment, *command)
    assert str(home.key_file) in line and "put" in line and "back" in line
    assert (home.key_file.read_bytes() if home.key_file.exists() else None) == content


GARBAGE = {
    "not YAML": ("server: [", "settings.local.yml line"),
    "no mapping": ("- server", "a mapping is expected"),
    "wrong type of a section": ("server: 7", "setting server"),
    "wrong type of the roles": ("server: {role: 7}", "setting server.role"),
    "unknown role": ("server: {role: [event, juggler]}", "unknown role juggler"),
    "no duration": ("server: {heartbeat_frequency: 10.parsecs}", "setting server.heartbeat_frequency: '10.parsecs'"),
    "endless": ("server: {quiesce_timeout: .inf}", "setting server.quiesce_timeout"),
    "negative": ("server: {worker_monitor_frequency: -5}", "setting server.worker_monitor_frequency"),
    "no count": (
        "workers: {worker_base: {queue_worker_base: {generic_worker: {count: many}}}}",
        "generic_worker.count",
    ),
    "no size": ("workers: {worker_base: {defaults: {memory_threshold: big}}}", "memory_threshold"),
    "no modules": ("server: {mold: {preload: 3}}", "setting server.mold.preload"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_settings_of_the_server(environment: Environment, dsn: str, home: Home, kind: str) -> None:
    text, said = GARBAGE[kind]
    home.local_settings.write_text(text)
    with nothing_written(dsn):
        assert said in refused(environment, "miq-server")


@pytest.mark.parametrize("kind", ["not YAML", "wrong type of a section", "no duration", "no size"])
def test_garbage_settings_of_a_worker(environment: Environment, dsn: str, home: Home, kind: str) -> None:
    text, said = GARBAGE[kind]
    home.local_settings.write_text(text)
    with nothing_written(dsn):
        assert said in refused(environment, *WORKER)
