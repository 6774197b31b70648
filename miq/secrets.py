"""Credentials at rest and in memory: the key of MIQ_HOME, what is encrypted with it, and a wrapper that does not leak.

In: a key file (made on first use, mode 0600) and plain text. Out: `v2:{TOKEN}`, the form in which the columns hold it.
A wrong or damaged key or token is a SecretError that names the file or the field. Neither key nor plain text ever gets
into a `repr`, a log line or an error; the database knows the key by its fingerprint only.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from miq.errors import SecretError

log = logging.getLogger(__name__)

_STORED = re.compile(r"v2:\{([A-Za-z0-9_=-]+)\}")


class Secret:
    """A secret in memory. It shows itself only to who asks: `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return "********"

    def __repr__(self) -> str:
        return "Secret('********')"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)


class Key:
    """The encryption key of one appliance (or of all that share a database)."""

    __slots__ = ("_fernet", "fingerprint", "path")

    def __init__(self, path: Path, content: bytes) -> None:
        try:
            self._fernet = Fernet(content)
        except ValueError:
            raise SecretError(f"{path} is damaged: put the right key file back from a backup") from None
        self.path = path
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> Key:
        try:
            content = path.read_bytes().strip()
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise SecretError(
                f"there is no key file {path}: put it back, credentials cannot be read without it"
            ) from None
        except OSError as error:
            raise SecretError(f"{path} cannot be read ({error.strerror}): give it to the user that runs miq") from None
        if mode & 0o077:
            log.warning("MIQ(Key.load) others may read %s: chmod 600", path)
        return cls(path, content)

    @classmethod
    def load_or_create(cls, path: Path) -> Key:
        """The key of the file, which is made when missing. Processes that race for it all get the same key."""
        if not path.exists():
            try:
                _create(path)
            except OSError as error:
                raise SecretError(f"{path} cannot be made ({error.strerror}): give its folder to this user") from None
        return cls.load(path)

    def encrypt(self, text: str) -> str:
        return f"v2:{{{self._fernet.encrypt(text.encode()).decode()}}}"

    def decrypt(self, stored: str, field: str = "a stored credential") -> str:
        """The plain text. `field` is how an error names the place that it came from."""
        match = _STORED.fullmatch(stored)
        try:
            return self._fernet.decrypt(match[1] if match else "").decode()
        except (InvalidToken, UnicodeDecodeError):
            raise SecretError(
                f"{field} is damaged or was encrypted with another key than {self.path}: enter it again"
            ) from None

    def __repr__(self) -> str:
        return f"<Key {self.fingerprint} of {self.path}>"


def _create(path: Path) -> None:
    """Complete or not at all, and never over another's: a link fails where a rename would replace."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600, O_EXCL
    fresh = Path(name)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(fresh)
        log.info("MIQ(Key.create) made %s: keep a copy, credentials cannot be read without it", path)
    except FileExistsError:
        log.debug("MIQ(Key.create) another process was faster with %s", path)
    finally:
        fresh.unlink()


def check_fingerprint(key: Key, stored: str | None) -> None:
    """Compare with what the database remembers; None when nothing was encrypted yet."""
    if stored is not None and stored != key.fingerprint:
        raise SecretError(
            f"the database was encrypted with another key (fingerprint {stored}, {key.path} has {key.fingerprint}): "
            "put MIQ_HOME/keys/v2_key back"
        )


def rotate(old: Key, new: Key, stored: str) -> str:
    """The same secret, encrypted anew."""
    return new.encrypt(old.decrypt(stored))
