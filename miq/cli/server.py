"""`miq server`: stop the server of this MIQ_HOME."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import typer

from miq import paths, process, settings_loader
from miq.cli.output import progress, say
from miq.errors import MiqError, UsageError

TITLE = "MIQ Server"
#: seconds beyond the quiesce time-out, for the database and the mold to go
GRACE = 30.0

command = typer.Typer()


@command.callback()
def _noun() -> None:
    """Look after the server of this MIQ_HOME."""


@command.command("stop")
def stop() -> None:
    """Stop the server as systemd does, and wait until it is gone."""
    home = paths.home()
    pid = running_server(home)
    if pid is None:
        say(f"no server runs on {home.path}")
        return
    limit = settings_loader.local(home).number("server.quiesce_timeout", 60) + GRACE
    started = process.start_time(pid)
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise UsageError(f"the server (pid {pid}) belongs to another user: use sudo") from None
    with progress(f"stopping the server (pid {pid})") as tell:
        _wait_until_gone(pid, started, limit, tell)
    print(f"server {pid} stopped")


def running_server(home: paths.Home) -> int | None:
    """The pid of the server of this home; None when there is none, or the pid is somebody else's by now."""
    try:
        pid = int(home.pid_file.read_text().split()[0])
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (OSError, ValueError, IndexError):
        return None
    return pid if TITLE in title and process.start_time(pid) is not None else None


def _wait_until_gone(pid: int, started: int | None, limit: float, tell: Callable[[str], None]) -> None:
    end = time.monotonic() + limit
    tell("its workers finish the messages in hand")
    while process.is_same(pid, started):
        if time.monotonic() > end:
            raise MiqError(
                f"the server (pid {pid}) still runs after {limit:.0f} s; `kill -9 {pid}` ends it and its workers"
            )
        time.sleep(0.1)
