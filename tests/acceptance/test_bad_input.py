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
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from miq.db import Database
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
from miq.schema import migrate
from miq.secrets import Key
from miq.server import seeding
from tests.parts.certificate import self_signed
from tests.parts.front import front
from tests.parts.managers import add_amazon
from tests.process.appliance import Appliance, appliance, eventually

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


def in_use(dsn: str, home: Home) -> None:
    """A database in which a manager `prod` stands, encrypted with this home's key."""
    database = Database(dsn)
    with database.session() as session:
        seeding.seed(session, seeding.check_key(session, home.key_file))
        add_amazon(session, home, NOWHERE, name="prod")
    database.close()


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


def test_bad_credentials_beside_a_server(environment: Environment, dsn: str, home: Home) -> None:
    """A worker checks them there; none is started for the manager."""
    with front(None) as aws, appliance(dsn, home.path) as server:
        workers = server.wait_for_workers(3)
        aws.refuse("*", 401, "AuthFailure")
        assert "Login failed" in not_valid(add(environment, aws.url), "Invalid")
        assert_it_stands_there_whole(environment, "Invalid")
        server.sql("NOTIFY miq_sync")
        assert_the_others_work(server)
        assert server.workers() == workers
        assert server.stop() == 0


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
        (["add", "ec2", "x", "--userid", "u", "--password-env", "SECRET", "--http-proxy-env", "PROXY"], "proxy is not"),
        (["add", "ec2", "x", "--userid", "u", "--password-env", "SECRET", "--ca-file", "{garbage}"], "certificate"),
        (["refresh", "nobody"], "no manager 'nobody'"),
    ],
)
def test_a_manager_that_cannot_be(
    environment: Environment, dsn: str, home: Home, tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    given = [each.format(garbage=garbage) for each in arguments]
    if "ec2" in given and said != "--region":
        given += ["--region", "us-east-1"]
    in_use(dsn, home)
    with nothing_written(dsn):
        assert said in refused(environment | {"PROXY": f"http://me:{SECRET}"}, "miq", "ems", *given)


# -- words on the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["miq", "nonsense"], "No such command 'nonsense'"),
        (["miq", "--nonsense"], "No such option: --nonsense"),
        (["miq", "queue", "more"], "No such command 'more'"),
        (["miq", "queue", "purge", "--state", "ready"], "ready"),
        (["miq", "db", "migrate", "--region", "north"], "Invalid value for '--region'"),
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


def test_an_embedded_database_does_not_outlive_a_server_that_cannot_start(environment: Environment) -> None:
    del environment["DATABASE_URL"]
    with TemporaryDirectory(prefix="miq-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        home = Home(Path(folder) / "home")
        line = refused(environment | {"MIQ_HOME": str(home.path)}, "miq-server")
        assert "run `miq db migrate`" in line
        assert not EmbeddedPostgres(home).is_running()
        assert home.pid_file.read_text() == ""


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
    environment: Environment, dsn: str, home: Home, command: Sequence[str], key: str | None
) -> None:
    in_use(dsn, home)
    home.key_file.unlink()
    if key == "another":
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
    "not YAML": ("server: [", "settings.local.yml line 1: not YAML"),
    "no mapping": ("- server", "a mapping is expected at the top"),
    "wrong type of a section": ("server: 7", "setting server: a mapping is expected"),
    "secret in place of a section": (
        f"http_proxy: {{default: 'http://me:{SECRET}@proxy'}}",
        "setting http_proxy.default",
    ),
    "wrong type of the roles": ("server: {role: 7}", "setting server.role: a list of names is expected"),
    "unknown role": ("server: {role: [event, juggler]}", "setting server.role: unknown role juggler"),
    "no duration": ("server: {heartbeat_frequency: 10.parsecs}", "setting server.heartbeat_frequency: '10.parsecs'"),
    "endless": ("server: {quiesce_timeout: .inf}", "setting server.quiesce_timeout"),
    "negative": ("server: {worker_monitor_frequency: -5}", "setting server.worker_monitor_frequency"),
    "no count": (
        "workers: {worker_base: {queue_worker_base: {generic_worker: {count: many}}}}",
        "generic_worker.count",
    ),
    "no size": ("workers: {worker_base: {defaults: {memory_threshold: big}}}", "memory_threshold: 'big'"),
    "no modules": ("server: {mold: {preload: [3]}}", "setting server.mold.preload"),
}
every_garbage = pytest.mark.parametrize(("text", "said"), GARBAGE.values(), ids=GARBAGE)


@every_garbage
def test_garbage_in_the_settings_of_a_server(
    environment: Environment, dsn: str, home: Home, text: str, said: str
) -> None:
    home.local_settings.write_text(text)
    with nothing_written(dsn):
        assert said in refused(environment, "miq-server")


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (WORKER, "not YAML"),
        (WORKER, "no size"),
        (WORKER, "unknown role"),
        (("miq", "ems", "refresh", "prod"), "not YAML"),
        (("miq", "ems", "refresh", "prod"), "no size"),
    ],
)
def test_garbage_in_the_settings_of_a_command(
    environment: Environment, dsn: str, home: Home, command: Sequence[str], kind: str
) -> None:
    in_use(dsn, home)
    text, said = GARBAGE[kind]
    home.local_settings.write_text(text)
    with nothing_written(dsn):
        assert said in refused(environment, *command)


