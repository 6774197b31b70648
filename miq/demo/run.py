"""`miq demo`: everything that `make run` starts, in order, what it shows meanwhile, and its end.

    PostgreSQL, migrations -> the simulator with its account -> a manager for it -> miq-server -> changes, for ever

Ctrl-C ends it in the reverse order, a second one at once. State stays in MIQ_HOME: the next run goes on with it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from miq import paths
from miq.database_address import database_address
from miq.db import Database, OutOfReach
from miq.demo.account import pause_after
from miq.demo.children import Child
from miq.demo.cloud import Cloud
from miq.demo.simulator import ACCESS_KEY, REGION, SECRET_KEY, Simulator
from miq.demo.terminal import Requests, say
from miq.demo.watch import Watch
from miq.ems_refresh.queueing import queue_refresh
from miq.errors import AlreadyRunning, UsageError
from miq.managers.add import AddManager, add_manager
from miq.managers.credentials import queue_check
from miq.managers.edit import EditManager, edit_manager
from miq.managers.rows import find_authentication, find_endpoint
from miq.models import AuthenticationStatus, ExtManagementSystem
from miq.paths import Home
from miq.schema import migrate
from miq.secrets import Key
from miq.server import seeding

MANAGER = "demo"
MANAGER_TYPE = "ManageIQ::Providers::Amazon::CloudManager"

#: more than `server.quiesce_timeout`
SERVER_STOP_TIMEOUT = 70.0
LOOK_EVERY = 0.3

EXIT_OK, EXIT_FAILED, EXIT_KILLED = 0, 1, 130


def run(home: Home, requests: Requests, seconds: float | None = None) -> int:
    """Run until asked to stop, or for so many seconds; the exit code."""
    home.make()
    folder = home.path / "demo"
    folder.mkdir(exist_ok=True)
    ends = time.monotonic() + seconds if seconds is not None else None
    with alone(folder / "lock"), postgres(home) as dsn:
        database = Database(dsn, "MIQ|demo")
        try:
            code = _Demo(home, folder, database, requests, ends).run()
            return EXIT_KILLED if requests.hurry else code
        finally:
            database.close()


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Two demos on one MIQ_HOME would change one account. Raises AlreadyRunning."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"a demo runs on {lock.parent.parent} already: stop it, or set MIQ_HOME") from None
        yield


@contextmanager
def postgres(home: Home) -> Iterator[str]:
    """The outside database, or the embedded one for as long as we run."""
    outside = bool(os.environ.get("DATABASE_URL"))
    say("PostgreSQL: the one of DATABASE_URL" if outside else "PostgreSQL: starting the embedded one")
    with database_address(home) as dsn:
        yield dsn
        if not outside:
            say("PostgreSQL: leaving it")


class _Demo:
    """One run, PostgreSQL being there."""

    def __init__(self, home: Home, folder: Path, database: Database, requests: Requests, ends: float | None) -> None:
        self._home, self._folder, self._database, self._requests, self._ends = home, folder, database, requests, ends

    @property
    def _over(self) -> bool:
        return self._requests.stop or (self._ends is not None and time.monotonic() >= self._ends)

    def run(self) -> int:
        migrate(self._database, progress=say)
        say("Amazon simulator: starting")
        simulator = Simulator(self._folder, self._home.log_dir / "simulator.log")
        try:
            simulator.wait()
            cloud = Cloud(simulator.url, self._folder / "changes.jsonl")
            made = cloud.restore()
            say(f"Amazon simulator: {simulator.url}, {len(cloud.account.machines)} instances after {made} changes")
            return EXIT_OK if self._over else self._serve(simulator, cloud)
        finally:
            simulator.stop()

    def _serve(self, simulator: Simulator, cloud: Cloud) -> int:
        ems_id = register(self._database, self._home, simulator.url)
        watch = Watch(self._database, ems_id)
        server = start_server(self._home)
        say(f"miq-server: started, pid {server.pid}, log {self._home.log_file}")
        tell_commands(self._home)
        try:
            return self._watch(simulator, server, cloud, watch, ems_id)
        finally:
            if server.exit_code is None:
                say("miq-server: stopping, its workers finish what they have in hand")
            server.stop(SERVER_STOP_TIMEOUT, lambda: self._requests.hurry)

    def _watch(self, simulator: Simulator, server: Child, cloud: Cloud, watch: Watch, ems_id: int) -> int:
        due: float | None = None
        away = False
        while not self._over:
            for name, child in (("miq-server", server), ("the simulator", simulator.process)):
                if child.exit_code is not None:
                    return self._died(name, child)
            try:
                for line in watch.news():
                    say(line)
                if watch.refreshed and due is None:
                    due = time.monotonic() + pause_after(cloud.account.step)
                if due is not None and time.monotonic() >= due:
                    self._change(cloud, watch, ems_id)
                    due = None
                away = False
            except OutOfReach as error:
                if not away:
                    say(f"the database is away: {str(error).strip().splitlines()[0]}")
                away = True
            time.sleep(LOOK_EVERY)
        return EXIT_OK

    def _change(self, cloud: Cloud, watch: Watch, ems_id: int) -> None:
        change = cloud.step()
        say(f"account      {change}")
        watch.expect(change, cloud.ids[change.name])
        with self._database.session() as session:
            queue_refresh(session, [ems_id], cause=f"demo: {change}")

    def _died(self, name: str, child: Child) -> int:
        say(f"{name} has ended by itself, exit code {child.exit_code}; its last lines:")
        for line in child.last_lines() or child.last_lines(self._home.log_file):
            say(f"  {line}")
        return EXIT_FAILED


def start_server(home: Home) -> Child:
    """`miq-server`, as an operator would start it."""
    argv = [sys.executable, "-m", "miq.workers.bin.server"]
    return Child(argv, home.log_dir / "miq-server.out", {**os.environ, "MIQ_HOME": str(home.path)})


def register(database: Database, home: Home, url: str) -> int:
    """The id of the manager for the simulated account, added on the first run, led to the new address on later ones."""
    with database.session() as session:
        key = seeding.check_key(session, home.key_file)
        seeding.seed(session, key)
        ems, changed = _manager(session, key, url)
        authentication = find_authentication(session, ems.id)
        if changed or authentication is None or authentication.status != AuthenticationStatus.VALID:
            queue_check(session, ems, with_task=False)
        say(f"manager {MANAGER!r}: id {ems.id}, {url}" + ("" if ems.enabled else "; it is paused"))
        return ems.id


def _manager(session: Session, key: Key, url: str) -> tuple[ExtManagementSystem, bool]:
    ems = session.scalars(select(ExtManagementSystem).where(ExtManagementSystem.name == MANAGER)).first()
    if ems is None:
        wanted = AddManager(MANAGER_TYPE, MANAGER, REGION, ACCESS_KEY, SECRET_KEY, endpoint_url=url)
        return add_manager(session, key, wanted), True
    endpoint = find_endpoint(session, ems.id)
    if endpoint is None or endpoint.hostname != "127.0.0.1" or ems.type != MANAGER_TYPE:
        raise UsageError(
            f"the manager named {MANAGER!r} in this database is no simulated one: rename it, then run again"
        )
    return ems, endpoint.url != url and edit_manager(session, key, ems, EditManager(endpoint_url=url))


def tell_commands(home: Home) -> None:
    """What to type in another terminal."""
    miq = command_prefix(home)
    too = " (with DATABASE_URL set there, too)" if os.environ.get("DATABASE_URL") else ""
    say(f"Look further, in another terminal{too}; Ctrl-C here stops everything:")
    for line in (f"{miq} status", f"{miq} ems show {MANAGER}", f"{miq} sql", f'psql "$({miq} db url)"'):
        say(f"    {line}")


def command_prefix(home: Home) -> str:
    """How to call `miq` for this MIQ_HOME from where the user is."""
    miq = Path(sys.executable).with_name("miq")
    here = miq.relative_to(Path.cwd()) if miq.is_relative_to(Path.cwd()) else miq
    called = str(here) if paths.CHECKOUT and miq.exists() else "miq"
    given = [f"{name}={shlex.quote(os.environ[name])}" for name in ("MIQ_HOME",) if os.environ.get(name)]
    return " ".join([*given, called])
