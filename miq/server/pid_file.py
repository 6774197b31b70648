"""One server per MIQ_HOME: a pid file that is locked as long as its server lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from miq.errors import AlreadyRunning, UsageError


class PidFile:
    """Held from `take` to `release`; the kernel lets go of the lock of a server that was killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises AlreadyRunning, naming the other's pid, and UsageError when the file cannot be written."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be used ({error.strerror}): give MIQ_HOME to the user that runs miq"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunning(
                f"a server runs on {self.path.parent.parent} already (pid {other}): stop it with `miq server stop`,"
                " or give this one another MIQ_HOME"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Empty the file and let go."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