def test_nothing_is_added_with_garbage_in_the_settings(environment: Environment, dsn: str, home: Home) -> None:
    home.local_settings.write_text(GARBAGE["no size"][0])
    with nothing_written(dsn):
        assert "memory_threshold" in add(environment, NOWHERE).err


BAD_ROWS = [
    ("no path", "1", "'no path' is not of the form /a/b/c"),
    ("/server/heartbeat_timeout", "[", "the value of /server/heartbeat_timeout is not YAML"),
    ("/workers/worker_base/defaults/poll", "sometimes", "'sometimes' is not a number"),
]


#: no step of the server falls due meanwhile: what it does, it does because it was told
SELDOM = """
server: {heartbeat_frequency: 9.minutes, server_monitor_frequency: 9.minutes, server_role_monitor_frequency: 9.minutes,
         worker_monitor_frequency: 9.minutes, server_log_frequency: 9.minutes}
"""


def change_setting(server: Appliance, key: str, value: str) -> None:
    server.sql("DELETE FROM settings_changes")
    server.sql(
        "INSERT INTO settings_changes (resource_type, resource_id, key, value)"
        " SELECT 'MiqServer', id, %s, %s FROM miq_servers",
        key,
        value,
    )


def test_garbage_in_rows_while_a_server_runs(environment: Environment, dsn: str, home: Home) -> None:
    """What was in force stays in force, for the workers too, until the row is right; a start is refused."""
    with appliance(dsn, home.path, settings=SELDOM) as server:
        workers = server.wait_for_workers(3)
        for key, value, said in BAD_ROWS:
            change_setting(server, key, value)
            eventually(lambda said=said: server.log().count(said) >= 4, what="server and workers name it")  # type: ignore[misc]
            status = run(environment, "miq", "status")
            assert (status.code, said in status.out.partition("Needs attention:")[2]) == (0, True)
        change_setting(server, "/server/role", "juggler")
        eventually(lambda: "unknown role juggler" in server.log(), what="the server names it")
        assert server.workers() == workers
        assert "Needs attention" not in run(environment, "miq", "status").out
        change_setting(server, "/workers/worker_base/queue_worker_base/generic_worker/count", "3")
        server.wait_for_workers(4)
        change_setting(server, "/server/role", "juggler")
        assert server.stop() == 0
    with nothing_written(dsn):
        assert "unknown role juggler" in refused(environment, "miq-server")


@pytest.mark.parametrize("command", [("miq-server",), WORKER], ids=" ".join)
def test_a_home_that_cannot_be(environment: Environment, dsn: str, tmp_path: Path, command: Sequence[str]) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with nothing_written(dsn):
            assert f"MIQ_HOME {home} cannot be used" in refused(environment | {"MIQ_HOME": str(home)}, *command)


# -- providers ---------------------------------------------------------------------------------------------------------

ACME = "ManageIQ::Providers::Acme::CloudManager"
RECORD = f"""
from miq.models.worker_types import BaseRefreshWorker
from miq.providers.base.manager import Manager, Provider

class CloudManager(Manager):
    type, ems_type, description, vendor = "{ACME}", "acme", "Acme Cloud", "acme"
    check = "acme.connection:check"

class RefreshWorker(BaseRefreshWorker):
    name, manager, runner = "{ACME}::RefreshWorker", CloudManager.type, "acme.runner:Runner"

PROVIDER = Provider("acme", (CloudManager,), (RefreshWorker,), sdk="acme.connection")
"""
NO_SDK = "import sdk_of_acme\n"
NOT_THERE = "ModuleNotFoundError: No module named 'sdk_of_acme'"


def install(folder: Path, **modules: str) -> str:
    """A package `acme` with an entry point, as pip would leave it; the folder to import it from."""
    (folder / "acme").mkdir(parents=True)
    for name, text in modules.items():
        (folder / "acme" / f"{name}.py").write_text(text)
    about = folder / "acme-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[miq.providers]\nacme = acme:PROVIDER\n")
    return str(folder)


def status_of(environment: Environment) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(run(environment, "miq", "status", "--json").out)
    return status


def add_valid(server: Appliance, type_name: str) -> int:
    """A manager whose credentials were found to be valid."""
    server.sql(
        "INSERT INTO ext_management_systems (name, type, zone_id, provider_region)"
        " SELECT %s, %s, id, 'us-east-1' FROM zones WHERE name = 'default'",
        type_name,
        type_name,
    )
    server.sql(
        "INSERT INTO authentications (resource_type, resource_id, authtype, status)"
        " SELECT 'ExtManagementSystem', id, 'default', 'Valid' FROM ext_management_systems WHERE type = %s",
        type_name,
    )
    server.sql("NOTIFY miq_sync")
    return int(server.sql("SELECT id FROM ext_management_systems WHERE type = %s", type_name)[0][0])


