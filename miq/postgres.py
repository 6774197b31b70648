"""The embedded PostgreSQL's life cycle: the first user starts it, the others adopt it, the last one stops it.

In: the appliance's `Home`. Out: a DSN. Users are counted by shared locks on `run/postgres.users`, which the kernel
drops with a process however it ends; whoever starts or stops holds `run/postgres.start` alone. The postmaster is
nobody's child and outlives its starter; it writes `log/postgres.log`.

Never listens on TCP, never has a password (the kernel names the peer), never runs as root, never trusts a pid it has
not looked at. Whether DATABASE_URL makes all this needless is the caller's question.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from miq import clock
from miq.errors import PostgresError
from miq.paths import Home
from miq.postgres_binaries import (
    Place,
    locate,
    make_cluster,
    make_socket_folder,
)
from miq.postgres_server import answers, ended_badly, postmaster, start, stop, wait_ready

log = logging.getLogger(__name__)

LOCK_LIMIT = 120.0


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
            raise ended_badly(log_file)
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
