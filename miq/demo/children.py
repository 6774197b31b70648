"""A process that we start, watch and stop.

It has a session of its own, so a Ctrl-C of the terminal is for us alone to pass on, and never outlives us: the kernel
kills it if we die without a word. What it prints goes to a log file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from miq import process

#: bytes of a log's end that are looked at
_TAIL = 16384


class Child:
    """One such process, from its start on."""

    def __init__(
        self, argv: Sequence[str], log: Path, environment: Mapping[str, str], keep_open: Sequence[int] = ()
    ) -> None:
        us = os.getpid()
        self.log = log
        with log.open("ab") as output:
            self._end_of_old_log = output.tell()
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=keep_open,
                start_new_session=True,
                # safe, for we have no threads; the signal is set before exec and stays
                preexec_fn=lambda: process.die_with_parent(us) or os._exit(1),
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs, the negative signal number when one ended it."""
        return self._popen.poll()

    def stop(self, timeout: float, hurry: Callable[[], bool] = lambda: False) -> int:
        """Ask it to end, wait, then insist, or at once when there is hurry; the exit code."""
        deadline = time.monotonic() + timeout
        self._popen.terminate()
        while self._popen.poll() is None and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        return self.kill()

    def kill(self) -> int:
        """End it and its process group at once."""
        if self.exit_code is None:
            os.killpg(self.pid, signal.SIGKILL)
        return self._popen.wait()

    def last_lines(self, log: Path | None = None, count: int = 10) -> list[str]:
        """The end of what this process, and none before it, has printed; or of another log."""
        with (log or self.log).open("rb") as file:
            old = 0 if log else self._end_of_old_log
            file.seek(max(old, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode(errors="replace").splitlines()[-count:]
