"""A real `miq-server` of a test's own: started, watched, stopped by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

Row = tuple[Any, ...]
Result = TypeVar("Result")


def eventually(look: Callable[[], Result], *, seconds: float = 15.0, what: str = "") -> Result:
    """The first true answer; fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or look}")
        time.sleep(0.02)


@dataclass
class Appliance:
    """One server process on one database and MIQ_HOME."""

    process: subprocess.Popen[bytes]
    home: Path
    connection: psycopg.Connection[Row]

    def sql(self, statement: str, *parameters: object) -> list[Row]:
        """Ask as an operator would."""
        cursor = self.connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def workers(self, type_name: str | None = None) -> list[Row]:
        """(id, type, status, pid, queue_name) of the workers that are started."""
        return self.sql(
            "SELECT id, type, status, pid, queue_name FROM miq_workers WHERE status = 'started'"
            " AND (%s::text IS NULL OR type = %s) ORDER BY id",
            type_name,
            type_name,
        )

    def wait_for_workers(self, count: int, type_name: str | None = None) -> list[Row]:
        """Until so many are started, and no other is on its way."""
        eventually(lambda: len(self.workers(type_name)) == count, what=f"{count} workers {type_name or ''}")
        return self.workers(type_name)

    def log(self) -> str:
        return (self.home / "log" / "evm.log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Signal it and wait for its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def appliance(dsn: str, home: Path, *, settings: str = "", **env: str) -> Iterator[Appliance]:
    """A running server; killed at the end, with its workers, if it still runs."""
    home.mkdir(exist_ok=True)
    if settings:
        (home / "settings.local.yml").write_text(settings)
    with (home / "server.out").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "miq.workers.bin.server"],
            env={**os.environ, "MIQ_HOME": str(home), "DATABASE_URL": dsn, **env},
            stdout=out,
            stderr=out,
        )
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            yield Appliance(process, home, connection)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def title(pid: int) -> str:
    """What `ps` shows."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
