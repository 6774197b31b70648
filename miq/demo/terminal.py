"""The terminal of `make run`: lines out, Ctrl-C in.

make dies of a Ctrl-C that reaches it, whatever its recipe does, and `make run` would end with an error. So under make
we take the terminal for ourselves, as a shell does for a job: the signal then comes to us alone, and make sees us
exit 0.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: what asks us to stop; the closing of the terminal too
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(line: str) -> None:
    """One line, with the time. A terminal that is gone is no reason to fail: there is work to end."""
    try:
        print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
    except OSError:
        # nothing may be left for the interpreter to flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Requests:
    """How often we were asked to stop. The third time is left to the kernel."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def stop(self) -> bool:
        return self.count > 0

    @property
    def hurry(self) -> bool:
        return self.count > 1

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.hurry:
            signal.signal(number, signal.SIG_DFL)

    @contextmanager
    def heard(self) -> Iterator[Requests]:
        """Count instead of dying."""
        before = {number: signal.signal(number, self._asked) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def foreground() -> Iterator[None]:
    """Under make, be the terminal's foreground process group, and give it back at the end."""
    if not _is_job_of_make():
        yield
        return
    makes = os.getpgrp()
    os.setpgid(0, 0)
    _give_terminal_to(os.getpgrp())
    # A stopped job would leave the terminal to nobody: make does not wait for it.
    before = signal.signal(signal.SIGTSTP, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
        _give_terminal_to(makes)


def _is_job_of_make() -> bool:
    try:
        in_foreground = os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
    return in_foreground and "MAKELEVEL" in os.environ and os.getpgrp() != os.getpid()


def _give_terminal_to(group: int) -> None:
    """The kernel stops a background process that does this, unless the signal is blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        os.tcsetpgrp(0, group)
    except OSError:
        return  # the terminal is closed
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})
