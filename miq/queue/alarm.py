"""The time-outs of messages, by one timer of the process for all of them.

Messages may take microseconds, so the timer is not set for each: it rings at the earliest moment that was asked for,
sees whether the message that is running now has to end, and is set anew if not. It also rings when a batch has been
held for too long, so that its rest can be given back while the message in hand still runs. Only Python code can be
interrupted; one that hangs in C is ended by the server, which reads the same deadline in the slot.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from miq.errors import MessageTimeout

#: seconds after which code that swallowed its time-out gets it once more
AGAIN = 5.0


class Alarm:
    """SIGALRM, shared by the messages of one worker. Only for the main thread."""

    def __init__(self) -> None:
        self._timeout = 0.0
        self._deadline: float | None = None
        self._held_too_long: float | None = None
        self._let_go: Callable[[], bool] = lambda: True
        self._rings: float | None = None
        self.is_on = False
        #: whether the message that runs now was interrupted: its connection may be in the middle of a statement
        self.rang = False

    @contextmanager
    def on(self, hold: float, let_go: Callable[[], bool]) -> Iterator[None]:
        """Hear the timer meanwhile; `let_go` is called from within a message that still runs after `hold` seconds.

        It says whether it did, else it is called again later.
        """
        before = signal.signal(signal.SIGALRM, self._ring)
        self._held_too_long, self._let_go = time.monotonic() + hold, let_go
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False
            self._held_too_long = None
            self._rings = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def start(self, seconds: float) -> float:
        """The message that begins now has `seconds`; when they are over (CLOCK_MONOTONIC)."""
        self.rang = False
        self._timeout = seconds
        self._deadline = time.monotonic() + seconds
        self._set()
        return self._deadline

    def stop(self) -> None:
        """The message has ended."""
        self._deadline = None

    def _set(self) -> None:
        assert self._deadline is not None
        soonest = self._deadline if self._held_too_long is None else min(self._deadline, self._held_too_long)
        if self._rings is None or soonest < self._rings:
            self._rings = soonest
            signal.setitimer(signal.ITIMER_REAL, max(0.001, soonest - time.monotonic()))

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self._rings = None
        if self._deadline is None:
            return
        now = time.monotonic()
        overdue = now >= self._deadline
        if overdue:
            self._deadline = now + AGAIN
        if self._held_too_long is not None and now >= self._held_too_long:
            self._held_too_long = None if self._let_go() else now + AGAIN
        self._set()
        if overdue:
            self.rang = True
            raise MessageTimeout(self.complaint)

    @property
    def complaint(self) -> str:
        """What is said of a message that ran past its time."""
        return f"timed out after {self._timeout:g} seconds"
