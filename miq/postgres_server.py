"""One PostgreSQL server process: found, started, waited for, stopped.

In: a `Place` (data, socket, account). Out: a running postmaster that is nobody's child, or a PostgresError with the
last lines of its log. A pid is only believed when it is a `postgres` that works in the data folder; what a dead one
left behind is cleared before a start.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from miq import clock
from miq.errors import PostgresError
from miq.postgres_binaries import (
    Place,
    binaries_for,
    check_version,
    last_lines,
    write_access,
)

log = logging.getLogger(__name__)

START_LIMIT = 60.0
RECOVERY_LIMIT = 3600.0  # while it lives and says that it is recovering
STOP_LIMIT = 60.0
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
        raise ended_badly(log_file) from None


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


def ended_badly(log_file: Path) -> PostgresError:
    """The error of a server that did not come up, with what it said last."""
    return PostgresError(
        f"PostgreSQL ended while it started; {log_file} says: {last_lines(log_file.read_text(errors='replace'))}"
    )
