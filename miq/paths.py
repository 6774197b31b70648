"""Where files are: the state below MIQ_HOME, and the files that come with the program.

`MIQ_HOME` is the environment's, else `.miq` in the checkout that this package is run from, else `/var/lib/miq`.
Nothing here creates anything; `Home.make()` does, and only the folders.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from miq.errors import UsageError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def shipped(name: str) -> Path:
    """The folder `etc` or `migrations`: beside the package in a checkout, inside it when installed from a wheel."""
    return (CHECKOUT or PACKAGE) / name


@dataclass(frozen=True)
class Home:
    """The state of one appliance on disk."""

    path: Path

    @property
    def pid_file(self) -> Path:
        return self.path / "pids" / "evm.pid"

    @property
    def guid_file(self) -> Path:
        return self.path / "GUID"

    @property
    def log_dir(self) -> Path:
        return self.path / "log"

    @property
    def log_file(self) -> Path:
        return self.log_dir / "evm.log"

    @property
    def key_file(self) -> Path:
        return self.path / "keys" / "v2_key"

    @property
    def slots(self) -> Path:
        return self.path / "run" / "slots"

    @property
    def local_settings(self) -> Path:
        return self.path / "settings.local.yml"

    def make(self) -> Home:
        """Create the folders (0700 for keys and run) and return self. Raises UsageError when that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name, mode in (("pids", 0o755), ("log", 0o755), ("keys", 0o700), ("run", 0o700), ("run/slots", 0o700)):
                (self.path / name).mkdir(mode=mode, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"MIQ_HOME {self.path} cannot be used ({error.strerror}): name a folder of the user that runs miq"
            ) from None
        return self


def home() -> Home:
    """The appliance that this process belongs to."""
    given = os.environ.get("MIQ_HOME")
    if given:
        return Home(Path(given).expanduser().absolute())
    return Home(CHECKOUT / ".miq" if CHECKOUT else Path("/var/lib/miq"))