def assert_the_others_work(server: Appliance) -> None:
    server.sql("INSERT INTO miq_queue (class_name, method_name) VALUES ('Diagnostics', 'noop')")
    eventually(lambda: server.sql("SELECT count(*) FROM miq_queue WHERE class_name = 'Diagnostics'") == [(0,)])


def test_an_sdk_that_does_not_import_takes_down_its_own_workers_only(
    environment: Environment, dsn: str, home: Home, tmp_path: Path
) -> None:
    extra = install(tmp_path / "extra", __init__=RECORD, connection=NO_SDK, runner=NO_SDK)
    environment["PYTHONPATH"] = extra
    amazon = "ManageIQ::Providers::Amazon::CloudManager"
    with appliance(dsn, home.path, PYTHONPATH=extra) as server:
        others = server.wait_for_workers(3)
        ems_id = add_valid(server, ACME)
        add_valid(server, amazon)
        # from its second death on
        eventually(
            lambda: server.sql("SELECT 1 FROM miq_worker_exits WHERE back_off_until > utc_now() + '3s'::interval")
        )
        status = status_of(environment)
        assert [row["type"] for row in status["back_offs"]] == [f"{ACME}::RefreshWorker"]
        assert {row["reason"] for row in status["exits"]} == {f"acme.runner:Runner does not import: {NOT_THERE}"}
        assert (status["broken_providers"], status["unknown_types"]) == ({}, [])
        assert server.workers(f"{amazon}::RefreshWorker")
        assert [row for row in server.workers() if row in others] == others
        assert_the_others_work(server)
        shown = run(environment, "miq", "status").out
        assert NOT_THERE in shown
        assert f"acme does not import: {NOT_THERE}" in server.log()
        assert f"prod: Error: {NOT_THERE}" in run(environment, "miq", "ems", "check", ACME).err.replace(ACME, "prod")
        line = refused(environment, "miq-worker", "Acme::CloudManager::RefreshWorker", str(ems_id))
        assert "acme.runner:Runner does not import" in line and NOT_THERE in line
        assert server.sql("SELECT count(*) FROM miq_workers WHERE unsupervised") == [(0,)]
        assert server.stop() == 0


def test_a_record_that_does_not_load_is_named(environment: Environment, dsn: str, home: Home, tmp_path: Path) -> None:
    extra = install(tmp_path / "extra", __init__=NO_SDK)
    environment["PYTHONPATH"] = extra
    with appliance(dsn, home.path, PYTHONPATH=extra) as server:
        server.wait_for_workers(3)
        add_valid(server, ACME)
        assert_the_others_work(server)
        status = status_of(environment)
        assert status["broken_providers"] == {"acme": NOT_THERE}
        assert [row["type"] for row in status["unknown_types"]] == [ACME]
        assert f"provider acme does not load: {NOT_THERE}" in run(environment, "miq", "status").out
        for command in (("miq", "ems", "types"), ("miq-worker", "-l")):
            assert run(environment, *command).err == f"provider acme does not load: {NOT_THERE}\n"
        assert "unknown worker class" in refused(environment, "miq-worker", f"{ACME}::RefreshWorker", "1")
        assert len(server.workers()) == 3
        assert server.stop() == 0


def test_rows_of_an_unknown_type_are_named_and_left_alone(environment: Environment, dsn: str, home: Home) -> None:
    with appliance(dsn, home.path) as server:
        workers = server.wait_for_workers(3)
        ems_id = add_valid(server, ACME)
        ((worker_id,),) = server.sql(
            "INSERT INTO miq_workers (guid, type, status, pid, queue_name, miq_server_id) SELECT 'foreign', %s,"
            " 'started', 1, 'ems_99', id FROM miq_servers RETURNING id",
            f"{ACME}::RefreshWorker",
        )
        assert_the_others_work(server)
        status = status_of(environment)
        assert {(row["table"], row["id"], row["type"]) for row in status["unknown_types"]} == {
            ("miq_workers", worker_id, f"{ACME}::RefreshWorker"),
            ("ext_management_systems", ems_id, ACME),
        }
        shown = run(environment, "miq", "status").out
        assert f"miq_workers {worker_id} : type {ACME}::RefreshWorker is unknown here" in shown
        assert f"ext_management_systems {ems_id} {ACME}: type {ACME} is unknown here" in shown
        (listed,) = json.loads(run(environment, "miq", "ems", "list", "--json").out)
        assert listed["type"] == ACME
        assert f"no installed provider knows the type {ACME}" in run(environment, "miq", "ems", "check", ACME).err
        assert [row for row in server.workers() if row[0] != worker_id] == workers
        assert server.stop() == 0
    # a server that starts finds what is left of it
    with appliance(dsn, home.path) as server:
        server.wait_for_workers(3)
        assert server.stop() == 0
