"""The embedded PostgreSQL's life cycle: the first user starts it, the others adopt it, the last one stops it.

In: the appliance's `Home`. Out: a DSN. Users are counted by shared locks on `run/postgres.users`, which the kernel
drops with a process however it ends; whoever starts or stops holds `run/postgres.start` alone. The postmaster is
nobody's child and outlives its starter; it writes `log/postgres.log`.

Never listens on TCP, never has a password (the kernel names the peer), never runs as root, never trusts a pid it has
not looked at. Whether DATABASE_URL makes all this needless is the caller's question.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from miq import clock
from miq.errors import PostgresError
from miq.paths import Home
from miq.postgres_binaries import (
    Place,
    binaries_for,
    check_version,
    last_lines,
    locate,
    make_cluster,
    make_socket_folder,
    write_access,
)

log = logging.getLogger(__name__)

START_LIMIT = 60.0
RECOVERY_LIMIT = 3600.0  # while it lives and says that it is recovering
STOP_LIMIT = 60.0
LOCK_LIMIT = 120.0
OPTIONS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "600",
    "shared_buffers": "128MB",
    "jit": "off",
}


class EmbeddedPostgres:
    """One process's share in the server. A second `acquire` changes nothing; one `release` ends the share."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._place: Place | None = None
        self._share: int | None = None
        self._holder = 0

    def acquire(self) -> str:
        """Become a user: start the server if nobody has, adopt a live one; return its DSN."""
        if self._holder != os.getpid():
            self.forget()
        if self._share is None:
            with self._named_errors():
                self._home.make()
                with self._alone():
                    self._join()
                    try:
                        self._start_or_adopt()
                    except BaseException:
                        self._leave()
                        raise
        return self.dsn()

    def release(self) -> None:
        """Stop being a user; the last user stops the server (fast shutdown)."""
        if self._holder != os.getpid():
            self.forget()
        if self._share is not None:
            with self._named_errors(), self._alone():
                self._leave()

    def forget(self) -> None:
        """In a forked child: drop the parent's share, which stays the parent's. Never stops the server."""
        if self._share is not None:
            os.close(self._share)
        self._share = None

    def ensure_running(self) -> bool:
        """Restart a dead server (crash recovery included); True when it had to start one. May wait for minutes."""
        if self._share is None:
            raise PostgresError("the embedded PostgreSQL is restarted by its users only: acquire it first")
        found = postmaster(self._located().data)
        if found and found.status == "ready":
            return False
        with self._named_errors(), self._alone():
            return self._start_or_adopt()

    def dsn(self) -> str:
        """The address, whether or not a server is there."""
        return self._located().dsn

    def is_running(self) -> bool:
        return self.postmaster_pid() is not None

    def postmaster_pid(self) -> int | None:
        found = postmaster(self._located().data)
        return found.process.pid if found else None

    def __enter__(self) -> str:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _located(self) -> Place:
        return self._place or locate(self._home)

    def _alone(self) -> AbstractContextManager[None]:
        return _exclusive(self._home.path / "run" / "postgres.start")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostgresError(
                f"the embedded PostgreSQL of {self._home.path} cannot be used ({error}): "
                "give MIQ_HOME to the user that runs miq, or set DATABASE_URL"
            ) from error

    def _join(self) -> None:
        share = _open_lock(self._home.path / "run" / "postgres.users")
        fcntl.flock(share, fcntl.LOCK_SH)  # at once: an exclusive lock on it is only ever held by who holds `_alone`
        self._share, self._holder = share, os.getpid()

    def _leave(self) -> None:
        assert self._share is not None
        try:
            if _try_exclusive(self._share):
                stop(self._located())
        finally:
            fcntl.flock(self._share, fcntl.LOCK_UN)
            self.forget()

    def _start_or_adopt(self) -> bool:
        place = self._place = locate(self._home)
        log_file = self._home.log_dir / "postgres.log"
        if not (place.data / "PG_VERSION").exists():
            make_cluster(place)
        make_socket_folder(place)
        found = postmaster(place.data)
        if found and found.status == "stopping":
            stop(place)  # somebody else's order; a smart shutdown would wait for our own connections for ever
            found = None
        # A server that answers without a visible pid runs in another container; one that dies meanwhile is replaced.
        if (found or answers(place.socket)) and wait_ready(place, found.process if found else None):
            return False
        if not wait_ready(place, start(place, log_file)):
            raise _ended(log_file)
        return True


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file alone. Raises PostgresError when somebody else holds it for too long."""
    lock = _open_lock(path)
    try:
        deadline = clock.monotonic() + LOCK_LIMIT
        while not _try_exclusive(lock):
            if clock.monotonic() > deadline:
                raise PostgresError(
                    f"another process has held {path} for {LOCK_LIMIT:.0f} s while it starts or stops PostgreSQL: "
                    f"wait for it, or find it with `fuser {path}`"
                )
            time.sleep(0.02)
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough: a child forked meanwhile has the same lock
        os.close(lock)


def _open_lock(path: Path) -> int:
    """For reading only, so that root and the owner of MIQ_HOME can share the file."""
    return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)


def _try_exclusive(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True)
class Postmaster:
    """A live server and what it says of itself: starting, ready, stopping."""

    process: psutil.Process
    status: str


def postmaster(data: Path) -> Postmaster | None:
    """The server that `postmaster.pid` names, when that pid is a live `postgres` at work in this folder."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(abs(int(lines[0])))
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return Postmaster(process, lines[7].strip() if len(lines) > 7 else "starting") if _works_in(process, data) else None


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        return process.name() == "postgres" and _lives(process) and process.cwd() == str(data.resolve())
    except psutil.Error:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def answers(path: Path) -> bool:
    """Whether somebody listens on the socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        return probe.connect_ex(str(path)) not in (errno.ENOENT, errno.ECONNREFUSED)


def start(place: Place, log_file: Path) -> psutil.Process:
    """Start a server where none is alive; it may still be recovering when this returns."""
    binaries = binaries_for(place.account)
    check_version(place.data, binaries)
    _clear(place)
    write_access(place)
    folder = str(place.socket_folder).replace('"', '""')
    options = {**OPTIONS, "unix_socket_directories": f'"{folder}"'}
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    log.info("MIQ(EmbeddedPostgres.start) PostgreSQL %s on %s", binaries.version, place.data)
    try:
        return _detached(place, [binaries.folder / "postgres", "-D", place.data, *settings], log_file)
    except (ValueError, psutil.Error):
        raise _ended(log_file) from None


def _detached(place: Place, command: list[str | Path], log_file: Path) -> psutil.Process:
    """Run in a session of its own. The shell ends at once, so that init (or a subreaper) becomes the parent."""
    shell: list[str | Path] = ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command]
    output = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    try:
        place.account.give(output)
        answer = place.account.run(
            shell, 30, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, start_new_session=True
        )
    finally:
        os.close(output)
    return psutil.Process(int(answer.stdout))


def _clear(place: Place) -> None:
    """Remove what a dead server left. Its backends cannot go on without it: they are ended, as in a crash."""
    left = [process for process in psutil.process_iter() if _works_in(process, place.data)]
    if not _end(left, (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)):
        raise PostgresError(f"processes of a dead server will not leave {place.data}: end {[p.pid for p in left]}")
    for path in (place.data / "postmaster.pid", Path(f"{place.socket}.lock"), place.socket):
        path.unlink(missing_ok=True)


def wait_ready(place: Place, process: psutil.Process | None) -> bool:
    """True when the server takes connections and has its database, False when it died. Waits for a long recovery."""
    began = clock.monotonic()
    while True:
        try:
            _make_database(place)
            return True
        except psycopg.OperationalError as error:
            trouble = str(error)
        if process is not None and not _lives(process):
            return False
        if "shutting down" in trouble:
            stop(place)
        elif clock.monotonic() - began > _patience(trouble):
            raise PostgresError(f"PostgreSQL on {place.data} does not answer: {last_lines(trouble)}")
        time.sleep(0.02)


def _patience(trouble: str) -> float:
    if any(words in trouble for words in ("starting up", "recovery", "not yet accepting")):
        return RECOVERY_LIMIT
    return 0.0 if "FATAL" in trouble else START_LIMIT


def _make_database(place: Place) -> None:
    with psycopg.connect(place.dsn, dbname="postgres", autocommit=True, connect_timeout=5) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'miq'").fetchall():
            connection.execute("CREATE DATABASE miq")


def stop(place: Place) -> None:
    """Fast shutdown; an immediate one (the next start recovers) when that takes too long."""
    found = postmaster(place.data)
    if found and not _end([found.process], (signal.SIGINT, STOP_LIMIT), (signal.SIGQUIT, 10.0)):
        log.error("MIQ(EmbeddedPostgres) pid %s on %s does not stop", found.process.pid, place.data)


def _end(processes: Sequence[psutil.Process], *steps: tuple[signal.Signals, float]) -> bool:
    """Send each signal in turn until all are gone; False when the last one did not help."""
    for number, limit in steps:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = clock.monotonic() + limit
        while clock.monotonic() < deadline:
            if not any(map(_lives, processes)):
                return True
            time.sleep(0.01)
    return False


def _ended(log_file: Path) -> PostgresError:
    return PostgresError(
        f"PostgreSQL ended while it started; {log_file} says: {last_lines(log_file.read_text(errors='replace'))}"
    )
